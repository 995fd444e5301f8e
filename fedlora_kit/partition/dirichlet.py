"""Label skew with one dial: Dirichlet over clients, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition.base import (
    Indices,
    Partitioner,
    concentration,
    cut,
    register,
    round_to_total,
    whole,
)


@register
@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Each class is spread over the clients by its own draw from Dirichlet(alpha); every example once.

    Args:
        num_clients: number of clients.
        alpha: concentration, at most 1e9. 100 is close to IID, 0.1 leaves most clients a class or two.
        min_examples: what the smallest client must hold. A split that misses it is drawn anew.
        max_draws: after so many draws the request counts as impossible.
        seed: seed of the draws.

    Sizes differ between clients as well. A redraw conditions the distribution on the minimum, so a high
    ``min_examples`` at a low ``alpha`` gives less skew than the plain definition.

    Raises:
        BadValue: alpha out of its bounds; more asked for than there is; no draw reached ``min_examples``.

    >>> labels = np.arange(100) % 2
    >>> [np.bincount(labels[part], minlength=2).tolist() for part in Dirichlet(2, 0.3, seed=3).split(labels)]
    [[20, 50], [30, 0]]
    """

    name: ClassVar[str] = "dirichlet"

    alpha: float
    min_examples: int = 1
    max_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("alpha", concentration("alpha", self.alpha))
        self._set("min_examples", whole("min_examples", self.min_examples, least=1))
        self._set("max_draws", whole("max_draws", self.max_draws, least=1))

    def deals_all(self) -> bool:
        return True

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        check_minimum(self.min_examples, self.num_clients, labels.size)
        rng = self._rng()
        classes, there = np.unique(labels, return_counts=True)
        largest = 0
        for _ in range(self.max_draws):
            shares = rng.dirichlet(np.full(self.num_clients, self.alpha), size=there.size)
            counts = np.stack(
                [round_to_total(share, int(n)) for share, n in zip(shares, there, strict=True)]
            )  # (classes, clients)
            smallest = int(counts.sum(axis=0).min())
            if smallest >= self.min_examples:
                break
            largest = max(largest, smallest)
        else:
            raise BadValue(
                f"in {self.max_draws} draws with alpha={self.alpha:g} the smallest of {self.num_clients} "
                f"clients held at most {largest} examples, min_examples={self.min_examples}",
                "raise alpha or max_draws, or lower min_examples or num_clients",
            )
        pieces = [
            cut(rng.permutation(np.flatnonzero(labels == label)), count)
            for label, count in zip(classes, counts, strict=True)
        ]
        return [np.concatenate(part) for part in zip(*pieces, strict=True)]


def check_minimum(min_examples: int, num_clients: int, num_examples: int) -> None:
    """BadValue if not even an equal split gives every client ``min_examples``."""
    if min_examples * num_clients > num_examples:
        raise BadValue(
            f"{num_clients} clients with min_examples={min_examples} need {min_examples * num_clients} "
            f"examples, there are {num_examples}",
            f"give min_examples of at most {num_examples // num_clients}, or fewer clients",
        )
