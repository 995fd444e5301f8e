"""Claims that two sides are alike: within a declared margin, as an equivalence test sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedlora_kit.papers.claims import Verdict
from fedlora_kit.papers.pairing import Side, describe, pair
from fedlora_kit.papers.statistics import mean_interval


def within_margin(
    results: pd.DataFrame,
    value: str,
    over: str = "seed",
    *,
    first: Side,
    second: Side,
    margin: float,
    within: Sequence[str] | None = None,
) -> Verdict:
    """The means of two sides differ by less than ``margin``.

    Equivalence by an interval: paired by seed as in `claims.mean_difference`; reproduced if the whole 95 %
    interval of the mean difference lies inside +-margin. An interval that reaches out of it leaves the claim
    undecided, one that lies outside contradicts it. No evidence of a difference is not evidence of none.

    Args:
        margin: in the unit of ``value``, above 0.

    Raises:
        MissingCells: a side or cell is absent, or fewer than 2 seeds are complete.
    """
    paired = pair(results, value, [first, second], over=over, within=within)
    one, other = paired.values.mean(axis=2)
    interval = mean_interval(one - other)
    evidence = {
        "first_mean": float(one.mean()),
        "second_mean": float(other.mean()),
        "difference": interval.mean,
        "lower": interval.lower,
        "upper": interval.upper,
        "margin": margin,
        "n_seeds": float(interval.n),
        "n_cells": float(len(paired.cells)),
    }
    reason = (
        f"{value}: ({describe(first)}) − ({describe(second)}) = {interval.mean:+.3g} "
        f"[95 % interval {interval.lower:+.3g}, {interval.upper:+.3g}], margin ±{margin:g} ({paired.note()})"
    )
    if -margin < interval.lower and interval.upper < margin:
        return Verdict("reproduced", reason, evidence)
    if interval.lower > margin or interval.upper < -margin:
        return Verdict("not reproduced", f"{reason}: the interval lies outside the margin", evidence)
    return Verdict(
        "not reproduced", f"{reason}: the interval reaches beyond the margin, so this is undecided", evidence
    )


def same_in_pairs(
    results: pd.DataFrame, value: str, pairs: Sequence[tuple[Side, Side]], *, tolerance: float
) -> Verdict:
    """Cell by cell and seed by seed, the two sides of every pair agree up to ``tolerance``.

    For identities, where two settings must give the same run up to rounding. There is no test: the evidence
    is the largest difference found.

    Raises:
        MissingCells: a side is absent.
    """
    gaps = [
        np.abs(np.subtract(*pair(results, value, list(sides), within=["task"], at_least=1).values)).ravel()
        for sides in pairs
    ]
    largest = float(np.concatenate(gaps).max())
    reason = (
        f"{value}: {sum(map(len, gaps))} pairs of runs, largest difference {largest:.3g}, "
        f"allowed {tolerance:.3g}"
    )
    return Verdict(
        "reproduced" if largest <= tolerance else "not reproduced",
        reason,
        {"largest": largest, "tolerance": tolerance, "n_pairs": float(sum(map(len, gaps)))},
    )
