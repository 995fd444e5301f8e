"""When a paper says "performs similarly", or "is the same run": sides judged as equal within a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedlora_kit.errors import BadValue
from fedlora_kit.study.claims import Verdict
from fedlora_kit.study.pairing import MissingCells, Side, describe, pair
from fedlora_kit.study.sequential import interval_name
from fedlora_kit.study.statistics import mean_interval
from fedlora_kit.study.what_decides import what_decides_mean


def within_margin(
    results: pd.DataFrame,
    value: str,
    over: str = "seed",
    *,
    one: Side,
    other: Side,
    margin: float,
    within: Sequence[str] | None = None,
) -> Verdict:
    """The means of ``one`` and ``other`` differ by less than ``margin``, either way.

    The paired difference one − other as in `claims.mean_difference`; the unit is the seed. Reproduced if its
    interval lies wholly inside (−margin, +margin): two one-sided tests, at 2.5 % in the first look. One that
    reaches out of the margin leaves the question open, one wholly outside contradicts the claim. That no
    difference was found in a few seeds is therefore not yet "similar".

    Args:
        results: one row a finished run and scored cell.
        value: column compared.
        one, other: coordinates of the two sides.
        margin: above 0, in the unit of ``value``; to be declared before the results are seen.
        within: coordinates that pair the rows; see `pairing.pair`.

    Raises:
        BadValue: the margin is not a finite number above 0.
        MissingCells: a side or cell is absent, or fewer than 2 seeds are complete.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise BadValue(f"margin={margin}", "give a finite number above 0, in the unit of the values")
    paired = pair(results, value, [one, other], over=over, within=within)
    first, second = paired.values.mean(axis=2)
    interval = mean_interval(first - second)
    evidence = {
        "one_mean": float(first.mean()),
        "other_mean": float(second.mean()),
        "difference": interval.mean,
        "lower": interval.lower,
        "upper": interval.upper,
        "sd": interval.sd,
        "margin": margin,
        "n_seeds": float(interval.n),
        "n_cells": float(len(paired.cells)),
    }
    reason = (
        f"{value}: ({describe(one)}) − ({describe(other)}) = {interval.mean:+.3g} [{interval_name()} "
        f"{interval.lower:+.3g}, {interval.upper:+.3g}], margin ±{margin:g} ({paired.note()})"
    )
    if interval.sd == 0:
        reason += "; no spread at all over the seeds"
    if -margin < interval.lower and interval.upper < margin:
        return Verdict("reproduced", reason, evidence)
    outside = interval.lower >= margin or interval.upper <= -margin
    hint = what_decides_mean(interval.sd, abs(margin - abs(interval.mean)), "the margin")
    why = "lies outside the margin" if outside else f"reaches out of the margin, so this is undecided; {hint}"
    return Verdict("not reproduced", f"{reason}: the interval {why}", evidence)


def same_in_pairs(
    results: pd.DataFrame, value: str, pairs: Sequence[tuple[Side, Side]], *, tolerance: float
) -> Verdict:
    """Cell by cell and seed by seed, the two sides of every pair agree up to ``tolerance``.

    For identities, where two settings must give the same run up to rounding. There is no test: the evidence
    is the largest difference found.

    A pair of which one run has a value and the other has none (it diverged) does not agree.

    Raises:
        MissingCells: a side is absent.
    """
    gaps, broken = [], 0
    for sides in pairs:
        paired = pair(results, value, list(sides), within=["task"], at_least=1)
        gaps.append(np.abs(np.subtract(*paired.values)).ravel())
        broken += len(paired.incomplete)
    largest, count = float(np.concatenate(gaps).max()), sum(map(len, gaps))
    reason = f"{value}: {count} pairs of runs, largest difference {largest:.3g}, allowed {tolerance:.3g}"
    if broken:
        reason += f"; in {broken} more, a run without a value stands against one with"
    return Verdict(
        "reproduced" if largest <= tolerance and not broken else "not reproduced",
        reason,
        {"largest": largest, "tolerance": tolerance, "n_pairs": float(count), "broken_pairs": float(broken)},
    )


def exact_ratio(
    results: pd.DataFrame,
    value: str,
    over: str = "seed",
    *,
    numerator: Side,
    denominator: Side,
    ratio: float,
    tolerance: float = 1e-9,
    within: Sequence[str] | None = None,
) -> Verdict:
    """``value`` of one side is ``ratio`` times that of the other, for every seed and cell.

    For quantities without chance, such as parameters trained or bytes sent. There is no test: the interval
    given is the least and the largest ratio found. One seed is enough.

    Args:
        results, value, within: as in `claims.mean_difference`.
        numerator, denominator: coordinates of the two sides.
        tolerance: relative to ``ratio``; the default allows for rounding only.

    Raises:
        MissingCells: a side or cell is absent, or a denominator is 0.
    """
    paired = pair(results, value, [numerator, denominator], over=over, within=within, at_least=1)
    top, bottom = paired.values
    if (bottom == 0).any():
        raise MissingCells(f"{value} of {describe(denominator)} is 0", "look into those runs")
    lowest, highest = float((top / bottom).min()), float((top / bottom).max())
    holds = max(abs(lowest - ratio), abs(highest - ratio)) <= tolerance * abs(ratio)
    found = f"{lowest:.6g}" if lowest == highest else f"{lowest:.6g} to {highest:.6g}"
    reason = f"{value}: ({describe(numerator)}) / ({describe(denominator)}) is {found}, claimed {ratio:.6g}"
    evidence = {"lower": lowest, "upper": highest, "claimed": ratio, "n_seeds": float(len(paired.seeds))}
    return Verdict("reproduced" if holds else "not reproduced", f"{reason} ({paired.note()})", evidence)
