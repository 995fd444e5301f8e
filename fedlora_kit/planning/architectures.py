"""What a backbone is without its weights: its transformers configuration.

Read from ``config.json`` where the backbone lies on this machine; else from the table below, so that a plan
needs no network and no download.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError
from fedlora_kit.models.backbones import Dtype
from fedlora_kit.models.image_input import image_side
from fedlora_kit.models.kinds import Kind, auto_class, check_kind, default_kind
from fedlora_kit.models.names import backbone, backbone_folder
from fedlora_kit.models.targets import layer_index

#: token ids that have to be in the vocabulary
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
#: DINOv2's names of its layers, which follow from their number
_STAGES = ("stage_names", "out_features", "out_indices")


@dataclass(frozen=True)
class Architecture:
    """A transformers configuration, and what the model is for.

    Attributes:
        kind: "text", "image" or "causal".
        text: the configuration's fields as JSON, so that equal ones are one key of a cache.
    """

    kind: Kind
    text: str

    @cached_property
    def config(self) -> Any:
        """The configuration. Do not change it: see `changed`."""
        import transformers

        return transformers.AutoConfig.for_model(**json.loads(self.text))

    def changed(self, **fields: Any) -> Architecture:
        """The same with other values, under transformers' common names (``num_hidden_layers`` and so on)."""
        import transformers

        config = transformers.AutoConfig.for_model(**json.loads(self.text))
        for name, value in fields.items():
            setattr(config, name, value)
        kinds = getattr(config, "layer_types", None)  # one a layer; they differ in a mask, not in products
        if kinds:
            config.layer_types = [kinds[i % len(kinds)] for i in range(config.num_hidden_layers)]
        vocabulary: Any = getattr(config, "vocab_size", None)
        for name in _SPECIAL if vocabulary is not None else ():
            value = getattr(config, name, None)
            if isinstance(value, int) and value >= vocabulary:
                setattr(config, name, 0)
        return of_config(config, self.kind)

    @property
    def layers(self) -> int:
        """Transformer layers."""
        return int(self.config.num_hidden_layers)


def of_config(config: Any, kind: Kind) -> Architecture:
    """An architecture by a transformers configuration."""
    fields = {name: value for name, value in config.to_dict().items() if name not in _STAGES}
    return Architecture(kind, json.dumps(fields, sort_keys=True, default=str))


def _published(
    model_type: str, layers: int, width: int, heads: int, inner: int, **others: Any
) -> dict[str, Any]:
    common = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }
    return {"model_type": model_type, **common, **others}


_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
#: published dimensions, for machines that hold neither weights nor config.json; what is not named is
#: transformers' default. Sources: RoBERTa (Liu et al.
#: 2019, table 9; vocabulary: section 4.4), BERT (Devlin et al. 2019, section 3), ViT-B/16 (Dosovitskiy et al.
#: 2021, table 1), LLaMA (Touvron et al. 2023, table 2), Llama 2 (its own, same sizes), TinyLlama (Zhang et
#: al. 2024, table 2), DeepSeek LLM (Bi et al. 2024, table 2); MLP widths and vocabularies as the models'
#: cards and configurations on the Hub have them.
PUBLISHED: dict[str, dict[str, Any]] = {
    "FacebookAI/roberta-base": _published("roberta", 12, 768, 12, 3072, **_ROBERTA),
    "FacebookAI/roberta-large": _published("roberta", 24, 1024, 16, 4096, **_ROBERTA),
    "google-bert/bert-base-uncased": _published("bert", 12, 768, 12, 3072, vocab_size=30522),
    "google/vit-base-patch16-224-in21k": _published("vit", 12, 768, 12, 3072),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _published(
        "llama", 22, 2048, 32, 5632, num_key_value_heads=4, vocab_size=32000
    ),
    "huggyllama/llama-7b": _published("llama", 32, 4096, 32, 11008, vocab_size=32000),
    "meta-llama/Llama-2-7b-hf": _published("llama", 32, 4096, 32, 11008, vocab_size=32000),
    "deepseek-ai/deepseek-llm-7b-base": _published("llama", 30, 4096, 32, 11008, vocab_size=102400),
}


def published(name: str, kind: Kind | None = None) -> Architecture:
    """The table's architecture called ``name``."""
    import transformers

    config = transformers.AutoConfig.for_model(**PUBLISHED[name])
    return of_config(config, kind or default_kind(config))


def architecture(name: str, kind: Kind | None = None, image_size: int | None = None) -> Architecture:
    """The architecture of a backbone.

    Args:
        kind: what it is used for; None for what it is made for.
        image_size: side of the images that it is given; None for its own.

    Raises:
        UnknownName, BadValue: no such backbone; it cannot be used so.
        FedloraError: neither its configuration nor the table tells it; or transformers cannot read it.
    """
    if image_size is not None:
        return architecture(name, kind).changed(image_size=image_size)
    backbone(name)  # no such name: said here
    try:
        folder = backbone_folder(name)
    except FedloraError:
        folder = None
    file = None if folder is None else folder / "config.json"
    if file is not None and file.is_file():
        read = _read(name, str(file), file.stat().st_mtime_ns, kind)
        side = image_side(name) if read.kind == "image" else None
        own = getattr(read.config, "image_size", None)
        return read if side in (None, own) else read.changed(image_size=side)
    if name in PUBLISHED:
        return published(name, kind)
    raise FedloraError(
        f"the shape of {name} is not known here",
        f"put models/{name}/config.json into the mirror that FEDLORA_HUB names",
    )


@lru_cache(maxsize=64)
def _read(name: str, file: str, _changed: int, kind: Kind | None) -> Architecture:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(file, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise FedloraError(
            f"transformers {transformers.__version__} cannot read {file}: {first}",
            "fetch the file again, or use a model that this release of transformers has",
        ) from error
    config._name_or_path = ""  # equal shapes are one, wherever they lie
    kind = kind or default_kind(config)
    check_kind(name, config, kind)
    if not isinstance(getattr(config, "num_attention_heads", None), int):
        raise FedloraError(
            f"the cost of {name} cannot be told: the layers of a {config.model_type} are not alike",
            "train one run, and take its time (fedlora show)",
        )
    return of_config(config, kind)


def weights_bytes(shape: Architecture, num_labels: int, dtype: Dtype = "fp32", four_bit: bool = False) -> int:
    """Bytes of a backbone's weights in memory, head included."""
    model = empty_model(shape, num_labels)
    total = sum(p.numel() for p in model.parameters())
    if four_bit:  # NF4: half a byte a weight of the layers; embeddings and output stay in 16 bits
        inside = sum(
            p.numel() for n, p in model.named_parameters() if layer_index(n) is not None and p.ndim > 1
        )
        return inside // 2 + 2 * (total - inside)
    return total * (2 if dtype == "bf16" else 4)


@lru_cache(maxsize=32)
def empty_model(shape: Architecture, num_labels: int) -> nn.Module:
    """The model on PyTorch's meta device, without weights. Do not change it: it is kept."""
    return random_model(shape, num_labels, "meta")


def random_model(shape: Architecture, num_labels: int, device: str = "cpu") -> nn.Module:
    """A model with random weights (on "meta": with none), for the caller to change.

    Args:
        num_labels: of a classifier's head; a causal model has none.
    """
    head = {} if shape.kind == "causal" else {"num_labels": num_labels, "use_cache": False}
    config = shape.changed(**head).config
    with torch.device(device):
        model: nn.Module = auto_class(shape.kind).from_config(config, dtype=torch.float32)
    return model


@lru_cache(maxsize=64)
def image_tokens(shape: Architecture) -> int:
    """Tokens of one image, the class token included; 0 for texts."""
    if shape.kind != "image":
        return 0
    states = random_model(shape.changed(num_hidden_layers=1), 2, "meta")(
        pixel_values=empty_image(shape), output_hidden_states=True
    ).hidden_states
    return int(states[0].shape[1])


def empty_image(shape: Architecture, rows: int = 1, device: torch.device | str = "meta") -> torch.Tensor:
    """Images of the architecture's size, all zero, (rows, channels, side, side)."""
    side = shape.config.image_size
    return torch.zeros(rows, shape.config.num_channels, side, side, device=device)
