"""FedLoRA-Optimizer's preliminary experiment: how far direction and magnitude of A and of B move.

Each task trains an adapter of its own from one common start. Trainings of different length at one seed see
the same batches in the same order, so that runs of 10, 20 and 40 steps are three points of one trajectory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedlora_kit.adapter import State
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.looks import DOUBLE, SERIES
from fedlora_kit.models.components import AXES
from fedlora_kit.papers.fedlora_optimizer import setting as flo_setting
from fedlora_kit.papers.fedlora_optimizer.setting import Setting
from fedlora_kit.papers.fedlora_optimizer.variation import REFERENCES, client_adapters, variation
from fedlora_kit.papers.published import published
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedlora_kit.running.many import Finished

#: profile -> steps after which the adapters are looked at
POINTS: dict[str, tuple[int, ...]] = {
    "paper": (10, 50, 200, 500),
    "small": (5, 20, 60),
    "laptop": (2, 5, 12),
    "smoke": (5, 15, 40),
}
#: the axis and the reference point that the claims are judged at
AXIS, REFERENCE = "rank", "first"
#: cell of the reported numbers -> quantity, factor above, factor below
RATIOS = {
    "direction variation A/B": ("direction", "A", "B"),
    "magnitude variation B/A": ("magnitude", "B", "A"),
}


def setting(profile: str, **changes: Any) -> Setting:
    """`setting.setting`, with few scored examples: nothing is scored here.

    Raises:
        UnknownName, BadValue: see there.
    """
    return flo_setting.setting("fedlora-optimizer/preliminary", profile, **changes, eval_limit=8)


def sweep_points(profile: str, steps: Sequence[int] | None = None) -> tuple[int, ...]:
    """The points of a profile, or ``steps``.

    Raises:
        BadValue: fewer than two, not ascending, or below 1.
    """
    wanted = POINTS[profile] if steps is None else tuple(steps)
    if len(wanted) < 2 or wanted[0] < 1 or any(a >= b for a, b in pairwise(wanted)):
        raise BadValue(f"points={list(wanted)}", "give two or more numbers of steps, ascending, from 1")
    return wanted


def specs(s: Setting, at: Sequence[int]) -> list[tuple[int, int, RunSpec]]:
    """(seed, steps, run): one round of local training a run, every client on a task of its own."""
    made = []
    for seed in s.seeds:
        for steps in at:
            one = dataclasses.replace(s, rounds=1, steps=steps, server_examples=0, client_holdout=0.0)
            made.append((seed, steps, flo_setting.spec(one, "local-only", seed)))
    return made


def frame(done: Sequence[tuple[int, int, Finished]], tasks: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """ΔM and ΔD of every run, for each axis and reference point.

    Args:
        done: seed, steps, finished run.
        tasks: seed -> name of each client's task.

    Returns:
        The columns of `variation.variation`, and axis, reference, seed.

    Raises:
        BadValue: a run failed.
    """
    parts = []
    for seed, names in tasks.items():
        adapters: dict[str, dict[int, State]] = {name: {} for name in names}
        for of_seed, steps, run in done:
            if of_seed != seed:
                continue
            if run.entry is None:
                raise BadValue(f"run {run.key} failed: {steps} steps at seed {seed}", "lower lr")
            for client, state in client_adapters(run.entry.path).items():
                adapters[names[client]][steps] = state
        parts += [
            variation(adapters, axis, reference).assign(axis=axis, reference=reference, seed=seed)
            for axis in AXES
            for reference in REFERENCES
        ]
    return pd.concat(parts, ignore_index=True)


def ratios(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's two ratios, one row an axis, reference point and seed.

    Columns: cell, axis, reference, seed, ratio: of the means over tasks, layers, modules and points.
    """
    rows = []
    for place, part in results.groupby(["axis", "reference", "seed"], sort=False):
        for cell, (quantity, above, below) in RATIOS.items():
            means = part.groupby("factor")[quantity].mean()
            found = dict(zip(("axis", "reference", "seed"), place, strict=True))
            rows.append({"cell": cell, **found, "ratio": means[above] / means[below]})
    return pd.DataFrame(rows)


def claims() -> list[Claim]:
    """The paper's two findings and the contrary one, over `frame`: per task and layer."""

    def judge(quantity: str, more: str, less: str, axis: str, reference: str) -> Any:
        def on(results: pd.DataFrame) -> Any:
            rows = results[(results["axis"] == axis) & (results["reference"] == reference)]
            keys = ["task", "layer", "factor", "seed"]
            means = rows.groupby(keys, sort=False)[quantity].mean().reset_index()
            return mean_difference(
                means, quantity, better={"factor": more}, worse={"factor": less}, within=["task", "layer"]
            )

        return on

    reported = published("fedlora-optimizer", "preliminary").set_index("cell")["value"]
    ours = {quantity: cell for cell, (quantity, _, _) in RATIOS.items()}
    seen = {q: f"SECOND: about {reported[c]:g} times; axis and reference UNKNOWN" for q, c in ours.items()}
    made = []
    for axis in AXES:
        for reference in REFERENCES:
            where = f"axis {axis}, reference {reference}"
            made += [
                Claim(
                    f"direction_{axis}_{reference}",
                    f"A's direction varies more than B's ({where})",
                    "preliminary experiment",
                    seen["direction"],
                    judge("direction", "A", "B", axis, reference),
                ),
                Claim(
                    f"magnitude_{axis}_{reference}",
                    f"B's magnitude varies more than A's ({where})",
                    "preliminary experiment",
                    seen["magnitude"],
                    judge("magnitude", "B", "A", axis, reference),
                ),
            ]
    made.append(
        Claim(
            "contrary",
            f"the contrary: B's direction varies more than A's (axis {AXIS}, reference {REFERENCE})",
            "Fed-ALoRA (arXiv 2509.25414), on LLaMA2-7B and Dolly",
            "SECOND: most of the directional change is in B; its definitions are not ours",
            judge("direction", "B", "A", AXIS, REFERENCE),
        )
    )
    return made


def figure(results: pd.DataFrame) -> Figure:
    """ΔD (above) and ΔM (below) at the default axis and reference: by task, by layer, by steps."""
    from matplotlib import pyplot as plt

    rows = results[(results["axis"] == AXIS) & (results["reference"] == REFERENCE)]
    fig, axes = plt.subplots(2, 3, figsize=(DOUBLE, 3.9), width_ratios=[1.7, 1, 1])
    looks = {"A": (SERIES[0], "o"), "B": (SERIES[1], "s")}
    for row, (quantity, label) in enumerate((("direction", "ΔD, direction"), ("magnitude", "ΔM, magnitude"))):
        for column, by in enumerate(("task", "layer", "steps")):
            place = axes[row, column]
            levels = list(dict.fromkeys(rows[by])) if by == "task" else sorted(set(rows[by]))
            for factor, (colour, marker) in looks.items():
                seeds = rows[rows["factor"] == factor].groupby([by, "seed"])[quantity].mean().unstack("seed")
                seeds = seeds.loc[levels]
                aside = 0.012 * len(levels)  # of the panel's width, so that no bar lies on another
                where = np.arange(len(levels)) + (aside if factor == "B" else -aside)
                place.errorbar(
                    where,
                    seeds.mean(axis=1),
                    yerr=seeds.std(axis=1) if seeds.shape[1] > 1 else None,
                    color=colour,
                    marker=marker,
                    ls="" if by == "task" else "-",
                    label=factor,
                )
            place.set_xticks(
                range(len(levels)),
                [str(v).replace("_", " ") for v in levels],
                rotation=30 if by == "task" else 0,
            )
            place.set(xlabel=by, xlim=(-0.5, len(levels) - 0.5), ylim=(0, None))
            if column == 0:
                place.set_ylabel(label)
    axes[0, 0].legend(ncol=2)
    return fig


def deviations(s: Setting, at: Sequence[int]) -> list[str]:
    """What is the kit's own."""
    return [
        "The paper's definitions of the variation, its axis and its reference point are not known. Here: "
        "DoRA's ΔM and ΔD of A and of B, on both axes, against three reference points; the start is none of "
        "them, as B has no direction there.",
        "The summaries name the tasks Causal, IE and QA of Dolly with LLaMA2-7B; here it is every category "
        f"of {s.task} with {s.backbone}, {', '.join(map(str, at))} steps of {s.batch_size} examples, AdamW "
        f"at {s.lr:g}, rank {s.rank} on {', '.join(s.targets)}.",
        "ΔM is not relative to the magnitude, so that its ratio depends on how A is scaled at the start.",
    ]


def runs(profile: str, points: Sequence[int] | None = None, **parameters: Any) -> Runs:
    """A run for each seed and number of steps."""
    s = setting(profile, **parameters)
    planned = specs(s, sweep_points(profile, points))
    return Runs(tuple(Cell({"steps": str(steps)}, {}, seed, spec) for seed, steps, spec in planned))
