"""A dense update beside LoRA: what a method has merged into the base weights (FLoRA), kept apart from them.

The base weights themselves are never written, so that one backbone serves every run: a module computes
W0 x + (alpha / r) (M + B A) x, where M, of shape (out, in), travels with the adapter as the tensor
``<module>.lora_residual.weight`` and never trains. LoRA's scale stands on M as on B A, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

RESIDUAL = ".lora_residual"


class Residual(nn.Module):
    """M of one module, zero at the start.

    Attributes:
        weight: (out, in), frozen.
        scaling: alpha / r.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        start = layer.lora_A["default"].weight
        shape = (layer.out_features, layer.in_features)
        zeros = torch.zeros(shape, dtype=start.dtype, device=start.device)
        self.weight = nn.Parameter(zeros, requires_grad=False)
        self.scaling = float(layer.scaling["default"])

    def add_to(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """A forward hook of the base layer: its output, and (alpha / r) M x."""
        x = inputs[0].to(self.weight.dtype)  # (..., in)
        return output + (self.scaling * nn.functional.linear(x, self.weight)).to(output.dtype)


def add_residuals(model: nn.Module) -> None:
    """Give every adapted module of a PEFT model a `Residual`; modules that have one keep it."""
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
    for layer in layers:
        if not hasattr(layer, "lora_residual"):
            made = Residual(layer)
            layer.add_module("lora_residual", made)
            layer.base_layer.register_forward_hook(made.add_to)


def factorised(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int | None]:
    """An adapter with residuals as one without: A and B of a higher rank, whose product is M + B A.

    Returns:
        The tensors, and their rank: the smallest that holds every module's M + B A to float precision. An
        adapter without residuals comes back as it is, with None.
    """
    merged = {n.removesuffix(f"{RESIDUAL}.weight"): t for n, t in state.items() if RESIDUAL in n}
    if not merged:
        return dict(state), None
    plain = {n: t for n, t in state.items() if RESIDUAL not in n}
    parts = {}
    for module, dense in merged.items():
        b, a = plain[f"{module}.lora_B.weight"].double(), plain[f"{module}.lora_A.weight"].double()
        u, s, vt = torch.linalg.svd(dense.double() + b @ a, full_matrices=False)
        kept = int((s > s.max() * max(dense.shape) * torch.finfo(dense.dtype).eps).sum())
        parts[module] = (u * s.sqrt(), s.sqrt()[:, None] * vt, kept)
    rank = max(1, *(kept for *_, kept in parts.values()))
    for module, (left, right, _) in parts.items():
        spare = max(0, rank - right.shape[0])  # a smaller module's factors are filled up with zeros
        kind = merged[module].dtype
        plain[f"{module}.lora_A.weight"] = nn.functional.pad(right[:rank], (0, 0, 0, spare)).to(kind)
        plain[f"{module}.lora_B.weight"] = nn.functional.pad(left[:, :rank], (0, spare)).to(kind)
    return plain, rank
