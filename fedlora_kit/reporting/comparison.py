"""Published numbers beside reproduced ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.numerals import fixed, signed, with_spread
from fedlora_kit.reporting.tables import number
from fedlora_kit.study import words
from fedlora_kit.study.reported import cell
from fedlora_kit.study.statistics import half_width

COLUMNS = (
    "cell",
    "metric",
    "published",
    "published_std",
    "label",
    "source",
    "reproduced_mean",
    "reproduced_std",
    "n_seeds",
    "difference",
    "comparable",
)
INTERVAL = ("difference_lower", "difference_upper")
"""Columns that `compare` gives beside `COLUMNS`."""
NOT_COMPARABLE = (
    "model, data, size or metric are not the paper's, or the paper's are not known; "
    "differences for orientation."
)
"""What stands after "Not comparable" wherever published and reproduced numbers are printed side by side."""


def compare(
    results: pd.DataFrame,
    published: pd.DataFrame,
    by: Sequence[str],
    metric: str,
    value: str,
    *,
    comparable: bool = True,
) -> pd.DataFrame:
    """One row a cell that either side has: first the published cells in their order, then the others.

    Args:
        results: one row a finished run and scored cell, with a column ``seed``. A value that is not finite
            counts as absent.
        published: as `study.reported.published` gives it; rows of other metrics are left aside.
        by: the columns that name a cell, all of them.
        metric: the published metric, as it is written there ("accuracy %").
        value: the column of ``results`` in the same unit.
        comparable: whether the two sides come from the same model, data and settings. Where not (profiles
            other than ``paper``), the difference is still given, and the column says what it is worth.

    Returns:
        The columns `COLUMNS` and `INTERVAL`. ``reproduced_std`` has n − 1 in the denominator and is NaN for
        one seed; ``difference`` is reproduced − published, NaN where one is absent, and ``difference_lower``
        and ``_upper`` the ends of its 95 % interval over our seeds, the published number taken as exact (NaN
        for one seed); ``n_seeds`` is 0 for a cell that was not run.

    Raises:
        UnknownName: no such column.
        BadValue: a cell holds a seed twice (``by`` lacks a coordinate), or a cell is published twice.
    """
    for column in (*by, "seed", value):
        if column not in results.columns and not results.empty:
            raise UnknownName("column of the results", column, map(str, results.columns))
    reproduced = _reproduced(results, list(by), value) if not results.empty else {}
    theirs = {str(row["cell"]): row for row in published[published["metric"] == metric].to_dict("records")}
    if len(theirs) != int((published["metric"] == metric).sum()):
        raise BadValue(f"a cell is published twice for {metric!r}", "correct the reported numbers")
    rows = []
    for name in [*theirs, *(name for name in reproduced if name not in theirs)]:
        row, seeds = theirs.get(name, {}), reproduced.get(name, np.array([]))
        mean = float(seeds.mean()) if seeds.size else np.nan
        spread = float(seeds.std(ddof=1)) if seeds.size > 1 else np.nan
        difference = mean - float(row.get("value", np.nan))
        known = np.isfinite(difference) and seeds.size > 1
        half = half_width(spread, seeds.size) if known else np.nan
        rows.append(
            {
                "cell": name,
                "metric": metric,
                "published": float(row.get("value", np.nan)),
                "published_std": float(row.get("std", np.nan)),
                "label": row.get("label", ""),
                "source": row.get("source", ""),
                "reproduced_mean": mean,
                "reproduced_std": spread,
                "n_seeds": seeds.size,
                "difference": difference,
                "difference_lower": difference - half,
                "difference_upper": difference + half,
                "comparable": comparable,
            }
        )
    return pd.DataFrame(rows, columns=[*COLUMNS, *INTERVAL])


def printed(df: pd.DataFrame) -> pd.DataFrame:
    """A comparison as a paper would print it, of text: mean and spread in one column, cells in words.

    Cells without a published number are left out, unless there is no other.

    Args:
        df: with the columns `COLUMNS`, as `compare` gives it.
    """
    both = df[df["published"].astype(float).notna()]
    rows = []
    for row in (df if both.empty else both).to_dict("records"):
        published, reproduced, difference, _ = in_text(row)
        rows.append(
            {
                "cell": ", ".join(map(in_words, str(row["cell"]).split("|"))),
                "metric": row["metric"],
                "published": published,
                "reproduced": reproduced,
                "seeds": row["n_seeds"],
                "difference": difference,
            }
        )
    return pd.DataFrame(rows)


def in_text(row: Mapping[Any, Any]) -> tuple[str, str, str, str]:
    """Published and reproduced with their spreads, the difference, and its interval, in like decimals.

    The interval, ``[−7.52, +0.92]``, is Student's t at 95 %; it is empty for fewer than two seeds.

    Args:
        row: a row of `compare`, or one of comparison.csv as text.
    """

    def value(column: str) -> float:
        found = number(str(row[column]))
        return math.nan if found is None else found

    sides = value("published"), value("reproduced_mean")
    decimals = 0 if max((abs(side) for side in sides if math.isfinite(side)), default=0.0) >= 1e4 else 2
    spreads = value("published_std"), value("reproduced_std")
    published, reproduced = (with_spread(*both, decimals) for both in zip(sides, spreads, strict=True))
    difference, seeds, interval = value("difference"), value("n_seeds"), ""
    if math.isfinite(difference) and math.isfinite(spreads[1]) and seeds >= 2:
        half = half_width(spreads[1], int(seeds))
        ends = difference - half, difference + half
        interval = f"[{', '.join(signed(fixed(end, decimals)) for end in ends)}]"
    return published, reproduced, signed(fixed(difference, decimals)), interval


def caveat(df: pd.DataFrame) -> str:
    """What the differences of a comparison are worth: a sentence where a row is not comparable, else empty.

    Args:
        df: with the column ``comparable``, as `compare` gives it or as it is read from comparison.csv.
    """
    all_are = df["comparable"].isna() | df["comparable"].astype(str).str.lower().isin(
        ["true", "1", "1.0", ""]
    )
    return "" if all_are.all() else f"Not comparable: {NOT_COMPARABLE}"


def in_words(part: str) -> str:
    """One coordinate of a cell's name, or its phrase, in words."""
    column, is_coordinate, value = part.partition("=")
    return words.place(column, value) if is_coordinate else part


def _reproduced(results: pd.DataFrame, by: list[str], value: str) -> dict[str, np.ndarray]:
    """Cell → finite values, one a seed; cells in order of appearance."""
    if not by:
        raise BadValue("by names no column", "give the coordinates of a cell, such as ['method', 'task']")
    names = [cell(**dict(zip(by, at, strict=True))) for at in results[by].itertuples(index=False, name=None)]
    frame = pd.DataFrame({"cell": names, "seed": results["seed"].to_numpy()})
    frame["value"] = results[value].astype(float).to_numpy()
    twice = frame.duplicated(["cell", "seed"])
    if twice.any():
        first = frame[twice].iloc[0]
        raise BadValue(
            f"cell {first['cell']} holds seed {first['seed']} twice", "name all coordinates of a cell in by"
        )
    frame["value"] = frame["value"].where(np.isfinite(frame["value"]))
    return {str(name): rows["value"].dropna().to_numpy() for name, rows in frame.groupby("cell", sort=False)}
