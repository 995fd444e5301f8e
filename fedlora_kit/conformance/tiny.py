"""Tiny random models and data, in which a whole federation takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

ARCHITECTURES = ("roberta", "bert", "vit", "llama")
_SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def backbone(kind: str, labels: int = 3, seed: int = 0, **extra: Any) -> torch.nn.Module:
    """A tiny classifier of an architecture, with weights large enough to make gradients visible.

    Args:
        kind: one of `ARCHITECTURES`.
        extra: of the architecture's configuration, such as ``num_hidden_layers``.
    """
    import transformers

    text = {"vocab_size": 40, "initializer_range": 0.2, "num_labels": labels, **_SIZE, **extra}
    quiet = {**_NO_DROPOUT, **text}
    configs = {
        "roberta": lambda: transformers.RobertaConfig(max_position_embeddings=40, **quiet),
        "bert": lambda: transformers.BertConfig(max_position_embeddings=40, **quiet),
        "llama": lambda: transformers.LlamaConfig(num_key_value_heads=1, pad_token_id=1, **text),
        "vit": lambda: transformers.ViTConfig(
            image_size=4,
            patch_size=2,
            num_channels=1,
            initializer_range=0.2,
            num_labels=labels,
            **{**_NO_DROPOUT, **_SIZE, **extra},
        ),
    }
    auto = (
        transformers.AutoModelForImageClassification
        if kind == "vit"
        else transformers.AutoModelForSequenceClassification
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: torch.nn.Module = auto.from_config(configs[kind]()).eval()
    return made


def text_data(n: int, labels: int = 3, seed: int = 0, vocab: int = 40) -> EncodedText:
    """Sequences of 3 to 9 random tokens; the label depends on the tokens, so that it can be learned."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, size=n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = rng.integers(4, vocab, size=int(offsets[-1])).astype(np.int32)
    firsts = tokens[offsets[:-1]] if n else np.empty(0, np.int32)
    return EncodedText({"input_ids": tokens}, offsets, (firsts % labels).astype(np.int64), {"input_ids": 1})


def image_data(n: int, labels: int = 3, seed: int = 0) -> EncodedImages:
    """Random 1 x 4 x 4 images."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.normal(size=(n, 1, 4, 4)).astype(np.float32))
    return EncodedImages(pixels, rng.integers(0, labels, size=n).astype(np.int64))


def data(kind: str, n: int, seed: int = 0) -> EncodedText | EncodedImages:
    """Data that fits an architecture."""
    return image_data(n, seed=seed) if kind == "vit" else text_data(n, seed=seed)


def federation(
    method_name: str = "lora",
    sizes: tuple[int, ...] = (12, 8, 10),
    *,
    kind: str = "roberta",
    lora: LoraSettings | None = None,
    rounds: FederationSettings | None = None,
    local: LocalSettings | None = None,
    seed: int = 0,
    clients: Sequence[EncodedData] | None = None,
    depth: int = 2,
    settings: Mapping[str, Any] | None = None,
    under_way: bool = False,
    **extra: Any,
) -> Federation:
    """A small federation, ready to run: `training.rounds.run_federation` takes it.

    Args:
        sizes: examples of each client, unless ``clients`` are given.
        settings: of the method.
        under_way: start from a B that is not zero, as after some rounds: at the very start A alone has no
            gradient.
        extra: further fields of `Federation`, such as ``privacy``.
    """
    lora = lora or LoraSettings(rank=2, alpha=4)
    model = attach_lora(backbone(kind, num_hidden_layers=depth), lora, seed=1)
    if under_way:
        generator = torch.Generator().manual_seed(2)
        for name, p in model.named_parameters():
            if ".lora_B" in name:
                p.data = 0.1 * torch.randn(p.shape, generator=generator)
    chosen: dict[str, Any] = {"server": data(kind, 10, seed=77), **extra}
    return Federation(
        model=model,
        method=method(method_name, **(settings or {})),
        clients=clients if clients is not None else [data(kind, n, seed=k) for k, n in enumerate(sizes)],
        evals={"validation": data(kind, 20, seed=99)},
        rounds=rounds or FederationSettings(rounds=2),
        local=local or LocalSettings(lr=0.1, steps=3, batch_size=4),
        streams=Streams(seed),
        head=lora.head,
        **chosen,
    )
