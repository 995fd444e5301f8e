"""CSV files as tables of the page: text, alignment, and how a number is written there."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from fedlora_kit import numerals
from fedlora_kit.study.words import heading

LONG = 40
"""Rows; a longer table is folded."""

_NUMBER_LIKE = re.compile(
    r"|–|[+−-]?(inf|∞|nan|[0-9.,]+(e[+-]?[0-9]+)?( ± ([0-9.,]+(e[+-]?[0-9]+)?|∞|nan|–))?)", re.IGNORECASE
)
"""A cell of a column to align to the right: empty, a number, or a mean with its spread."""


@dataclass
class Table:
    """A CSV file as text.

    Attributes:
        name: the file's name without its ending.
        header, rows: as shown.
        numeric: which columns are aligned to the right.
        links: (row, column) → address of what stands behind the number.
        raw: the rows as the file has them.
        of: the column of the runs whose means the table gives, where it is one and the same.
    """

    name: str
    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    links: dict[tuple[int, int], str] = field(default_factory=dict)
    raw: list[list[str]] = field(default_factory=list)
    of: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        said = heading(self.name)
        return said[:1].upper() + said[1:]

    @property
    def long(self) -> bool:
        """Whether it is folded for its length."""
        return len(self.rows) > LONG

    @property
    def spread(self) -> bool:
        """Whether it gives means with their spread."""
        return any(" ± " in cell for row in self.rows for cell in row)

    @property
    def by_run(self) -> bool:
        """Whether each row belongs to one run: raw material rather than a result."""
        return "key" in self.header


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file.

    Raises:
        ValueError: no rectangular table. OSError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except csv.Error as error:
        raise ValueError(f"{path.name} is not a table: {error}") from error
    if not lines or any(len(line) != len(lines[0]) for line in lines):
        raise ValueError(f"{path.name} is not a table")
    return lines[0], lines[1:]


def read_table(path: Path) -> Table:
    """A CSV file as it is shown.

    Raises:
        ValueError, OSError: as in :func:`read_rows`.
    """
    header, rows = read_rows(path)
    numeric = [
        any(row[i] for row in rows) and all(_NUMBER_LIKE.fullmatch(row[i]) for row in rows)
        for i in range(len(header))
    ]
    words = {"key", "seed"}  # names of something, whatever they look like
    shown = [
        [written(cell) if numeric[i] and header[i] not in words else cell for i, cell in enumerate(row)]
        for row in rows
    ]
    return Table(path.stem, header, shown, numeric, raw=rows)


def number(text: str) -> float | None:
    """The number that a text is, or ``None``."""
    try:
        return float(text)
    except ValueError:
        return None


def finite(text: str) -> float | None:
    """The finite number that a text is, or ``None``."""
    value = number(text)
    return value if value is not None and math.isfinite(value) else None


def written(text: str) -> str:
    """A number to four significant digits; integers, and what is no number, as they are."""
    value = number(text)
    return text if value is None or text.lstrip("+-").isdigit() else numerals.significant(value)
