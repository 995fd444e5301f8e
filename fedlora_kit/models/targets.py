"""Which modules LoRA adapts, by the part they play in a transformer layer; which layer; which is the head.

Nothing here is a table of architectures. A layer is an element of the model's list of layers, whatever that
is called; a module's role in it follows from the names that the field uses for such modules. Modules are
resolved to full names, so that no suffix can match a module that was not meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError

_ATTENTION = r"[a-z_]*(?:attn|attention)\."
#: role -> how modules of it are called, after the layer's number. Queries, keys and values, or gate and up,
#: are one module in some models: then they are one role
ROLES: dict[str, str] = {
    "q": r"query|query_proj|q_proj|q_lin|q",
    "k": r"key|key_proj|k_proj|k_lin|k",
    "v": r"value|value_proj|v_proj|v_lin|v",
    "qkv": rf"query_key_value|qkv_proj|qkv|Wqkv|c_attn|{_ATTENTION}(?:self\.)?in_proj",
    "o": rf"o_proj|out_proj|out_lin|{_ATTENTION}(?:output\.dense|dense|c_proj|proj|Wo|o)",
    "gate": r"gate_proj",
    "up": r"up_proj|fc1|lin1|c_fc|intermediate\.dense|dense_h_to_4h",
    "gate_up": r"gate_up_proj|mlp\.Wi",
    "down": r"down_proj|fc2|lin2|(?<!attention\.)output\.dense|dense_4h_to_h|mlp\.(?:c_proj|Wo)",
}
FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}
#: every linear module of the layers
ALL_LINEAR = "all-linear"
_ROLES = {role: re.compile(rf"\.\d+\.(?:.*\.)?(?:{names})$") for role, names in ROLES.items()}
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_IN_STAGES = re.compile(r"\.\d+\.(?:blocks?|layers?)\.\d+\.")


def layer_index(name: str) -> int | None:
    """Index of the transformer layer in a parameter's or module's name: the first number in it.

    ``None`` if there is none, or if the layers come in stages (Swin): those of a stage are counted from 0.

    >>> layer_index("roberta.encoder.layer.11.attention.self.query.lora_A.weight")
    11
    >>> layer_index("transformer.h.3.attn.c_attn")
    3
    >>> layer_index("classifier.dense.weight"), layer_index("swin.encoder.layers.0.blocks.1.mlp.fc1")
    (None, None)
    """
    found = _LAYER.search(name)
    return int(found.group(1)) if found and not _IN_STAGES.search(name) else None


def layer_stack(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """Where the transformer layers are: the list's owner, its attribute there, the list.

    Raises:
        FedloraError: the model has no list of layers, more than one, or one of stages.
    """
    found: list[tuple[str, nn.Module, str, nn.ModuleList]] = []
    for place, owner in model.named_modules():
        for name, child in owner.named_children():
            inside = any(place.startswith(f"{outer}.") for outer, *_ in found)
            if isinstance(child, nn.ModuleList) and not inside and linear_modules(child):
                found.append((f"{place}.{name}".lstrip("."), owner, name, child))
    names = [f"{found[0][0]}.{n}" for n in linear_modules(found[0][3])] if found else []
    if len(found) == 1 and not any(map(_IN_STAGES.search, names)):
        return found[0][1:]
    lists = ", ".join(place for place, *_ in found)
    raise FedloraError(
        f"this model's layers are not one list of equals: it has {lists or 'no list of layers'}"
        + " (in stages)" * (len(found) == 1),
        "methods that allocate or leave out layers need such a list: use another method or model",
    )


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Full name -> module, in model order: linear layers, and GPT-2's Conv1D, the same transposed."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or is_transposed(module)
    }


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is GPT-2's Conv1D: a linear layer that holds W as (in, out)."""
    return type(module).__name__ == "Conv1D"


def matrix(layer: nn.Module) -> torch.Tensor:
    """W of a linear module, (out, in): Conv1D holds it transposed."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight.T if is_transposed(layer) else weight


def lora_targets(model: nn.Module, targets: Iterable[str]) -> list[str]:
    """Full names of the modules of ``model`` that ``targets`` stand for, in model order.

    Args:
        targets: roles (`ROLES`), "all-linear" for every linear module of the layers, or modules by their name
            or the end of it ("q_proj", "mlp.fc1").

    Raises:
        FedloraError: none is named, or one matches no module; the message lists the linear modules by role,
            or names the module that plays several roles at once.
    """
    kept_out = (*head_modules(model), "lm_head", "embed_out")
    linear = [n for n in linear_modules(model) if not n.startswith(tuple(f"{k}." for k in kept_out))]
    linear = [n for n in linear if n not in kept_out]
    roles = {n: role for n in linear for role, name in _ROLES.items() if name.search(n)}
    wanted, chosen = list(targets), set[str]()
    for target in wanted:
        found = {n for n, role in roles.items() if role == target}
        if target == ALL_LINEAR:
            found = {n for n in linear if _LAYER.search(n)}
        elif target not in ROLES:
            found = {n for n in linear if f".{n}".endswith(f".{target}")}
        if not found:
            raise _no_such_module(model, target, wanted, linear, roles)
        chosen |= found
    if not chosen:
        raise FedloraError("no LoRA targets were named", _by_role(linear, roles))
    return [n for n in linear if n in chosen]


def _no_such_module(
    model: nn.Module, target: str, wanted: list[str], linear: list[str], roles: dict[str, str]
) -> FedloraError:
    kind = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    fused = FUSED.get(target)
    if fused in roles.values():
        parts = [role for role, whole in FUSED.items() if whole == fused]
        where = next(_shape(n) for n, role in roles.items() if role == fused)
        instead = dict.fromkeys(FUSED[t] if FUSED.get(t) in roles.values() else t for t in wanted)
        return FedloraError(
            f"LoRA target {target!r}: {kind} computes {', '.join(parts)} in one module, {where}",
            f"adapt that one: targets={','.join(instead)}",
        )
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFTS

    choice = PEFTS.get(kind)
    usual = f" (PEFT's choice for {kind}: {', '.join(choice)})" if isinstance(choice, list) else ""
    return FedloraError(
        f"LoRA target {target!r} matches no module of this {kind} model",
        f"name a role, the end of a module's name{usual}, or {ALL_LINEAR}. {_by_role(linear, roles)}",
    )


def _by_role(linear: Iterable[str], roles: dict[str, str]) -> str:
    """The linear modules of a model, each kind of name once."""
    found: dict[str, dict[str, None]] = {}
    for name in linear:
        found.setdefault(roles.get(name, "no role"), {})[_shape(name)] = None
    listed = "; ".join(f"{role}: {', '.join(names)}" for role, names in found.items())
    return f"Its linear modules: {listed or 'none'}"


def _shape(name: str) -> str:
    return re.sub(r"\.\d+\.", ".<i>.", name)


def head_modules(model: nn.Module) -> list[str]:
    """Names of the modules that make up the classification head: all that the backbone itself has not.

    Empty for a language model, whose own head is part of it.
    """
    bare: Any = model
    backbone = getattr(bare, "base_model_prefix", "")
    if not backbone or not hasattr(bare, backbone) or bare.get_output_embeddings() is not None:
        return []
    parts = {name: child for name, child in bare.named_children() if name != backbone}
    return [name for name, child in parts.items() if any(True for _ in child.parameters())]
