"""HETLoRA: clients of different rank; truncation on the way down, sparsity-weighted mean on the way up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fedlora_kit.adapter import State
from fedlora_kit.errors import BadValue
from fedlora_kit.methods.base import ClientUpdate, Context, register, weighted_mean
from fedlora_kit.methods.ranks import RankMethod, by_client, pairs
from fedlora_kit.methods.resources import Resources
from fedlora_kit.partition.base import choice


@register
class HETLoRA(RankMethod):
    """HETLoRA (Cho et al. 2024): a client of rank r_k trains the first r_k directions of the global adapter.

    Updates are padded with zeros to the full rank and averaged with weights in proportion to the norm of
    their products, ||B_k A_k|| (Frobenius, over all adapted modules together): the sparser, the lighter.
    Where there is no product to weigh (all are zero, or only the head came), numbers of examples weigh.

    Self-pruning (``keep`` below 1): the last directions of a client are those from keep · r_k on. Local steps
    add ``penalty`` times the sum over modules of ||B[:, last]|| ||A[last, :]|| to the loss; where that sum is
    smaller after a local training than before it, the client's rank falls to keep · r_k for good, beginning
    with what it sends. The ranks start as the resources give them. It is off by default: Fed-HeLLo's
    comparison has fixed ranks. One rank a client for all modules is our reading; not under DP, whose steps
    know no penalty.

    Args:
        resources: groups and ranks, see `RankMethod`.
        weighting: "sparsity" as published, or "examples" (with equal ranks, that is FedIT).
        keep: fraction of a client's rank that pruning leaves (at least one direction), in (0, 1]; 1: none.
        penalty: weight of the penalty, 0 or more; only with ``keep`` below 1.

    Raises:
        UnknownName: no such weighting.
        BadValue: impossible resources, fraction or weight.
    """

    name = "hetlora"
    title = "HETLoRA"
    source = "HETLoRA (Cho et al. 2024); Fed-HeLLo (arXiv 2506.12213), baseline"

    def __init__(
        self,
        resources: Resources | Mapping[str, Any] | None = None,
        weighting: str = "sparsity",
        keep: float = 1.0,
        penalty: float = 0.0,
    ) -> None:
        super().__init__(resources)
        self.weighting = choice("weighting of method 'hetlora'", weighting, ("sparsity", "examples"))
        if not 0 < keep <= 1 or not 0 <= penalty < math.inf or (penalty and keep == 1):
            raise BadValue(
                f"method 'hetlora' cannot prune with keep={keep}, penalty={penalty}",
                "give keep in (0, 1] and penalty 0 or more; a penalty needs keep below 1",
            )
        self.keep, self.penalty_weight = keep, penalty
        self.penalises = penalty > 0
        self.not_private = "its steps add a penalty" if penalty > 0 else ""
        self._pruned: dict[int, int] = {}

    def bind(self, context: Context) -> None:
        super().bind(context)
        self._pruned = {}

    def rank(self, client: int) -> int | None:
        return self._pruned.get(client, super().rank(client))

    def penalty(self, tensors: Mapping[str, torch.Tensor], client: int) -> torch.Tensor | None:
        return self.penalty_weight * self._last_directions(tensors, client) if self.penalises else None

    def after_training(self, client: int, received: State, trained: Mapping[str, torch.Tensor]) -> None:
        if self.keep < 1 and self._last_directions(trained, client) < self._last_directions(received, client):
            self._pruned[client] = self._kept(client)

    def memory(self) -> dict[str, Any] | None:
        return (
            {"ranks": {str(k): rank for k, rank in sorted(self._pruned.items())}} if self.keep < 1 else None
        )

    def remember(self, memory: Mapping[str, Any]) -> None:
        self._pruned = {int(k): int(rank) for k, rank in memory["ranks"].items()}

    def _kept(self, client: int) -> int:
        rank = self.rank(client)
        return max(1, math.floor(self.keep * (self.context.rank if rank is None else rank) + 1e-9))

    def _last_directions(self, tensors: Mapping[str, torch.Tensor], client: int) -> torch.Tensor:
        """Sum over modules of ||B[:, last]|| ||A[last, :]||, Frobenius; what lies beyond the rank is zero."""
        kept = self._kept(client)
        norms = [tensors[b][:, kept:].norm() * tensors[a][kept:].norm() for a, b in pairs(tensors)]
        return torch.stack(norms).sum()

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
    traces = []
    for a, b in pairs(tensors):
        rows, columns = tensors[a].double(), tensors[b].double()  # (r, in), (out, r)
        traces.append(((columns.T @ columns) * (rows @ rows.T)).sum())
    return math.sqrt(max(0.0, sum(torch.stack(traces).tolist()))) if traces else 0.0
