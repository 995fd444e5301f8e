"""How far averaging A and B apart lands from averaging their product (FFA-LoRA, discordance 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedlora_kit.adapter import State
from fedlora_kit.errors import FedloraError
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.models.residual import RESIDUAL


def aggregation_gap(before: State, after: State, updates: Sequence[ClientUpdate]) -> float:
    """Relative error of a round's aggregation: ||B A - sum_k w_k B_k A_k|| / ||sum_k w_k B_k A_k||.

    Frobenius norms over all adapted modules together; w_k = n_k / sum n. The products are never formed: with
    the factors stacked, the norm of (out, r K) (r K, in) is that of the two small triangles of their QR
    decompositions, in float64.

    Args:
        before: global adapter that the clients started from; stands in for what a client does not send.
        after: global adapter after aggregation.
        updates: what the clients sent.

    Returns:
        The relative error, 0 or more; 0 if no client moved away from B = 0.

    Raises:
        FedloraError: the adapter has no LoRA pair.

    >>> a = {"m.lora_A.weight": torch.ones(1, 2), "m.lora_B.weight": torch.zeros(3, 1)}
    >>> ones, zeros = torch.ones(3, 1), torch.zeros(3, 1)
    >>> one = ClientUpdate(0, 1, {"m.lora_A.weight": torch.tensor([[2.0, 0.0]]), "m.lora_B.weight": ones})
    >>> two = ClientUpdate(1, 1, {"m.lora_A.weight": torch.tensor([[0.0, 2.0]]), "m.lora_B.weight": -ones})
    >>> mean = {"m.lora_A.weight": torch.ones(1, 2), "m.lora_B.weight": zeros}
    >>> aggregation_gap(a, mean, [one, two])  # the mean of B is 0, that of B A is not
    1.0
    """
    names = [name for name in after if ".lora_B" in name]
    if not names:
        raise FedloraError("the adapter has no pair of A and B", "measure the gap of LoRA adapters only")
    total = sum(u.num_examples for u in updates)
    wrong, whole = 0.0, 0.0
    for name in names:
        partner = name.replace(".lora_B", ".lora_A")
        left, right = [], []
        for u in updates:
            sent = {**{k: before[k] for k in (name, partner)}, **u.tensors}
            left.append(sent[name].double() * (u.num_examples / total))  # (out, r)
            right.append(sent[partner].double())  # (r, in)
        whole += _norm(left, right) ** 2
        left, right = [*left, -after[name].double()], [*right, after[partner].double()]
        merged = name.replace(".lora_B", RESIDUAL)
        if merged in after:  # what the round merged into the base counts as its product
            moved = before[merged].double() - after[merged].double()  # (out, in)
            left, right = [*left, moved], [*right, torch.eye(moved.shape[1], dtype=torch.float64).to(moved)]
        wrong += _norm(left, right) ** 2
    return float((wrong / whole) ** 0.5) if whole > 0 else 0.0


def _norm(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """Frobenius norm of the sum of the products, pair by pair."""
    columns, rows = torch.cat(left, 1), torch.cat(right, 0)  # (out, R), (R, in)
    if columns.shape[1] >= min(columns.shape[0], rows.shape[1]):
        return float((columns @ rows).norm())
    return float((torch.linalg.qr(columns).R @ torch.linalg.qr(rows.T).R.T).norm())
