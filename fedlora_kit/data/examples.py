"""Labelled examples in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit.columns import group_values, plain, texts, whole_numbers
from fedlora_kit.errors import BadValue

_LABELS = "give the number of each example's class, counted from 0"
Column = list[str] | npt.NDArray[np.float32] | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Examples:
    """Labelled examples.

    Lists, arrays, pandas and torch columns are taken and converted to what stands here, bytes among texts as
    UTF-8.

    Attributes:
        columns: one to three text columns (lists of n strings), or one image array of shape
            (n, channels, height, width): float32 in [-1, 1], or uint8 (0 to 255).
        labels: int64, shape (n,).
        references: of each example all answers that count as right, where there is more than one; the first
            is the one in the last column. Empty: the last column alone.
        groups: (n,), a domain or category of each example (integers or strings), for partitioners that deal
            by it; None where a task has none.

    Raises:
        BadValue: a value is missing or of another kind, or the lengths differ; the message names the column
            and the row.
    """

    columns: tuple[Column, ...]
    labels: npt.NDArray[np.int64]
    references: tuple[tuple[str, ...], ...] = ()
    groups: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        columns: Any = self.columns
        several = isinstance(columns, tuple | list)
        if not several or (columns and all(isinstance(c, str | bytes) for c in columns)):
            columns = (columns,)  # one column that was not put into a tuple
        self._set("columns", tuple(_column(c, f"column {i}") for i, c in enumerate(columns)))
        self._set("labels", whole_numbers(self.labels, "the column of labels", _LABELS))
        references = tuple(_answers(answers, row) for row, answers in enumerate(self.references))
        self._set("references", references)
        if self.groups is not None:
            self._set("groups", group_values(self.groups, "the column of groups"))
        lengths = {f"column {i}": len(c) for i, c in enumerate(self.columns)} | {"labels": len(self.labels)}
        lengths |= {"references": len(references)} if references else {}
        lengths |= {} if self.groups is None else {"groups": len(self.groups)}
        if len(set(lengths.values())) != 1:
            raise BadValue(
                "columns and labels differ in length: "
                + ", ".join(f"{name} {length}" for name, length in lengths.items()),
                "give one label an example, and all columns in one tuple",
            )

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

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


def _column(values: Any, what: str) -> Column:
    """A column of texts as a list, one of images as the array that it is (never a copy)."""
    array = plain(values)
    if isinstance(array, np.ndarray) and array.dtype.kind in "buif" and array.ndim > 1:
        return array
    remedy = "a text column holds one string an example, images are one array (n, channels, height, width)"
    return texts(array, what, remedy)


def _answers(answers: Any, row: int) -> tuple[str, ...]:
    what = f"the list of right answers of example {row}"
    found = tuple(texts(answers, what))
    if not found:
        raise BadValue(f"{what} is empty", "give at least one, the one in the last column")
    return found
