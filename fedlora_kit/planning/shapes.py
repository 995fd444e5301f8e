"""The shape of a backbone, without its weights: what counting parameters, operations and bytes needs.

Read from ``config.json`` where the backbone lies on this machine; else from the table below, so that a plan
needs no network and no download.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from fedlora_kit.errors import FedloraError
from fedlora_kit.models.backbones import Dtype, Kind, backbone, backbone_folder

Family = Literal["bert", "roberta", "vit", "llama"]


@dataclass(frozen=True)
class Shape:
    """A transformer's dimensions.

    Attributes:
        family: transformers' ``model_type``.
        layers, width, heads, inner: transformer layers, hidden size, attention heads, width of the MLP.
        key_value_heads: heads of keys and values; ``heads`` but for grouped attention.
        vocabulary: token embeddings; 0 for images.
        positions: learned positions of a text model; 0 where there are none.
        image, patch, channels: of an image model: side and patch side in pixels, and colour channels.
        tied: a causal model's output matrix is its embedding matrix.
        dropout: the largest rate in training.
    """

    family: Family
    layers: int
    width: int
    heads: int
    inner: int
    key_value_heads: int = 0
    vocabulary: int = 0
    positions: int = 0
    image: int = 0
    patch: int = 0
    channels: int = 3
    tied: bool = False
    dropout: float = 0.0

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate: three matrices, not two."""
        return self.family == "llama"

    @property
    def kv_width(self) -> int:
        """Output width of keys and of values."""
        return self.width * (self.key_value_heads or self.heads) // self.heads

    @property
    def image_tokens(self) -> int:
        """Tokens of one image, the class token included; 0 for texts."""
        return (self.image // self.patch) ** 2 + 1 if self.patch else 0

    def matrix(self, target: str) -> tuple[int, int]:
        """(in, out) of an adapted module by its short name (see `models.targets`)."""
        inner = (self.width, self.inner)
        return {
            "q": (self.width, self.width),
            "k": (self.width, self.kv_width),
            "v": (self.width, self.kv_width),
            "o": (self.width, self.width),
            "gate": inner,
            "up": inner,
            "down": inner[::-1],
        }[target]

    @property
    def matrices(self) -> tuple[str, ...]:
        """Short names of a layer's matrices."""
        return ("q", "k", "v", "o", *(("gate",) if self.gated else ()), "up", "down")

    @property
    def layer_weights(self) -> int:
        """Entries of one layer's matrices."""
        return sum(a * b for a, b in map(self.matrix, self.matrices))


#: rates of a configuration at which a model in training drops values
_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout")

#: published dimensions, for machines that hold neither weights nor config.json. Sources: RoBERTa (Liu et al.
#: 2019, table 9; vocabulary: section 4.4), BERT (Devlin et al. 2019, section 3), ViT-B/16 (Dosovitskiy et al.
#: 2021, table 1), LLaMA (Touvron et al. 2023, table 2), Llama 2 (its own, same sizes), TinyLlama (Zhang et
#: al. 2024, table 2), DeepSeek LLM (Bi et al. 2024, table 2); MLP widths and vocabularies as the models'
#: cards and configurations on the Hub have them.
PUBLISHED: dict[str, Shape] = {
    "FacebookAI/roberta-base": Shape(
        "roberta", 12, 768, 12, 3072, vocabulary=50265, positions=514, dropout=0.1
    ),
    "FacebookAI/roberta-large": Shape(
        "roberta", 24, 1024, 16, 4096, vocabulary=50265, positions=514, dropout=0.1
    ),
    "google-bert/bert-base-uncased": Shape(
        "bert", 12, 768, 12, 3072, vocabulary=30522, positions=512, dropout=0.1
    ),
    "google/vit-base-patch16-224-in21k": Shape("vit", 12, 768, 12, 3072, image=224, patch=16),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": Shape("llama", 22, 2048, 32, 5632, 4, 32000),
    "huggyllama/llama-7b": Shape("llama", 32, 4096, 32, 11008, vocabulary=32000),
    "meta-llama/Llama-2-7b-hf": Shape("llama", 32, 4096, 32, 11008, vocabulary=32000),
    "deepseek-ai/deepseek-llm-7b-base": Shape("llama", 30, 4096, 32, 11008, vocabulary=102400),
    # not built yet on this machine: the defaults of `training.pretrain_*`
    "kit/text-mirror": Shape("roberta", 2, 128, 4, 256, vocabulary=6000, positions=66),
    "kit/image-mirror": Shape("vit", 4, 96, 4, 192, image=32, patch=4),
    "kit/causal-mirror": Shape("llama", 3, 96, 4, 256, 4, 1500, tied=True),
    "kit/instruct-mirror": Shape("llama", 4, 128, 4, 352, 4, 2000, tied=True),
}


def shape_of(name: str) -> Shape:
    """The shape of a known backbone.

    Raises:
        UnknownName: no such backbone.
        FedloraError: neither its configuration nor the table tells its shape.
    """
    backbone(name)
    try:
        folder = backbone_folder(name)
    except FedloraError:
        folder = None
    if folder is not None and (folder / "config.json").is_file():
        return from_config(json.loads((folder / "config.json").read_text("utf-8")))
    if name in PUBLISHED:
        return PUBLISHED[name]
    raise FedloraError(
        f"the shape of {name} is not known here",
        f"put models/{name}/config.json into the mirror that FEDLORA_HUB names",
    )


def from_config(config: dict[str, Any]) -> Shape:
    """The shape that a transformers configuration describes.

    Raises:
        FedloraError: an architecture that cannot be counted.
    """
    family = {"mistral": "llama", "qwen2": "llama"}.get(config["model_type"], config["model_type"])
    if family not in ("bert", "roberta", "vit", "llama"):
        raise FedloraError(
            f"operations of the architecture {family!r} are not counted", "use BERT, RoBERTa, ViT or Llama"
        )
    shape = Shape(
        family,
        config["num_hidden_layers"],
        config["hidden_size"],
        config["num_attention_heads"],
        config["intermediate_size"],
        dropout=max((rate for name, rate in config.items() if name in _RATES and rate), default=0.0),
    )
    if family == "vit":
        pixels = {"image": config["image_size"], "patch": config["patch_size"]}
        return dataclasses.replace(shape, **pixels, channels=config["num_channels"])
    shape = dataclasses.replace(shape, vocabulary=config["vocab_size"])
    if family == "llama":
        heads, tied = config.get("num_key_value_heads") or 0, bool(config.get("tie_word_embeddings"))
        return dataclasses.replace(shape, key_value_heads=heads, tied=tied)
    return dataclasses.replace(shape, positions=config["max_position_embeddings"])


def weights_bytes(shape: Shape, num_labels: int, dtype: Dtype = "fp32", four_bit: bool = False) -> int:
    """Bytes of a backbone's weights in memory, head included."""
    total = sum(p.numel() for p in empty_model(shape, num_labels).parameters())
    if four_bit:  # NF4: half a byte a weight of the layers; embeddings and output stay in 16 bits
        inside = shape.layers * shape.layer_weights
        return inside // 2 + 2 * (total - inside)
    return total * (2 if dtype == "bf16" else 4)


@lru_cache(maxsize=32)
def empty_model(shape: Shape, num_labels: int) -> nn.Module:
    """The model on PyTorch's meta device, without weights. Do not change it: it is kept."""
    return random_model(shape, num_labels, "meta")


def random_model(shape: Shape, num_labels: int, device: str = "cpu") -> nn.Module:
    """A model of this shape with random weights (on "meta": with none), for the caller to change."""
    import transformers

    common: dict[str, Any] = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
    }
    if shape.family == "vit":
        pixels = {"image_size": shape.image, "patch_size": shape.patch, "num_channels": shape.channels}
        config = transformers.ViTConfig(**common, **pixels, num_labels=num_labels)
        make = transformers.ViTForImageClassification
    elif shape.family == "llama":
        heads = shape.key_value_heads or shape.heads
        extra = {"num_key_value_heads": heads, "tie_word_embeddings": shape.tied}
        config = transformers.LlamaConfig(**common, **extra, vocab_size=shape.vocabulary)
        make = transformers.LlamaForCausalLM
    else:
        extra = {"vocab_size": shape.vocabulary, "max_position_embeddings": shape.positions}
        config = getattr(transformers, "RobertaConfig" if shape.family == "roberta" else "BertConfig")(
            **common, **extra, num_labels=num_labels, type_vocab_size=1 if shape.family == "roberta" else 2
        )
        make = (
            transformers.RobertaForSequenceClassification
            if shape.family == "roberta"
            else transformers.BertForSequenceClassification
        )
    with torch.device(device):
        model: nn.Module = make(config)
    return model


def kind_of(name: str) -> Kind:
    """The modality of a backbone: "text", "image" or "causal"."""
    return backbone(name).kind
