"""Labelled examples in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue

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
    """

    columns: tuple[Column, ...]
    labels: npt.NDArray[np.int64]
    references: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(c) for c in self.columns} | {len(self.labels)}
        lengths |= {len(self.references)} if self.references else set()
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
        return Examples(columns, self.labels[indices], references)
