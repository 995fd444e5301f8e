"""HETLoRA: clients of different rank; truncation on the way down, sparsity-weighted mean on the way up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fedlora_kit.adapter import State
from fedlora_kit.methods.base import ClientUpdate, register, weighted_mean
from fedlora_kit.methods.ranks import RankMethod, by_client, pairs
from fedlora_kit.methods.resources import Resources
from fedlora_kit.partition.base import choice


@register
class HETLoRA(RankMethod):
    """HETLoRA (Cho et al. 2024): a client of rank r_k trains the first r_k directions of the global adapter.

    Updates are padded with zeros to the full rank and averaged with weights in proportion to the norm of
    their products, ||B_k A_k|| (Frobenius, over all adapted modules together): the sparser, the lighter.
    Where there is no product to weigh (all are zero, or only the head came), numbers of examples weigh.

    Ranks are fixed by the resources and global tensors are pruned to them; the self-pruning of ranks during
    local training (a penalty on the last directions) is not here, nor in Fed-HeLLo's comparison.

    Args:
        resources: groups and ranks, see `RankMethod`.
        weighting: "sparsity" as published, or "examples" (with equal ranks, that is FedIT).

    Raises:
        UnknownName: no such weighting.
        BadValue: impossible resources.
    """

    name = "hetlora"
    title = "HETLoRA"
    source = "HETLoRA (Cho et al. 2024); Fed-HeLLo (arXiv 2506.12213), baseline"

    def __init__(
        self, resources: Resources | Mapping[str, Any] | None = None, weighting: str = "sparsity"
    ) -> None:
        super().__init__(resources)
        self.weighting = choice("weighting of method 'hetlora'", weighting, ("sparsity", "examples"))

    def aggregate(self, global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        plain = {**global_state, **weighted_mean(updates)}
        ordered = by_client(updates)
        norms = [_product_norm(u.tensors) for u in ordered]
        total = math.fsum(norms)
        if self.weighting == "examples" or total == 0:
            return plain
        for name in plain:
            if ".lora_" not in name or any(name not in u.tensors for u in ordered):
                continue
            mean = torch.zeros_like(plain[name], dtype=torch.float64)
            for u, norm in zip(ordered, norms, strict=True):
                mean.add_(u.tensors[name].double(), alpha=norm / total)
            plain[name] = mean.to(plain[name].dtype)
        return plain


def _product_norm(tensors: Mapping[str, torch.Tensor]) -> float:
    """Frobenius norm of B A over all modules, without forming it: tr((B^T B)(A A^T))."""
    squared = 0.0
    for a, b in pairs(tensors):
        rows, columns = tensors[a].double(), tensors[b].double()  # (r, in), (out, r)
        squared += float(((columns.T @ columns) * (rows @ rows.T)).sum())
    return math.sqrt(max(0.0, squared))
