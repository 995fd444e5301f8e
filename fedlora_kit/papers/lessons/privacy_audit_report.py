"""What the audits of the lesson show: the table, the claims, the figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedlora_kit.looks import DOUBLE, FAINT, INK, SERIES
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.lessons.privacy_audit import MUST_BE_FOUND, Audited
from fedlora_kit.study.claims import Claim, MissingCells, Verdict


def results_table(audited: Sequence[Audited]) -> pd.DataFrame:
    """One row an audited run: trainer, seed, claimed and audited epsilon, and the counts behind it."""
    return pd.DataFrame(
        {
            "trainer": one.trainer,
            "seed": one.seed,
            "claimed": one.claimed["epsilon"],
            "lower": one.found.epsilon_lower,
            "correct": one.found.correct,
            "guesses": one.found.guesses,
            "sigma": one.claimed["sigma"],
            "q": one.claimed["sample_rate"],
            "T": one.claimed["steps"],
            "refuted": one.refuted,
        }
        for one in audited
    )


def claims() -> list[Claim]:
    """The right trainer keeps to its word, and each break that must be found is found."""
    right = Claim(
        "right",
        "the audited lower bound of the kit's own trainer stays below the epsilon that it claims",
        "this kit",
        "own check",
        lambda r: _judge(r, "right", refuted=False),
    )
    return [right] + [
        Claim(
            name.replace(" ", "_"),
            f"a trainer with a break ({name}) is caught: its lower bound exceeds the claimed epsilon",
            "this kit",
            "own check",
            lambda r, n=name: _judge(r, n, refuted=True),  # type: ignore[misc]
        )
        for name in MUST_BE_FOUND
    ]


def _judge(results: pd.DataFrame, trainer: str, *, refuted: bool) -> Verdict:
    """Every audit has its own confidence, so no further test over the seeds is made: all must agree."""
    rows = results[results["trainer"] == trainer]
    if not len(rows):
        raise MissingCells(f"no audit of the trainer {trainer!r}", "audit it")
    low, high, claimed = rows["lower"].min(), rows["lower"].max(), rows["claimed"].max()
    bounds = f"lower bounds {fixed(low)} to {fixed(high)}, claimed {fixed(claimed)}"
    said = f"{bounds} ({len(rows)} audits, each at 95 %)"
    holds = bool((rows["refuted"] == refuted).all())
    evidence = {"lowest": float(low), "highest": float(high), "claimed": float(claimed)}
    return Verdict("reproduced" if holds else "not reproduced", said, evidence)


def figure(audited: Sequence[Audited]) -> Any:
    """Left: scores of included and excluded canaries. Right: the lower bounds against the claims."""
    from matplotlib import pyplot as plt

    trainers = list(dict.fromkeys(one.trainer for one in audited))
    first = {t: next(one for one in audited if one.trainer == t) for t in trainers}
    fig = plt.figure(figsize=(DOUBLE, 0.8 + 0.58 * len(trainers)))
    grid = fig.add_gridspec(len(trainers), 2, width_ratios=(1.25, 1))
    bounds = fig.add_subplot(grid[:, 1])
    for row, trainer in enumerate(trainers):
        axes = fig.add_subplot(grid[row, 0])
        one = first[trainer]
        low, high = np.quantile(one.scores, (0.002, 0.998))
        pad = 0.08 * (high - low)
        places = np.linspace(low - pad, high + pad, 48)
        clipped = np.clip(one.scores, places[0], places[-1])
        for coin, colour, label in ((False, FAINT, "left out"), (True, SERIES[0], "put in")):
            axes.hist(
                clipped[one.included == coin], bins=places.tolist(), color=colour, alpha=0.55, label=label
            )
        axes.set_yticks([])
        axes.grid(False)
        axes.set_title(trainer, loc="left", fontsize=7.5)
        if row == 0:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.9), ncol=2)
    axes.set_xlabel("score of a canary: log-likelihood ratio, in to out")
    for place, trainer in enumerate(trainers):
        mine = [one for one in audited if one.trainer == trainer]
        colour = SERIES[1] if all(one.refuted for one in mine) else SERIES[2]
        bounds.plot(
            [one.found.epsilon_lower for one in mine], [place] * len(mine), "o", color=colour, alpha=0.8
        )
    claimed = max(one.claimed["epsilon"] for one in audited)
    bounds.axvline(claimed, color=INK, ls="--", lw=1.0)
    bounds.annotate(
        f"claimed ε = {fixed(claimed)}", (claimed, -0.62), (6, 0), textcoords="offset points", fontsize=7
    )
    bounds.set_yticks(range(len(trainers)), trainers)
    bounds.set_ylim(len(trainers) - 0.5, -0.85)
    bounds.set_xlim(left=0)
    bounds.set_xlabel("lower bound on ε at 95 % confidence")
    return fig
