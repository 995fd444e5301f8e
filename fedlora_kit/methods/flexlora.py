"""FlexLoRA: the clients' products are averaged, and cut into factors again by an SVD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fedlora_kit.adapter import State, on_host, placed_like
from fedlora_kit.methods.base import ClientUpdate, register, weighted_mean
from fedlora_kit.methods.ranks import RankMethod, by_client, pairs, stacked


@register
class FlexLoRA(RankMethod):
    """FlexLoRA (Bai et al. 2024): W = sum_k w_k B_k A_k, w_k = n_k / sum n; B = U sqrt(S), A = sqrt(S) V^T.

    The root of the singular values is on both factors, and LoRA's scale is touched by neither. The directions
    are in order of their singular values, so a client of rank r_k gets the best approximation of W of that
    rank. The average is exact up to what the full rank r cannot hold; with r = min(in, out) it is exact.

    A direction without weight (a singular value of zero, as after a round of low-rank clients only) would
    have B = A = 0 and never train again: it keeps the global adapter's row of A, with B = 0 as at LoRA's
    start. The product is the same.

    It averages products where FedIT averages factors: with equal resources the two agree wherever FedIT's
    average is exact (one client, or a common A).
    """

    name = "flexlora"
    title = "FlexLoRA"
    source = "FlexLoRA (Bai et al. 2024); Fed-HeLLo (arXiv 2506.12213), baseline"

    keeps_factors = False

    def aggregate(self, global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        result = {**global_state, **weighted_mean(updates)}
        # small factorisations, one a module: a CPU is faster at them, and one copy brings all there and back
        here = [ClientUpdate(u.client, u.num_examples, on_host(u.tensors)) for u in by_client(updates)]
        start = on_host({a: global_state[a] for a, _ in pairs(result)})
        found: State = {}
        for a, b in pairs(result):
            senders = [u for u in here if a in u.tensors and b in u.tensors]
            if senders:
                found[a], found[b] = redistribute(*stacked(senders, a, b), start[a])
        return {**result, **placed_like(found, result)}


def redistribute(
    left: torch.Tensor, right: torch.Tensor, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of rank r whose product is the best approximation of ``left @ right``.

    Args:
        left: (out, R) float64.
        right: (R, in) float64.
        start: (r, in) rows of A for directions without weight; gives rank and type of the result too.

    Returns:
        A (r, in) and B (out, r).
    """
    basis, triangle = torch.linalg.qr(left)  # (out, q), (q, R): the SVD of a small matrix serves
    core = triangle @ right  # (q, in)
    u, s, vt = torch.linalg.svd(core, full_matrices=False)
    kept = int((s > s.max() * max(core.shape) * torch.finfo(s.dtype).eps).sum()) if s.numel() else 0
    kept = min(kept, start.shape[0])
    root = s[:kept].sqrt()
    # the signs of singular vectors are free: each row of V^T gets a positive largest entry
    signs = torch.sign(vt.gather(1, vt.abs().argmax(1, keepdim=True)))[:, 0]
    u, vt = u * signs, vt * signs[:, None]
    a = start.clone()
    b = torch.zeros(left.shape[0], start.shape[0], dtype=start.dtype, device=start.device)
    a[:kept] = (root[:, None] * vt[:kept]).to(start.dtype)
    b[:, :kept] = (basis @ u[:, :kept] * root).to(start.dtype)
    return a, b
