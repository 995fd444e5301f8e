"""Sentences of the papers as small predicates over results, and the tests that judge them.

A claim is judged *reproduced* only if the interval over seeds lies wholly on its side: at 95 %, and at more
when seeds were added (`sequential`). Anything else that could be tested is *not reproduced*, and the reason
says whether the results contradict the claim or merely leave it open, and then what would decide it. What the
results do not hold is *not testable*.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from fedlora_kit.study.look_log import Look, take
from fedlora_kit.study.pairing import MissingCells as MissingCells
from fedlora_kit.study.pairing import Side, describe, pair
from fedlora_kit.study.sequential import at_look, interval_name
from fedlora_kit.study.statistics import MeanInterval, mean_interval, spread_ratio
from fedlora_kit.study.what_decides import what_decides_mean, what_decides_spread

Status = Literal["reproduced", "not reproduced", "not testable"]


@dataclass(frozen=True)
class Verdict:
    """What the results say about a claim. ``evidence`` holds the figures that the reason quotes."""

    status: Status
    reason: str
    evidence: dict[str, float] = field(default_factory=dict)

    @property
    def undecided(self) -> bool:
        """Whether the results leave the claim open; the reason of such a verdict says so."""
        return self.status == "not reproduced" and "undecided" in self.reason


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper that an experiment can confirm or refute.

    Args:
        id: short name, unique within an item.
        text: the claim in words.
        source: where the paper says it.
        foundation: how well that is known (SEEN, SECOND, DERIVED, …).
        judge: results → verdict. Raises `MissingCells` where the results do not hold what it needs.
    """

    id: str
    text: str
    source: str
    foundation: str
    judge: Callable[[pd.DataFrame], Verdict]


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, and the look at which it was judged."""

    claim: Claim
    verdict: Verdict
    look: Look


def judge_all(claims: Iterable[Claim], results: pd.DataFrame) -> list[Judged]:
    """Judges every claim on the same results, which is a look at them (`look_log`).

    Missing cells make a claim not testable, with the reason. Every other error propagates: a broken judge
    must not look like an open question.
    """
    judged, look = [], take(results)
    with at_look(look.number):
        for claim in claims:
            try:
                verdict = claim.judge(results)
            except MissingCells as missing:
                verdict = Verdict("not testable", missing.problem)
            judged.append(Judged(claim, verdict, look))
    return judged


def to_json(judged: Sequence[Judged]) -> str:
    """Judged claims as a JSON list of objects: id, text, source, foundation, status, undecided, reason,
    evidence, look (counted from 1), seeds.

    ``undecided``: not reproduced, but not contradicted either: the results leave the claim open. Figures
    that JSON cannot hold (infinite, NaN) become null.
    """
    rows = [
        {
            "id": one.claim.id,
            "text": one.claim.text,
            "source": one.claim.source,
            "foundation": one.claim.foundation,
            "status": one.verdict.status,
            "undecided": one.verdict.undecided,
            "reason": one.verdict.reason,
            "evidence": {k: v if math.isfinite(v) else None for k, v in one.verdict.evidence.items()},
            "look": one.look.number,
            "seeds": one.look.seeds,
        }
        for one in judged
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)


def mean_difference(
    results: pd.DataFrame,
    value: str,
    over: str = "seed",
    *,
    better: Side,
    worse: Side,
    margin: float = 0.0,
    within: Sequence[str] | None = None,
) -> Verdict:
    """``better`` has the larger mean than ``worse``, by more than ``margin``.

    Paired Student t test; the unit is the seed. Per seed the difference better − worse is averaged over the
    other coordinates (`pairing.pair`); the interval is that of the mean over seeds. Reproduced if its
    lower end lies above the margin.

    Args:
        results: one row a finished run and scored cell.
        value: column compared, in its own unit; larger is better.
        better, worse: coordinates of the two sides.
        margin: in the unit of ``value``.
        within: coordinates that pair the rows; see `pairing.pair`.

    Raises:
        MissingCells: a side or cell is absent, or fewer than 2 seeds are complete.
    """
    paired = pair(results, value, [better, worse], over=over, within=within)
    first, second = paired.values.mean(axis=2)
    interval = mean_interval(first - second)
    evidence = {
        "better_mean": float(first.mean()),
        "worse_mean": float(second.mean()),
        **_figures(interval),
        "n_cells": float(len(paired.cells)),
        "margin": margin,
    }
    what = f"{value}: ({describe(better)}) − ({describe(worse)})"
    return _above(what, interval, margin, paired.note(), evidence)


def smaller_drop(
    results: pd.DataFrame,
    value: str,
    over: str = "seed",
    *,
    better: Side,
    worse: Side,
    before: Side,
    after: Side,
    margin: float = 0.0,
    within: Sequence[str] | None = None,
) -> Verdict:
    """From ``before`` to ``after``, ``better`` loses less than ``worse``, by more than ``margin``.

    Difference in differences; the unit is the seed. A side's drop is value(before) − value(after). Per seed
    the drop of ``worse`` minus that of ``better`` is averaged over the other coordinates; Student's t gives
    the interval of the mean over seeds. Reproduced if its lower end lies above the margin. A side that
    starts near chance has little to lose: the evidence holds both starting points.

    Args:
        results, value, margin, within: as in :func:`mean_difference`.
        better, worse: the methods compared, such as ``{"method": "ffa-lora"}``.
        before, after: the two conditions, such as ``{"eps": "none"}`` and ``{"eps": "1"}``.

    Raises:
        MissingCells: as in :func:`mean_difference`.
    """
    sides = [{**side, **when} for side in (better, worse) for when in (before, after)]
    paired = pair(results, value, sides, over=over, within=within)
    start_better, end_better, start_worse, end_worse = paired.values.mean(axis=2)
    interval = mean_interval((start_worse - end_worse) - (start_better - end_better))
    evidence = {
        "better_before": float(start_better.mean()),
        "better_drop": float((start_better - end_better).mean()),
        "worse_before": float(start_worse.mean()),
        "worse_drop": float((start_worse - end_worse).mean()),
        **_figures(interval),
        "n_cells": float(len(paired.cells)),
        "margin": margin,
    }
    what = f"{value}, drop to {describe(after)}: ({describe(worse)}) − ({describe(better)})"
    return _above(what, interval, margin, paired.note(), evidence)


def lower_spread(
    results: pd.DataFrame,
    value: str,
    over: str = "seed",
    *,
    better: Side,
    worse: Side,
    within: Sequence[str] | None = None,
) -> Verdict:
    """``better`` varies less over the seeds than ``worse``.

    F test of the variances over seeds, pooled over the cells, one-sided; the unit is the seed. Assumptions
    are listed at `statistics.spread_ratio`. Reproduced if the interval of the ratio of standard deviations
    worse / better lies above 1, which is p < .025 at the first look. A side whose seeds all agree tells of a
    collapsed method or of a seed that does nothing, so it is not testable.

    Args:
        results, value, within: as in :func:`mean_difference`.
        better, worse: coordinates of the two sides.

    Raises:
        MissingCells: as in :func:`mean_difference`, or a side without any spread.
    """
    paired = pair(results, value, [better, worse], over=over, within=within)
    for side, table in zip((better, worse), paired.values, strict=True):
        if not np.ptp(table, axis=0).any():
            raise MissingCells(
                f"{describe(side)} gives the same {value} for every seed", "look into those runs"
            )
    ratio = spread_ratio(large=paired.values[1], small=paired.values[0])
    evidence = {
        "better_sd": ratio.sd_small,
        "worse_sd": ratio.sd_large,
        "ratio": ratio.ratio,
        "lower": ratio.lower,
        "upper": ratio.upper,
        "f": ratio.f,
        "p": ratio.p,
        "df_worse": float(ratio.df_large),
        "df_better": float(ratio.df_small),
        "n_seeds": float(len(paired.seeds)),
        "n_cells": float(len(paired.cells)),
    }
    reason = (
        f"standard deviation of {value} over seeds: {describe(worse)} {ratio.sd_large:.3g}, "
        f"{describe(better)} {ratio.sd_small:.3g}; ratio {ratio.ratio:.3g} "
        f"[{interval_name()} {ratio.lower:.3g}, {ratio.upper:.3g}], one-sided p = {ratio.p:.2g} "
        f"({paired.note()})"
    )

    hint = what_decides_spread(ratio, len(paired.cells))
    return _decide(reason, ratio.lower, ratio.upper, 1.0, evidence, hint)


def _figures(interval: MeanInterval) -> dict[str, float]:
    return {
        "difference": interval.mean,
        "lower": interval.lower,
        "upper": interval.upper,
        "sd": interval.sd,
        "n_seeds": float(interval.n),
    }


def _above(
    what: str, interval: MeanInterval, margin: float, note: str, evidence: dict[str, float]
) -> Verdict:
    ends = f"{interval_name()} {interval.lower:+.3g}, {interval.upper:+.3g}"
    reason = f"{what} = {interval.mean:+.3g} [{ends}] ({note})"
    if interval.sd == 0:
        reason += "; no spread at all over the seeds"
    hint = what_decides_mean(interval.sd, abs(interval.mean - margin), f"{margin:g}")
    return _decide(reason, interval.lower, interval.upper, margin, evidence, hint)


def _decide(
    reason: str, lower: float, upper: float, bound: float, evidence: dict[str, float], hint: str
) -> Verdict:
    if lower > bound:
        return Verdict("reproduced", reason, evidence)
    where = f"lies on the other side of {bound:g}"
    if upper >= bound:
        where = f"includes {bound:g}, so this is undecided; {hint}"
    return Verdict("not reproduced", f"{reason}: the interval {where}", evidence)
