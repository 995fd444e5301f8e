"""Labelled examples in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue, FedloraError

Column = list[str] | npt.NDArray[np.float32] | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Examples:
    """Labelled examples.

    Attributes:
        columns: one to three text columns (lists of n strings), or one image array of shape
            (n, channels, height, width): float32 in [-1, 1], or uint8 (0 to 255).
        labels: int64, shape (n,).
        references: of each example all answers that count as right, where there is more than one; the first
            is the one in the last column. Empty: the last column alone.
        groups: (n,), a domain or category of each example (integers or strings), for partitioners that deal
            by it; None where a task has none.
    """

    columns: tuple[Column, ...]
    labels: npt.NDArray[np.int64]
    references: tuple[tuple[str, ...], ...] = ()
    groups: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        lengths = {len(c) for c in self.columns} | {len(self.labels)}
        lengths |= {len(self.references)} if self.references else set()
        lengths |= set() if self.groups is None else {len(self.groups)}
        if len(lengths) != 1:
            raise BadValue(
                f"columns and labels differ in length: {sorted(lengths)}", "give one label an example"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Examples:
        """The examples at ``indices``, in that order."""
        columns = tuple(
            c[indices] if isinstance(c, np.ndarray) else [c[i] for i in indices] for c in self.columns
        )
        references = tuple(self.references[i] for i in indices) if self.references else ()
        groups = None if self.groups is None else self.groups[indices]
        return Examples(columns, self.labels[indices], references, groups)


def whole_numbers(values: Sequence[Any], what: str) -> npt.NDArray[np.int64]:
    """A column of labels as int64 (n,): no fraction is cut off, no text or list is taken for a number.

    Args:
        what: names the column in an error.

    Raises:
        FedloraError: a value is no whole number.
    """
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or abs(int(value)) >= 2**63:
            raise FedloraError(
                f"{what} holds {str(value)[:40]!r} in row {row}, which is no label",
                "the file is damaged or of another version; fetch it again",
            )
    return np.array(values, dtype=np.int64)
