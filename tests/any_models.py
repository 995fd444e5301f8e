"""Tiny random models of many families, saved as the Hub would hold them, with one tokenizer for all texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fedlora_kit.data.task import Examples, Task
from fedlora_kit.data.tasks import register_task
from fedlora_kit.models.kinds import Kind, auto_class

WORDS = [*"abcdefghijklmnopqrstuvwxyzABCD"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
_SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_TEXT = {
    "vocab_size": 40,
    "max_position_embeddings": 80,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
_ENCODER = {**_SIZE, **_TEXT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_DECODER = {**_SIZE, **_TEXT, "num_key_value_heads": 1, "head_dim": 8}
_IMAGE = {**_SIZE, "image_size": 8, "patch_size": 2, "initializer_range": 0.2}
_SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_DEBERTA = {**_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}

_BERT = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_VIT = {
    "q": "attention.q_proj",
    "k": "attention.k_proj",
    "v": "attention.v_proj",
    "o": "attention.o_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
_LLAMA = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        kind, model_type, config: how transformers makes one.
        layers: the list of layers.
        places: role -> module in a layer.
        head: the modules of a classifier's head.
    """

    kind: Kind
    model_type: str
    config: dict[str, Any]
    layers: str
    places: dict[str, str]
    head: tuple[str, ...] = ("classifier",)


FAMILIES: dict[str, Family] = {
    "roberta": Family("text", "roberta", _ENCODER, "roberta.encoder.layer", _BERT),
    "bert": Family("text", "bert", _ENCODER, "bert.encoder.layer", _BERT),
    "xlm-roberta": Family("text", "xlm-roberta", _ENCODER, "roberta.encoder.layer", _BERT),
    "electra": Family("text", "electra", {**_ENCODER, "embedding_size": 8}, "electra.encoder.layer", _BERT),
    "distilbert": Family(
        "text",
        "distilbert",
        {
            **_TEXT,
            "dim": 16,
            "hidden_dim": 24,
            "n_layers": 2,
            "n_heads": 2,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
        "distilbert.transformer.layer",
        {
            "q": "attention.q_lin",
            "k": "attention.k_lin",
            "v": "attention.v_lin",
            "o": "attention.out_lin",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
        },
        ("pre_classifier", "classifier"),
    ),
    "modernbert": Family(
        "text",
        "modernbert",
        {
            **_ENCODER,
            "cls_token_id": 0,
            "sep_token_id": 2,
            "local_attention": 4,
            "classifier_dropout": 0.0,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        "model.layers",
        {"qkv": "attn.Wqkv", "o": "attn.Wo", "gate_up": "mlp.Wi", "down": "mlp.Wo"},
        ("head", "classifier"),
    ),
    "vit": Family("image", "vit", _IMAGE, "vit.layers", _VIT),
    "deit": Family(
        "image", "deit", {**_IMAGE, "architectures": ["DeiTForImageClassification"]}, "deit.layers", _VIT
    ),
    "dinov2": Family("image", "dinov2", {**_IMAGE, "mlp_ratio": 2}, "dinov2.encoder.layer", _VIT),
    "swin": Family(
        "image",
        "swin",
        {
            "image_size": 8,
            "patch_size": 1,
            "embed_dim": 8,
            "depths": [2, 1],
            "num_heads": [2, 2],
            "window_size": 2,
            "initializer_range": 0.2,
            "drop_path_rate": 0.0,
        },
        "swin.encoder.layers",
        _VIT,
    ),
    "llama": Family("causal", "llama", _DECODER, "model.layers", _LLAMA),
    "mistral": Family("causal", "mistral", {**_DECODER, "sliding_window": None}, "model.layers", _LLAMA),
    "qwen2": Family("causal", "qwen2", _DECODER, "model.layers", _LLAMA),
    "qwen3": Family("causal", "qwen3", _DECODER, "model.layers", _LLAMA),
    "gemma2": Family("causal", "gemma2", {**_DECODER, **_SLIDING}, "model.layers", _LLAMA),
    "gemma3": Family("causal", "gemma3_text", {**_DECODER, **_SLIDING}, "model.layers", _LLAMA),
    "phi3": Family(
        "causal",
        "phi3",
        _DECODER,
        "model.layers",
        {
            "qkv": "self_attn.qkv_proj",
            "o": "self_attn.o_proj",
            "gate_up": "mlp.gate_up_proj",
            "down": "mlp.down_proj",
        },
    ),
    "gpt2": Family(
        "causal",
        "gpt2",
        {
            **_TEXT,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 80,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
        "transformer.h",
        {"qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"},
    ),
    "opt": Family(
        "causal",
        "opt",
        {**_SIZE, **_TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0, "init_std": 0.2},
        "model.decoder.layers",
        {
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.out_proj",
            "up": "fc1",
            "down": "fc2",
        },
    ),
    "gpt-neox": Family(
        "causal",
        "gpt_neox",
        {**_SIZE, **_TEXT},
        "gpt_neox.layers",
        {
            "qkv": "attention.query_key_value",
            "o": "attention.dense",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
    ),
}
_QKV_PROJ = {role: place + "_proj" * ("self" in place) for role, place in _BERT.items()}
for name, shared in (("deberta-v2", False), ("deberta-v3", True)):
    config = {**_DEBERTA, "share_att_key": shared, "norm_rel_ebd": "layer_norm" if shared else "none"}
    FAMILIES[name] = Family(
        "text", "deberta-v2", config, "deberta.encoder.layer", _QKV_PROJ, ("pooler", "classifier")
    )


def made(name: str, kind: Kind | None = None, **changes: Any) -> torch.nn.Module:
    """A random model of a family."""
    family = FAMILIES[name]
    config = transformers.AutoConfig.for_model(family.model_type, **{**family.config, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: torch.nn.Module = auto_class(kind or family.kind).from_config(config)
    return model.eval()


@lru_cache(maxsize=2)
def tokenizer(pad: bool) -> Any:
    """Words with the usual special tokens; or (what Qwen's class wants) a BPE without merges, and no padding.

    Its words are of the alphabet's first 30 letters, so that both have the same ids.
    """
    vocabulary = {w: i for i, w in enumerate(SPECIAL + WORDS)}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if not pad:
        core = Tokenizer(models.BPE({**vocabulary, "\u0120": 34}, [], unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **named)
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    named.update(pad_token="<pad>", cls_token="<s>", sep_token="</s>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **named)


def save(name: str, folder: Path) -> Path:
    """The model's folder; decoders come with a tokenizer that has no padding token."""
    family = FAMILIES[name]
    made(name).save_pretrained(folder)
    if family.kind == "image":
        told = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
        (folder / "preprocessor_config.json").write_text(json.dumps(told))
    else:
        tokenizer(family.kind == "text").save_pretrained(folder)
    return folder


def _rows(split: str) -> tuple[np.ndarray, int]:
    return np.random.default_rng(split == "train").integers(0, 30, (24, 6)), 24 if split == "train" else 8


def texts(split: str) -> Examples:
    """Sentences of 3 to 6 words whose first word gives the class."""
    rows, n = _rows(split)
    said = [" ".join(WORDS[i] for i in row[: 3 + k % 4]) for k, row in enumerate(rows[:n])]
    return Examples((said,), (rows[:n, 0] % 3).astype(np.int64))


def questions(split: str) -> Examples:
    rows, n = _rows(split)
    said = [" ".join(WORDS[i] for i in row[: 3 + k % 4]) for k, row in enumerate(rows[:n])]
    answers = [" ".join(WORDS[i] for i in row[: 1 + k % 3]) for k, row in enumerate(rows[:n])]
    return Examples((said, answers), np.zeros(n, np.int64))


def images(split: str) -> Examples:
    rng = np.random.default_rng(split == "train")
    n = 24 if split == "train" else 8
    return Examples((rng.integers(0, 256, (n, 3, 6, 6), dtype=np.uint8),), rng.integers(0, 3, n))


def register_tasks() -> None:
    """Tasks "any-text", "any-image" and "any-causal"."""
    labels, common = ("a", "b", "c"), {"max_length": 32}
    register_task(Task("any-text", "text", labels, ("text",), loader=texts, **common), replace=True)
    register_task(Task("any-image", "image", labels, ("image",), loader=images), replace=True)
    register_task(
        Task(
            "any-causal",
            "causal",
            ("all",),
            ("question", "answer"),
            loader=questions,
            prompt="plain",
            max_new_tokens=3,
            label_column="",
            metric="rouge_l",
            **common,
        ),
        replace=True,
    )


def description(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """A federated run of a family on the task of its kind, on all of its roles."""
    family = FAMILIES[name]
    lora = {"rank": 2, "alpha": 4, "targets": [*family.places], "head": "aggregated"}
    base: dict[str, Any] = {
        "model": {"backbone": str(folder), "lora": lora},
        "data": {"task": f"any-{family.kind}"},
        "split": {"clients": 3},
        "method": {"name": "lora"},
        "local": {"lr": 0.1, "steps": 2, "batch_size": 4},
        "rounds": {"rounds": 2, "eval_every": 0},
    }
    return {**base, **changes}
