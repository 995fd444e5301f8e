"""Adapters of a lower rank in tensors of the full shape: what lies beyond the rank is exactly zero.

A's rows and B's columns are the directions; LoRA's scale alpha / r stays that of the full rank for everybody,
so that B A of any client means the same, and no aggregation has to touch the scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fedlora_kit.adapter import State
from fedlora_kit.methods.base import ClientUpdate, Method
from fedlora_kit.methods.resources import Resources


class RankMethod(Method):
    """A method whose clients train adapters of different rank, all layers.

    Args:
        resources: groups and the fraction of the rank that each can train, as `Resources` or its fields.

    Raises:
        BadValue: impossible resources, or unequal layers.
    """

    def __init__(self, resources: Resources | Mapping[str, object] | None = None) -> None:
        self.resources = Resources.of(resources).only("ranks", self.name)

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return True

    def rank(self, client: int) -> int | None:
        if self.resources.equal:
            return None
        group = self.resources.group(client, self.context.num_clients)
        return self.resources.rank(group, self.context.rank)


@torch.no_grad()
def zero_beyond(tensors: Mapping[str, torch.Tensor], rank: int) -> None:
    """Set to zero, in place, A's rows and B's columns from ``rank`` on."""
    beyond = [t[rank:] for name, t in tensors.items() if ".lora_A" in name]  # of (r, in)
    beyond += [t[:, rank:] for name, t in tensors.items() if ".lora_B" in name]  # of (out, r)
    if beyond:
        torch._foreach_zero_(beyond)


def truncated(state: Mapping[str, torch.Tensor], rank: int | None) -> State:
    """A copy of an adapter in which everything beyond ``rank`` is zero (None: nothing is)."""
    if rank is None:
        return dict(state)
    copy = {name: t.clone() for name, t in state.items()}
    zero_beyond(copy, rank)
    return copy


def without_padding(state: Mapping[str, torch.Tensor], rank: int | None) -> State:
    """Only the directions below ``rank``: what really travels.

    >>> without_padding({"m.lora_A.weight": torch.zeros(4, 9)}, 1)["m.lora_A.weight"].shape
    torch.Size([1, 9])
    """
    if rank is None:
        return dict(state)
    return {
        name: t[:rank] if ".lora_A" in name else t[:, :rank] if ".lora_B" in name else t
        for name, t in state.items()
    }


def pairs(tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Names of (A, B) of each adapted module whose two tensors are both there."""
    found = [(name, name.replace(".lora_A", ".lora_B")) for name in tensors if ".lora_A" in name]
    return [(a, b) for a, b in found if b in tensors]


def by_client(updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
    """Updates by client id, so that the order in which they arrive changes nothing."""
    return sorted(updates, key=lambda u: u.client)


def stacked(senders: Sequence[ClientUpdate], a: str, b: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The stack of one module: (out, R) and (R, in) in float64, R the sum of the ranks, weights on the left.

    >>> one = ClientUpdate(0, 1, {"A": torch.ones(1, 2), "B": torch.ones(3, 1)})
    >>> two = ClientUpdate(1, 3, {"A": torch.zeros(2, 2), "B": torch.ones(3, 2)})
    >>> left, right = stacked([one, two], "A", "B")
    >>> left[0].tolist(), tuple(right.shape)
    ([0.25, 0.75, 0.75], (3, 2))
    """
    total = sum(u.num_examples for u in senders)
    left = [u.tensors[b].double() * (u.num_examples / total) for u in senders]
    return torch.cat(left, 1), torch.cat([u.tensors[a].double() for u in senders], 0)
