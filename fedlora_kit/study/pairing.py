"""From a frame of results to tables that can be compared: the same seeds and the same cells on every side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.study.reported import cell

Side = Mapping[str, object]
"""Coordinates of one side of a comparison: column → value, or column → the values to keep."""


class MissingCells(FedloraError):
    """The results do not hold what a claim needs: it cannot be tested, which is not the same as wrong."""


@dataclass(frozen=True)
class Paired:
    """Values of several sides over the same seeds and cells.

    ``values``: (sides, seeds, cells). ``seeds``: those that are complete on every side. ``cells``: names of
    the cells, a single ``""`` if the sides leave no other coordinate. ``incomplete``: seeds left out.
    """

    values: npt.NDArray[np.float64]
    seeds: list[Any]
    cells: list[str]
    incomplete: list[Any]

    def note(self) -> str:
        """How much this is, for a verdict's reason."""
        text = f"{len(self.seeds)} seeds, {len(self.cells)} cell{'s' * (len(self.cells) != 1)}"
        return text + (f"; {len(self.incomplete)} incomplete seeds left out" if self.incomplete else "")


def pair(
    results: pd.DataFrame,
    value: str,
    sides: Sequence[Side],
    *,
    over: str = "seed",
    within: Sequence[str] | None = None,
    at_least: int = 2,
) -> Paired:
    """Lines the sides up by seed and by the remaining coordinates.

    Args:
        results: one row a finished run and scored cell.
        value: the column compared. A row without a finite value counts as absent.
        sides: which rows belong to each side. A column given one value is spent; a column given several
            values restricts the rows and stays a coordinate.
        over: the column of the unit (the seed).
        within: the other coordinates, which pair the rows; by default every text column but ``key`` that no
            side spends.
        at_least: number of complete seeds needed.

    A seed counts if it has every cell on every side: otherwise a mean over cells would compare unlike things.

    Raises:
        MissingCells: a side or a cell is absent, or too few seeds are complete.
        UnknownName: no such column.
        BadValue: two rows of one side have the same seed and cell, so a coordinate was forgotten.
    """
    if results.empty:
        raise MissingCells("there are no results", "run the item's notebook")
    spent = {column for side in sides for column, wanted in side.items() if not _several(wanted)}
    for column in {value, over, *(within or ()), *(column for side in sides for column in side)}:
        if column not in results.columns:
            raise UnknownName("column of the results", column, map(str, results.columns))
    text = [str(c) for c in results.columns if not pd.api.types.is_numeric_dtype(results[c])]
    others = [c for c in text if c not in {"key", over, value} | spent] if within is None else list(within)
    tables = [_table(results, value, side, over, others) for side in sides]
    cells = sorted({name for table in tables for name in table.columns})
    for side, table in zip(sides, tables, strict=True):
        absent = [name for name in cells if name not in table.columns]
        if absent:
            raise MissingCells(f"no result for {describe(side)} at {absent[0]}", "run the missing cells")
    seeds = sorted({seed for table in tables for seed in table.index})
    aligned = np.stack([table.reindex(index=seeds, columns=cells).to_numpy(np.float64) for table in tables])
    whole = np.isfinite(aligned).all(axis=(0, 2))
    if whole.sum() < at_least:
        raise MissingCells(
            f"{int(whole.sum())} seeds are complete for {' and '.join(map(describe, sides))}, "
            f"{at_least} are needed",
            "run more seeds",
        )
    return Paired(
        aligned[:, whole],
        [seed for seed, kept in zip(seeds, whole, strict=True) if kept],
        cells,
        [seed for seed, kept in zip(seeds, whole, strict=True) if not kept],
    )


def describe(side: Side) -> str:
    """A side in words."""
    return ", ".join(
        f"{column}={'/'.join(_words(wanted)) if _several(wanted) else _words([wanted])[0]}"
        for column, wanted in side.items()
    )


def _several(wanted: object) -> bool:
    return isinstance(wanted, Collection) and not isinstance(wanted, str)


def _words(wanted: Any) -> list[str]:
    return [
        cell(cell=one) for one in wanted
    ]  # the text that a cell's name would hold: 6.0 is "6", None "none"


def _table(results: pd.DataFrame, value: str, side: Side, over: str, others: list[str]) -> pd.DataFrame:
    """(seeds × cells) of one side; only finite values."""
    keep = np.isfinite(results[value].astype(float).to_numpy())
    for column, wanted in side.items():
        words = _words(wanted if _several(wanted) else [wanted])
        keep &= np.array([one in words for one in _words(results[column])])
    rows = results[keep]
    if rows.empty:
        raise MissingCells(f"no result for {describe(side)}", "run the missing cells")
    names = [cell(**dict(zip(others, at, strict=True))) if others else "" for at in _places(rows, others)]
    frame = pd.DataFrame(
        {"seed": rows[over].to_numpy(), "cell": names, "value": rows[value].astype(float).to_numpy()}
    )
    twice = frame.duplicated(["seed", "cell"])
    if twice.any():
        first = frame[twice].iloc[0]
        raise BadValue(
            f"two results for {describe(side)} at {first['cell'] or 'its only cell'}, {over} {first['seed']}",
            "name the coordinate that tells them apart",
        )
    return frame.pivot(index="seed", columns="cell", values="value")


def _places(rows: pd.DataFrame, others: list[str]) -> list[tuple[Any, ...]]:
    return list(rows[others].itertuples(index=False, name=None)) if others else [()] * len(rows)
