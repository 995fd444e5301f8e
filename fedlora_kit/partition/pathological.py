"""A fixed number of classes a client: the splits of Fed-HeLLo ("Non-IID 10/1.0")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition.base import Indices, Partitioner, choice, concentration, cut, register, whole


@register
@dataclass(frozen=True)
class Pathological(Partitioner):
    """Every client holds ``classes_per_client`` classes; every example once.

    Args:
        num_clients: number of clients.
        classes_per_client: classes that a client holds, exactly.
        mode: how a class is cut among its holders: ``"equal"`` parts (sizes within 1), or ``"dirichlet"``.
        beta: concentration of the Dirichlet cut, at most 1e9; smaller is more unequal. Looked at in that mode
            only.
        min_per_holder: examples of a class that each of its holders gets at least. With 0 a holder of a small
            class may get none of it, and then has a class less.
        seed: seed of the dealing and the cuts.

    Classes are dealt in turn from a shuffled pass over all classes, and the pass is shuffled anew when it is
    used up, so the numbers of holders of any two classes differ by at most 1. Where a client reaches into a
    new pass, classes that it holds already wait for the next client.

    In the Dirichlet mode each holder first gets ``min_per_holder``; the rest is cut by Dirichlet(beta),
    rounded down, and the few that remain go to holders drawn at random. The skew of a client's labels thus
    comes from ``classes_per_client``; beta moves quantities within a class only.

    Source: Fed-HeLLo (arXiv 2506.12213) as released: 100 clients, 10 or 20 of CIFAR-100's classes, beta 1,
    10 examples a holder at least. Here the examples of a class are shuffled before they are cut; the
    released code cuts them in the data set's order.

    Raises:
        BadValue: more classes a client than there are; a class that nobody would hold; too few examples of
            a class for its holders.

    >>> labels = np.arange(60) % 3
    >>> parts = Pathological(6, 2, seed=1).split(labels)
    >>> [np.bincount(labels[part], minlength=3).tolist() for part in parts]
    [[5, 5, 0], [5, 0, 5], [0, 5, 5], [5, 5, 0], [5, 0, 5], [0, 5, 5]]
    """

    name: ClassVar[str] = "pathological"

    classes_per_client: int
    mode: str = "equal"
    beta: float = 1.0
    min_per_holder: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("classes_per_client", whole("classes_per_client", self.classes_per_client, least=1))
        self._set("mode", choice("mode of partitioner 'pathological'", self.mode, ("dirichlet", "equal")))
        self._set("beta", concentration("beta", self.beta))
        self._set("min_per_holder", whole("min_per_holder", self.min_per_holder, least=0))

    def deals_all(self) -> bool:
        return True

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        rng = self._rng()
        parts: list[list[Indices]] = [[] for _ in range(self.num_clients)]
        for label, clients in class_holders(labels, self.num_clients, self.classes_per_client, rng).items():
            mine = rng.permutation(np.flatnonzero(labels == label))
            for client, piece in zip(
                clients, cut(mine, self._sizes(label, mine.size, len(clients), rng)), strict=True
            ):
                parts[client].append(piece)
        return [np.concatenate(part) for part in parts]

    def _sizes(self, label: int, size: int, holders: int, rng: np.random.Generator) -> Indices:
        """(holders,) how many examples of a class each of its holders gets; they add up to ``size``."""
        spare = size - holders * self.min_per_holder
        if spare < 0:
            raise BadValue(
                f"class {label} has {size} examples for {holders} holders, "
                f"min_per_holder={self.min_per_holder}",
                "give fewer clients, a smaller classes_per_client or a smaller min_per_holder",
            )
        sizes = np.full(holders, self.min_per_holder, dtype=np.int64)
        if self.mode == "equal":
            sizes += spare // holders
        else:
            sizes += np.floor(rng.dirichlet(np.full(holders, self.beta)) * spare).astype(np.int64)
        sizes[rng.permutation(holders)[: size - sizes.sum()]] += 1
        return sizes


def class_holders(
    labels: Indices, num_clients: int, classes_per_client: int, rng: np.random.Generator
) -> dict[int, list[int]]:
    """Class -> its holders, when the classes are dealt in turn (see `Pathological`).

    Raises:
        BadValue: more classes a client than there are, or a class that nobody would hold.
    """
    classes = np.unique(labels)
    if classes_per_client > classes.size:
        raise BadValue(
            f"classes_per_client={classes_per_client}, but the labels name {classes.size} classes",
            f"give classes_per_client of at most {classes.size}",
        )
    if num_clients * classes_per_client < classes.size:
        raise BadValue(
            f"{num_clients} clients with {classes_per_client} classes each leave some of the "
            f"{classes.size} classes without a holder",
            "give more clients or a larger classes_per_client",
        )
    holders: dict[int, list[int]] = {int(label): [] for label in classes}
    deck: list[int] = []
    for client in range(num_clients):
        hand: list[int] = []
        while len(hand) < classes_per_client:
            if not deck:
                # What this client holds already goes to the back, out of its own reach.
                deck = sorted(rng.permutation(classes).tolist(), key=hand.__contains__)
            hand.append(deck.pop(0))
        for label in hand:
            holders[label].append(client)
    return holders
