"""One task or category a client: the splits of instruction tuning (FedLoRA-Optimizer and its neighbours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition.base import Indices, Partitioner, register, whole


@register
@dataclass(frozen=True)
class ByGroup(Partitioner):
    """Each client holds one group of examples, or a few shards of the list sorted by group.

    Args:
        num_clients: number of clients. Without shards it must be the number of groups.
        shards_per_client: 0 gives one whole group a client. s > 0 sorts the examples by group, cuts the
            list into s·num_clients shards of equal size (within 1) and gives every client s of them, drawn at
            random: a client sees few groups, mostly s or s + 1.
        seed: which client gets which group or shards, and the order of examples within a group.

    The group of each example is the ``groups`` argument of ``split``; without it the labels are the groups.
    Every example is used once.

    Source: one task or category a client as in FedLoRA-Optimizer's neighbours FedDPA and FedKSeed; two
    shards a client as in FedIT. The paper's own split is not known.

    Raises:
        BadValue: the number of clients is not that of the groups; fewer examples than shards.

    >>> groups = ["qa", "summary", "qa", "summary", "open"]
    >>> [part.tolist() for part in ByGroup(3, seed=1).split(np.zeros(5, int), groups=groups)]
    [[0, 2], [1, 3], [4]]
    """

    name: ClassVar[str] = "by_group"

    shards_per_client: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("shards_per_client", whole("shards_per_client", self.shards_per_client, least=0))

    def deals_all(self) -> bool:
        return True

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        names, member = np.unique(labels if groups is None else groups, return_inverse=True)
        return self._shards(member) if self.shards_per_client else self._whole(names, member)

    def _whole(self, names: npt.NDArray[Any], member: npt.NDArray[np.intp]) -> list[Indices]:
        if names.size != self.num_clients:
            raise BadValue(
                f"{names.size} groups for {self.num_clients} clients: one group a client needs equally many",
                f"give num_clients={names.size}, or deal shards with shards_per_client=2",
            )
        return [np.flatnonzero(member == group) for group in self._rng().permutation(names.size)]

    def _shards(self, member: npt.NDArray[np.intp]) -> list[Indices]:
        number = self.num_clients * self.shards_per_client
        if number > member.size:
            raise BadValue(
                f"{number} shards cannot be cut from {member.size} examples",
                "give fewer clients or a smaller shards_per_client",
            )
        rng = self._rng()
        mixed = rng.permutation(member.size)
        shards = np.array_split(mixed[np.argsort(member[mixed], kind="stable")], number)
        dealt = rng.permutation(number).reshape(self.num_clients, self.shards_per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]
