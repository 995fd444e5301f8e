"""Clients of unequal size whose labels are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.partition.base import (
    Indices,
    Partitioner,
    choice,
    concentration,
    cut,
    positive,
    register,
    round_to_total,
    whole,
)
from fedlora_kit.partition.dirichlet import check_minimum


@register
@dataclass(frozen=True)
class QuantitySkew(Partitioner):
    """Sizes follow a law, labels are IID; every example once.

    Args:
        num_clients: number of clients.
        law: ``"dirichlet"``: sizes in proportion to one draw from Dirichlet(alpha);
            ``"power"``: in proportion to (client + 1)^−exponent, so client 0 is the largest.
        alpha: concentration of the Dirichlet law, at most 1e9; smaller is more unequal.
        exponent: of the power law; larger is more unequal.
        min_examples: what every client gets first; the law deals out the rest.
        seed: seed of the sizes (Dirichlet) and of who gets which example.

    Raises:
        BadValue: alpha out of its bounds, exponent not above 0; fewer examples than the minimum needs.

    >>> parts = QuantitySkew(3, law="power", exponent=1.0).split(np.zeros(113, int))
    >>> [len(part) for part in parts]
    [61, 31, 21]
    """

    name: ClassVar[str] = "quantity_skew"

    law: str = "dirichlet"
    alpha: float = 1.0
    exponent: float = 1.0
    min_examples: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("law", choice("law of partitioner 'quantity_skew'", self.law, ("dirichlet", "power")))
        self._set("alpha", concentration("alpha", self.alpha))
        self._set("exponent", positive("exponent", self.exponent))
        self._set("min_examples", whole("min_examples", self.min_examples, least=1))

    def deals_all(self) -> bool:
        return True

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        check_minimum(self.min_examples, self.num_clients, labels.size)
        rng = self._rng()
        if self.law == "dirichlet":
            shares = rng.dirichlet(np.full(self.num_clients, self.alpha))
        else:
            weights = np.arange(1, self.num_clients + 1, dtype=np.float64) ** -self.exponent
            shares = weights / weights.sum()
        spare = labels.size - self.num_clients * self.min_examples
        sizes = self.min_examples + round_to_total(shares, spare)
        return cut(rng.permutation(labels.size), sizes)
