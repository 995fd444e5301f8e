"""FLoRA: the clients' adapters are stacked, so that their products add up exactly, and merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fedlora_kit.adapter import State
from fedlora_kit.methods.base import ClientUpdate, register, weighted_mean
from fedlora_kit.methods.ranks import RankMethod, by_client, pairs, stacked
from fedlora_kit.models.residual import RESIDUAL


@register
class FLoRA(RankMethod):
    """FLoRA (Wang et al. 2024): B = [w_1 B_1, ..., w_K B_K], A = [A_1; ...; A_K], so B A = sum_k w_k B_k A_k.

    w_k = n_k / sum n. The stack has the sum of the clients' ranks, which may differ; nothing is averaged
    factor by factor, and nothing is cut off. Each round it is merged into the base weights, and fresh
    adapters start on top: B = 0 and the run's first A (the published method draws a new one).

    The base is shared by all runs and is never written: what was merged is kept beside it, as a tensor of its
    own (`models.residual`). Only the product has a meaning; with equal resources it differs from FedIT's,
    which averages factors, except where that is exact (one client, or a common A).

    A client sends its own factors, and gets the whole stack of the last round: the traffic down grows with
    the number of clients (`received_rank`; at worst the dense update, which is then smaller).
    """

    name = "flora"
    title = "FLoRA"
    source = "FLoRA (Wang et al. 2024)"

    keeps_factors = False
    merges = True

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return RESIDUAL not in tensor

    def received_rank(self, client: int, cohort: Sequence[int]) -> int:
        ranks = [self.rank(k) for k in cohort]
        return sum(self.context.rank if rank is None else rank for rank in ranks)

    def aggregate(self, global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        result = {**global_state, **weighted_mean(updates)}
        for a, b in pairs(global_state):
            senders = [u for u in by_client(updates) if a in u.tensors and b in u.tensors]
            if not senders:
                continue
            left, right = stacked(senders, a, b)
            merged = a.replace(".lora_A", RESIDUAL)
            start = global_state[merged]
            result[merged] = (start.double() + left @ right).to(start.dtype)
            result[a], result[b] = global_state[a].clone(), torch.zeros_like(global_state[b])
        return result
