"""Fed-HeLLo: accuracy over rounds, in the official logs and in the runs of Table II."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.looks import DOUBLE
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.fed_hello import logs as fed_hello_logs
from fedlora_kit.papers.fed_hello import table2
from fedlora_kit.papers.fed_hello.grid import Setting, cells, setting
from fedlora_kit.papers.fed_hello.table2 import PROFILES as PROFILES
from fedlora_kit.papers.fed_hello.table2 import WORDS
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.known_methods import look
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedlora_kit.running.many import Finished

LEVELS = (50.0, 70.0, 80.0)
"""Accuracies in %, to which the rounds are counted."""
METHODS = ("fed-hello", "fedra", "hetlora", "exclusive", "flexlora", "straggler", "lora", "flora")
"""In the order of the figure's legend; others follow."""


def official() -> pd.DataFrame:
    """The official logs in the columns of `ours`; the seed is 1, the megabytes are unknown (NaN).

    Raises:
        FedloraError: the file is missing.
    """
    logs = fed_hello_logs.curves()
    return pd.DataFrame(
        {
            "split": logs["split"],
            "method": logs["method"],
            "seed": 1,
            "round": logs["round"] + 1,
            "accuracy": 100 * logs["test_accuracy"],
            "megabytes": math.nan,
        }
    )


def ours(done: Sequence[tuple[Cell, Finished]], part: str) -> pd.DataFrame:
    """The evaluations of finished runs, one row each.

    Args:
        part: the scored part.

    Returns:
        split, method, dataset, seed, key, round (from 1), accuracy (%), megabytes (10^6 bytes sent by all
        clients up to then, padding left out).
    """
    rows = []
    for one, run in done:
        sent = 0
        for record in [] if run.entry is None else run.entry.history:
            sent += record["bytes_up"]
            if "eval" in record:
                rows.append(
                    {
                        "split": one.coords["split"],
                        "method": one.coords["method"],
                        "dataset": one.coords["dataset"],
                        "seed": one.seed,
                        "key": run.key,
                        "round": record["round"] + 1,
                        "accuracy": 100 * record["eval"][part]["accuracy"],
                        "megabytes": sent / 1e6,
                    }
                )
    return pd.DataFrame(rows)


def reached(curves: pd.DataFrame, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """The first evaluated round at which each run reaches each level, and what had been sent by then.

    Returns:
        split, method, seed, level (text, %), rounds, megabytes; both are NaN where the level is not reached.
    """
    rows = []
    for (split, method, seed), run in curves.groupby(["split", "method", "seed"], sort=False):
        ordered = run.sort_values("round")
        for level in levels:
            there = ordered[ordered["accuracy"] >= level]
            first = there.iloc[0] if len(there) else None
            rows.append(
                {
                    "split": split,
                    "method": method,
                    "seed": seed,
                    "level": f"{level:g}",
                    "rounds": math.nan if first is None else float(first["round"]),
                    "megabytes": math.nan if first is None else float(first["megabytes"]),
                }
            )
    return pd.DataFrame(rows)


def reached_table(found: pd.DataFrame, value: str, digits: int = 0) -> pd.DataFrame:
    """`reached` as text: the mean over the seeds that reach a level ("–": none), and how many if not all.

    Args:
        value: "rounds" or "megabytes".
    """

    def text(values: pd.Series) -> str:
        there = values.dropna()
        if there.empty:
            return "–"
        some = f" ({len(there)} of {len(values)})" if len(there) < len(values) else ""
        return fixed(there.mean(), digits) + some

    table = (
        found.groupby(["split", "method", "level"], sort=False)[value].agg(text).unstack("level", sort=False)
    )
    table.columns = pd.Index([f"{level} %" for level in table.columns])
    return table.reset_index()


def early_claims() -> list[Claim]:
    """Fed-HeLLo is above Exclusive and HETLoRA half way through the rounds, over `at_half`."""
    return [
        Claim(
            f"half_way_above_{baseline}_{split}",
            f"{WORDS[split]}: half way through the rounds, Fed-HeLLo is above {look(baseline).title}",
            "official logs, round 250",
            "SEEN (one seed)",
            lambda r, b=baseline, s=split: mean_difference(  # type: ignore[misc]
                r,
                "accuracy",
                better={"method": "fed-hello", "split": s},
                worse={"method": b, "split": s},
                within=["dataset"],
            ),
        )
        for split in WORDS
        for baseline in ("exclusive", "hetlora", "fedra")
    ]


def at_half(curves: pd.DataFrame, rounds: int) -> pd.DataFrame:
    """The last evaluation of each run within the first half of the rounds (or the first, if later)."""
    early = curves[curves["round"] <= max(int(curves["round"].min()), rounds // 2)]
    last = early.groupby(["split", "method", "seed"], sort=False)["round"].idxmax()
    return early.loc[last].reset_index(drop=True)


def figure(theirs: pd.DataFrame, mine: pd.DataFrame, title: str) -> Figure:
    """Official logs above, our runs below, one column a split.

    Ours are means over seeds; the bars to the right of the last round are their 95 % intervals there. (Bands
    of seven methods would lie over each other.)

    Args:
        title: what our runs are, such as the task.
    """
    from matplotlib import pyplot as plt

    splits = [s for s in WORDS if s in set(mine["split"])]
    fig, axes = plt.subplots(2, len(splits), figsize=(DOUBLE, 4.1), sharey="row", sharex="row", squeeze=False)
    for column, split in enumerate(splits):
        for panel, curves in zip(axes[:, column], (theirs, mine), strict=True):
            _draw(panel, curves[curves["split"] == split])
        axes[0, column].set_title(WORDS[split])
        for panel in axes[:, column]:  # the rows have rounds of their own
            panel.set_xlabel("round")
    axes[0, 0].set_ylabel("official logs, CIFAR-100\ntest accuracy, %")
    axes[1, 0].set_ylabel(f"{title}\ntest accuracy, %")
    handles: dict[str, Artist] = {}
    for panel in axes.ravel():
        lines, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    names = [name for m in _ordered(theirs, mine) if (name := look(m).title) in handles]
    fig.legend([handles[name] for name in names], names, loc="outside lower center", ncols=min(len(names), 7))
    return fig


def _ordered(*curves: pd.DataFrame) -> list[str]:
    """The methods of curves, those that `METHODS` lacks at the end."""
    found = dict.fromkeys(method for one in curves for method in one["method"])
    return [m for m in METHODS if m in found] + [m for m in found if m not in METHODS]


def _draw(axes: Axes, curves: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    methods = _ordered(curves)
    first, last = curves["round"].min(), curves["round"].max()
    for n, method in enumerate(methods):
        style = look(method)
        runs = curves[curves["method"] == method].groupby("round")["accuracy"]
        means = runs.mean()
        many = len(means) > 100  # noisy rounds, which run into each other
        every = max(1, len(means) // 8)
        axes.plot(
            means.index,
            means,
            **style.line(),
            label=style.title,
            linewidth=0.6 if many else 1.2,
            markersize=3.5,
            markevery=(n * every // len(methods) if many else 0, every),
        )
        end = runs.get_group(means.index[-1]).to_numpy(float)
        if end.size > 1:
            interval = mean_interval(end)
            at = last + (n + 2) * 0.025 * max(last - first, 1)
            axes.vlines(at, interval.lower, interval.upper, color=style.colour, linewidth=1.2)
            axes.plot(at, float(end.mean()), style.marker, color=style.colour, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.set_ylim(0, 100)


def deviations(s: Setting) -> list[str]:
    """As Table II's, and what is special about the curves."""
    return table2.deviations(
        s,
        (
            "Whether the paper has such a figure is not known; its curves are those of the official logs.",
            "The official logs do not hold the bytes sent, so that only ours are given. Rounds are counted "
            "from 1, the logs' accuracies are rounded to 0.1 points, and a level counts as reached at "
            "the first evaluation that shows it.",
            "The claims on the middle of the run are ours, read off the official curves.",
        ),
    )


def runs(profile: str, **parameters: Any) -> Runs:
    """Methods × splits × seeds; at equal settings the runs of Table II."""
    return Runs(tuple(cells(setting("fed-hello/curves", PROFILES, profile, **parameters))))
