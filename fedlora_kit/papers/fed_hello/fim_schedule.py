"""Fed-HeLLo's ablation: when the Fisher scores begin and how often they are renewed; how stable they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedlora_kit.errors import BadValue
from fedlora_kit.looks import DOUBLE, SERIES
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.fed_hello import grid, table2
from fedlora_kit.papers.fed_hello.grid import PROFILES as PROFILES
from fedlora_kit.papers.fed_hello.grid import Setting
from fedlora_kit.papers.fed_hello.importance import rank_agreement
from fedlora_kit.study.claims import Claim, Status, Verdict, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.pairing import MissingCells
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROC, SPLIT, BEST = "1:1:1", "pat_10", "accuracy_best"
SHARES = (0.1, 0.5)
"""Starts and periods, as shares of the rounds; the first is the released 50 of 500 for both."""
SIZES = (0.25, 1.0, 4.0)
"""Numbers of proxy examples, as multiples of the profile's own."""
NEVER = "never"
OWN = (
    "That the paper varies start and period is inferred from names of the released logs (s50-e50); its grid, "
    "numbers, split and data sets are not known. The split here is Non-IID 10/1.0.",
    "Start and period are shares of the rounds, a tenth and a half: 50 and 250 of the paper's 500. Without "
    "any refresh Fed-HeLLo is RGD-HLA with the bottleneck (same runs as in the strategies' table).",
    "The figure on the layers' importance is ours; whether the paper has one is not known. Its runs are "
    "those of Table II, and the same with a quarter and with four times the proxy examples.",
    "Agreement is Spearman's rank correlation of the layers' scores. Runs that are compared differ from "
    "their first refresh on in the layers they drew, and from the start in the examples that were set aside, "
    "so that it tells of whole runs and not of the estimate alone.",
    "The claims are expectations of ours, set down before the runs.",
)


def setting(profile: str, split: str | None = None, **overrides: object) -> Setting:
    """The setting of a profile on one split.

    Raises:
        UnknownName, BadValue: see `fed_hello.grid.setting`.
    """
    item = "fed-hello/fim_schedule"
    return grid.setting(item, PROFILES, profile, splits=[SPLIT if split is None else split], **overrides)


def chosen_shares(shares: Sequence[float] | None) -> list[float]:
    """The shares of the rounds to take as starts and as periods.

    Raises:
        BadValue: none, one twice, or one outside (0, 1).
    """
    found = list(SHARES if shares is None else shares)
    if not found or len(set(found)) < len(found) or not all(0 < share < 1 for share in found):
        raise BadValue(f"shares={found}", "give numbers above 0 and below 1, none of them twice")
    return sorted(found)


def rounds_of(s: Setting, share: float) -> int:
    """A share of the setting's rounds, the nearest whole number, at least 1.

    >>> [rounds_of(PROFILES["paper"], share) for share in SHARES]
    [50, 250]
    """
    return max(1, math.floor(share * s.rounds + 0.5))


def sizes(s: Setting) -> list[int]:
    """Numbers of proxy examples to compare, ascending."""
    return sorted({max(1, round(multiple * s.proxy_examples)) for multiple in SIZES})


def cells(s: Setting, shares: Sequence[float]) -> list[Cell]:
    """Every run: starts × periods × seeds, no refresh, and the sample sizes at the first start and period.

    Args:
        shares: ascending, see `chosen_shares`.

    Coordinates: split, start and period (rounds as text, or "never"), proxy_examples (as text).

    Raises:
        BadValue: two shares mean the same round.
    """
    meant = [rounds_of(s, share) for share in shares]
    if len(set(meant)) < len(meant):
        raise BadValue(
            f"shares={list(shares)} of {s.rounds} rounds are rounds {meant}",
            "give shares that lie further apart, or more rounds",
        )
    made = []
    for split in s.splits:
        pairs = [(start, every) for start in shares for every in shares]
        plans = [(start, every, s.proxy_examples) for start, every in pairs]
        plans += [(shares[0], shares[0], n) for n in sizes(s) if n != s.proxy_examples]
        for start, every, examples in plans:
            first, period = rounds_of(s, start), rounds_of(s, every)
            coords = {
                "split": split,
                "start": str(first),
                "period": str(period),
                "proxy_examples": str(examples),
            }
            more = {"start": first, "every": period, "proxy_examples": examples}
            made += [grid.cell(s, split, ROC, "fed-hello", seed, coords, **more) for seed in s.seeds]
        coords = {"split": split, "start": NEVER, "period": NEVER, "proxy_examples": "0"}
        bottleneck = {"pattern": "bottleneck"}
        made += [grid.cell(s, split, ROC, "rgd-hla", seed, coords, **bottleneck) for seed in s.seeds]
    return made


def claims(s: Setting, shares: Sequence[float]) -> list[Claim]:
    """What an early, repeated refresh is for; over `study.grid.results_frame`. No number is known."""
    early, late = (str(rounds_of(s, share)) for share in (min(shares), max(shares)))
    own = {"start": early, "period": early, "proxy_examples": str(s.proxy_examples)}
    others = {
        "late_start": ("starting late", {**own, "start": late}),
        "rare_refresh": ("refreshing rarely", {**own, "period": late}),
        "no_refresh": ("never scoring", {"start": NEVER, "period": NEVER, "proxy_examples": "0"}),
    }
    return [
        Claim(
            f"above_{name}",
            f"an early start with frequent refreshes beats {words} (best accuracy)",
            "none: an expectation of ours",
            "existence DERIVED from file names; direction and numbers UNKNOWN",
            lambda r, w=worse: mean_difference(  # type: ignore[misc]
                r, BEST, better=own, worse=w, within=["task", "split"]
            ),
        )
        for name, (words, worse) in others.items()
        if worse != own
    ]


def stability_claim() -> Claim:
    """That the number of proxy examples does not decide which layers matter; over `of_sizes`."""
    return Claim(
        "sizes_agree",
        "the layers' ranks agree between a quarter, once and four times the proxy examples more than "
        "unrelated ranks would",
        "none: an expectation of ours",
        "UNKNOWN",
        _sizes_agree,
    )


def _sizes_agree(agreement: pd.DataFrame) -> Verdict:
    by_seed = agreement.groupby("seed")["rho"].mean()
    if len(by_seed) < 2:
        raise MissingCells("rank agreement needs runs of two sample sizes at 2 seeds", "run more seeds")
    found = mean_interval(by_seed)
    status: Status = "reproduced" if found.lower > 0 else "not reproduced"
    reason = (
        f"Spearman's rho, mean over the refreshes, then over {found.n} seeds: {fixed(found.mean)} "
        f"[{fixed(found.lower)}, {fixed(found.upper)}]"
    )
    return Verdict(status, reason, {"mean": found.mean, "lower": found.lower, "upper": found.upper})


def own_schedule(scores: pd.DataFrame, s: Setting, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """The scores of runs with the first start and period, of all sample sizes."""
    first = str(rounds_of(s, shares[0]))
    return scores[(scores["start"] == first) & (scores["period"] == first)]


def of_seeds(scores: pd.DataFrame, s: Setting) -> pd.DataFrame:
    """Agreement between seeds at each refresh, with the profile's own number of proxy examples."""
    return rank_agreement(scores[scores["proxy_examples"] == str(s.proxy_examples)], "seed", ["round"])


def of_sizes(scores: pd.DataFrame) -> pd.DataFrame:
    """Agreement between numbers of proxy examples, at each refresh and seed."""
    return rank_agreement(scores, "proxy_examples", ["seed", "round"])


def figure(scores: pd.DataFrame, s: Setting) -> Figure:
    """Left: share of the scores by layer and round, mean over seeds. Right: agreement over the rounds.

    Args:
        scores: of `own_schedule`.
    """
    from matplotlib import pyplot as plt

    own = scores[scores["proxy_examples"] == str(s.proxy_examples)]
    shares = own.pivot_table(index="layer", columns="round", values="share").sort_index()
    fig, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 2.7), width_ratios=(1.25, 1))
    drawn = left.imshow(100 * shares, aspect="auto", cmap="Blues", origin="lower", vmin=0)
    every = max(1, math.ceil(len(shares.columns) / 10))
    left.set_xticks(np.arange(0, len(shares.columns), every), [str(r) for r in shares.columns[::every]])
    left.set_yticks(np.arange(len(shares)), [str(layer) for layer in shares.index])
    left.grid(visible=False)
    left.set(
        xlabel="refresh before round", ylabel="layer (0: next to the input)", title="Importance of the layers"
    )
    fig.colorbar(drawn, ax=left, label="share of the Fisher scores, %")
    by_size = of_sizes(scores).groupby("round")["rho"].mean()
    by_seed = of_seeds(scores, s).set_index("round")["rho"]
    for line, label, colour, marker in (
        (by_seed, "between seeds", SERIES[0], "o"),
        (by_size, f"between {', '.join(map(str, sizes(s)))} examples", SERIES[1], "s"),
    ):
        right.plot(line.index, line, label=label, color=colour, marker=marker)
    right.axhline(0, color="0.6", lw=0.8)
    right.set_xticks(shares.columns[::every])
    lowest = min(0.0, float(by_size.min()), float(by_seed.min()))
    right.set(
        ylim=(lowest - 0.05, 1.05), xlabel="refresh before round", ylabel="Spearman's ρ of the layers' scores"
    )
    right.set_title("Does the order stay?")
    right.legend(loc="best")
    return fig


def deviations(s: Setting) -> list[str]:
    """As Table II's, and what is special about the schedule."""
    lines = list(OWN)
    if s.backbone == "kit/image-tiny":
        lines.append("Four layers: a rank correlation of four values takes few values and is coarse.")
    return table2.deviations(s, lines)


def runs(profile: str, shares: Sequence[float] | None = None, **parameters: Any) -> Runs:
    """The runs of `cells`."""
    return Runs(tuple(cells(setting(profile, **parameters), chosen_shares(shares))))
