"""Fixed label proportions a client: the heterogeneity of FFA-LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition.base import Indices, Partitioner, checked_labels, register, round_to_total


@register
@dataclass(frozen=True)
class LabelShares(Partitioner):
    """Each client holds the classes in proportions given beforehand; all clients hold equally many.

    Args:
        num_clients: number of clients, the number of rows of ``shares``.
        shares: (clients, classes) proportion of each class at each client; rows sum to 1 (to 1e-6).
        seed: which examples of a class go where.

    **Not every example can be used.** With clients of equal size n, class j is asked for n·Σ_k shares[k][j]
    times, and the class that runs out first fixes n. Of every class j exactly count_j − Σ_k n_kj examples
    stay out, where n_kj is n·shares[k][j] rounded so that each client's counts add up to n;
    :meth:`left_out` tells these numbers. n is the largest that the counts allow.

    Source: FFA-LoRA (ICLR 2024), experiments: [.1,.9], [.9,.1], [.5,.5] for two classes, [.9,.05,.05] and
    its rotations for three. Whether the authors' clients are equally large is not known; equal sizes are
    this kit's choice.

    Raises:
        BadValue: a share is negative, a row does not sum to 1, a class has no share anywhere; the labels
            name another number of classes than the shares, or too few examples of one.

    >>> labels = np.repeat([0, 1], [30, 60])
    >>> split = LabelShares(3, [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]])
    >>> [np.bincount(labels[part]).tolist() for part in split.split(labels)]
    [[2, 18], [18, 2], [10, 10]]
    >>> split.left_out(labels).tolist()
    [0, 30]
    """

    name: ClassVar[str] = "label_shares"

    shares: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            table = np.asarray(self.shares, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise BadValue(
                f"shares={self.shares!r} is not a table of numbers",
                "give one row a client, one number a class",
            ) from error
        if table.ndim != 2 or table.shape[0] != self.num_clients or table.shape[1] == 0:
            raise BadValue(
                f"shares have shape {table.shape} for {self.num_clients} clients",
                "give one row a client, one number a class",
            )
        if not np.isfinite(table).all() or (table < 0).any():
            raise BadValue("shares hold a negative or non-finite number", "give numbers from 0 to 1")
        for client, total in enumerate(table.sum(axis=1)):
            if abs(total - 1) > 1e-6:
                raise BadValue(
                    f"the shares of client {client} sum to {total:.6g}: {table[client].tolist()}",
                    "let every row sum to 1",
                )
        idle = np.flatnonzero(table.sum(axis=0) == 0)
        if idle.size:
            raise BadValue(
                f"class {idle[0]} has share 0 at every client: nobody can hold its examples",
                "give it a share somewhere, or take the class out of the data",
            )
        self._set("shares", tuple(tuple(float(share) for share in row) for row in table))

    def _counts(self, labels: Indices) -> tuple[Indices, Indices]:
        """(clients, classes) examples dealt, and (classes,) examples there are."""
        table = np.asarray(self.shares, dtype=np.float64)
        classes, width = int(labels.max()) + 1, table.shape[1]
        if classes != width:
            raise BadValue(
                f"shares are given for {width} classes, the labels name {classes}",
                f"give {classes} numbers a client",
            )
        there = np.bincount(labels)
        if (there == 0).any():
            raise BadValue(
                f"class {int(np.argmin(there))} has a share but no example", "number the classes without gaps"
            )
        asked = table.sum(axis=0)
        # Rounding moves a class by less than one example a client, so the largest size is at most this.
        size = int(((there + self.num_clients) / asked).min())
        while size > 0:
            counts = round_to_total(table, size)
            if (counts.sum(axis=0) <= there).all():
                return counts, there
            size -= 1
        short = int(np.argmin(there / asked))
        raise BadValue(
            f"class {short} has too few examples ({there[short]}) for {self.num_clients} such clients",
            "give fewer clients, more examples, or a smaller share of that class",
        )

    def left_out(self, labels: npt.ArrayLike) -> Indices:
        """(classes,) number of examples of each class that no client gets. Errors as in :meth:`split`."""
        counts, there = self._counts(checked_labels(labels))
        return np.asarray(there - counts.sum(axis=0), dtype=np.int64)

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        rng = self._rng()
        counts, _ = self._counts(labels)
        parts: list[list[Indices]] = [[] for _ in range(self.num_clients)]
        for label in range(counts.shape[1]):
            mine = rng.permutation(np.flatnonzero(labels == label))
            ends = np.cumsum(counts[:, label])
            for client, end in enumerate(ends):
                parts[client].append(mine[end - counts[client, label] : end])
        return [np.concatenate(part) for part in parts]
