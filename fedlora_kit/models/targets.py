"""Which modules LoRA adapts, per architecture, and which layer a name belongs to.

A target is one of the field's short names (q, k, v, o, up, down, gate); each architecture spells them
in its own way, and transformers 5 renamed ViT's. Modules are resolved to full names, so that no
suffix can match a module that was not meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from fedlora_kit.errors import FedloraError, UnknownName

_BERT = {
    "q": r"attention\.self\.query",
    "k": r"attention\.self\.key",
    "v": r"attention\.self\.value",
    "o": r"attention\.output\.dense",
    "up": r"intermediate\.dense",
    "down": r"output\.dense",
}
_LLAMA = {
    "q": r"self_attn\.q_proj",
    "k": r"self_attn\.k_proj",
    "v": r"self_attn\.v_proj",
    "o": r"self_attn\.o_proj",
    "gate": r"mlp\.gate_proj",
    "up": r"mlp\.up_proj",
    "down": r"mlp\.down_proj",
}
_VIT = {
    "q": r"attention\.q_proj",
    "k": r"attention\.k_proj",
    "v": r"attention\.v_proj",
    "o": r"attention\.o_proj",
    "up": r"mlp\.fc1",
    "down": r"mlp\.fc2",
}
#: transformers' ``config.model_type`` -> short name -> pattern after "layer.<i>." or "layers.<i>."
TARGETS: dict[str, dict[str, str]] = {
    "roberta": _BERT,
    "bert": _BERT,
    "vit": _VIT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
}
_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
#: names of the classification head's modules, by architecture
HEADS: dict[str, str] = {
    "roberta": "classifier",
    "bert": "classifier",
    "vit": "classifier",
    "llama": "score",
    "mistral": "score",
    "qwen2": "score",
}


def layer_index(name: str) -> int | None:
    """Index of the transformer layer in a parameter's or module's name, or ``None``.

    >>> layer_index("roberta.encoder.layer.11.attention.self.query.lora_A.weight")
    11
    >>> layer_index("classifier.dense.weight") is None
    True
    """
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def lora_targets(model: nn.Module, targets: Iterable[str]) -> list[str]:
    """Full names of the modules of ``model`` that the short target names stand for, in model order.

    Raises:
        UnknownName: the architecture is not known, or it has no such target; the message lists what
            there is.
        FedloraError: a target matches no module; the message lists the model's linear modules.
    """
    kind = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    if kind not in TARGETS:
        raise UnknownName("architecture", kind, TARGETS)
    wanted = list(targets)
    known = TARGETS[kind]
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen: set[str] = set()
    for target in wanted:
        if target not in known:
            raise UnknownName(f"LoRA target of {kind}", target, known)
        pattern = re.compile(rf"(?:^|\.)layers?\.\d+\.{known[target]}$")
        matches = [name for name in linear if pattern.search(name)]
        if not matches:
            shapes = sorted({re.sub(r"\.\d+\.", ".<i>.", name) for name in linear})
            raise FedloraError(
                f"LoRA target {target!r} matches no module of this {kind} model",
                f"its linear modules are: {', '.join(shapes) or 'none'}",
            )
        chosen.update(matches)
    if not chosen:
        raise FedloraError("no LoRA targets were named", f"name some of: {', '.join(sorted(known))}")
    return [name for name in linear if name in chosen]


def head_prefix(model: nn.Module) -> str | None:
    """Name of the classification head's module, or ``None`` for a model without one."""
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    name = HEADS.get(kind)
    return name if name and hasattr(model, name) else None
