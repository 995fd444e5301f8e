"""Every client draws from the same distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.partition.base import Indices, Partitioner, register


@register
@dataclass(frozen=True)
class IID(Partitioner):
    """Examples dealt at random in equal parts: every example once, sizes differ by at most 1.

    Labels play no part, so the label shares of a client vary as in random samples. The first clients take
    the examples that do not divide evenly.

    >>> [part.tolist() for part in IID(3, seed=1).split([0, 1, 0, 1, 0, 1, 0])]
    [[2, 3, 6], [0, 5], [1, 4]]
    """

    name: ClassVar[str] = "iid"

    def deals_all(self) -> bool:
        return True

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        return np.array_split(self._rng().permutation(labels.size), self.num_clients)
