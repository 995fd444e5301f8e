"""Fed-HeLLo's ablation: how layers are allocated (GD, RGD, FIM) × by which geometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.methods.allocation import PATTERNS
from fedlora_kit.papers.fed_hello import grid, table2
from fedlora_kit.papers.fed_hello.grid import PROFILES as PROFILES
from fedlora_kit.papers.fed_hello.grid import Setting
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.overrides import chosen
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished

#: strategy -> the registered method
STRATEGIES = {"gd": "gd-hla", "rgd": "rgd-hla", "fim": "fed-hello"}
#: strategy -> heading of its column
WORDS = {"gd": "fixed (GD-HLA)", "rgd": "drawn (RGD-HLA)", "fim": "drawn, then Fisher (Fed-HeLLo)"}
ROC = "1:1:1"
SPLIT = "pat_10"
BEST = "accuracy_best"
OWN = (
    "That the paper has this ablation is known; its numbers, split and data sets are not. The split here is "
    "Non-IID 10/1.0, the hardest of Table II.",
    "With Fisher information, the geometry is that of the warm start only; Fed-HeLLo itself is the "
    "bottleneck's row, the same runs as in Table II.",
    "The triangle lies at the input; which of the two triangles the paper calls inverted is not known. "
    "Randomised uniform draws every layer with the same probability.",
)


def setting(profile: str, split: str | None = None, **overrides: Any) -> Setting:
    """The setting of a profile on one split.

    Raises:
        UnknownName, BadValue: see `fed_hello.grid.setting`.
    """
    return grid.setting(
        "fed-hello/strategies", PROFILES, profile, splits=[SPLIT if split is None else split], **overrides
    )


def chosen_patterns(patterns: Sequence[str] | None) -> list[str]:
    """The patterns to run; all four if none is named.

    Raises:
        UnknownName: no such pattern.
        BadValue: none, or one twice.
    """
    return chosen("allocation pattern", "patterns", patterns, PATTERNS)


def cells(s: Setting, patterns: Sequence[str]) -> list[Cell]:
    """Every run of strategies × patterns × seeds on the setting's split."""
    return [
        grid.cell(
            s,
            split,
            ROC,
            method,
            seed,
            {"split": split, "strategy": strategy, "pattern": pattern},
            pattern=pattern,
        )
        for split in s.splits
        for strategy, method in STRATEGIES.items()
        for pattern in patterns
        for seed in s.seeds
    ]


def last_scores(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """Fisher scores of the layers at the last refresh of each run that has any.

    Returns:
        pattern, seed, round (from 1), then "layer 0", "layer 1", …: the score over the largest of the run.
        The single row "none" where no run was scored.
    """
    rows: list[dict[str, Any]] = []
    for one, run in done:
        scored = [r for r in (run.entry.history if run.entry is not None else []) if "layer_scores" in r]
        if not scored:
            continue
        scores = scored[-1]["layer_scores"]
        largest = max(scores) or 1.0
        place = {"pattern": one.coords["pattern"], "seed": one.seed, "round": scored[-1]["round"] + 1}
        rows.append({**place, **{f"layer {i}": score / largest for i, score in enumerate(scores)}})
    return pd.DataFrame(rows or [{"pattern": "none"}])


def claims() -> list[Claim]:
    """What the paper builds on, as predicates over `study.grid.results_frame`; no number of it is known."""
    found = [
        Claim(
            f"rgd_above_gd_{pattern}",
            f"{pattern.replace('_', ' ')}: drawing the layers anew each round beats the fixed lists",
            "abstract: RGD-HLA improves GD-HLA",
            "SECOND: the direction; the numbers are UNKNOWN",
            lambda r, p=pattern: mean_difference(  # type: ignore[misc]
                r,
                BEST,
                better={"strategy": "rgd", "pattern": p},
                worse={"strategy": "gd", "pattern": p},
                within=["task", "split"],
            ),
        )
        for pattern in PATTERNS
    ]
    found += [
        Claim(
            "fim_above_rgd",
            "bottleneck: Fisher information on top of the random draws (Fed-HeLLo) beats the draws alone",
            "abstract: Fed-HeLLo is RGD-HLA with FIM-HLA",
            "SECOND: the direction; the numbers are UNKNOWN",
            lambda r: mean_difference(
                r,
                BEST,
                better={"strategy": "fim", "pattern": "bottleneck"},
                worse={"strategy": "rgd", "pattern": "bottleneck"},
                within=["task", "split"],
            ),
        ),
        *(
            Claim(
                f"bottleneck_above_{pattern}",
                f"drawn anew each round, the bottleneck beats the {pattern.replace('_', ' ')}",
                "the only geometry in the released settings",
                "DERIVED: the choice of the bottleneck; the numbers are UNKNOWN",
                lambda r, p=pattern: mean_difference(  # type: ignore[misc]
                    r,
                    BEST,
                    better={"strategy": "rgd", "pattern": "bottleneck"},
                    worse={"strategy": "rgd", "pattern": p},
                    within=["task", "split"],
                ),
            )
            for pattern in PATTERNS
            if pattern != "bottleneck"
        ),
    ]
    return found


def deviations(s: Setting) -> list[str]:
    """As Table II's, and what is special about the ablation."""
    lines = list(OWN)
    if s.backbone == "kit/image-tiny":
        lines.append(
            "In a model of 4 layers a client of the weakest group has 2 to train: the triangle is layers 0 "
            "and 1, the inverted one 2 and 3, the bottleneck 0 and 3, uniform 0 and 2."
        )
    return table2.deviations(s, lines)


def runs(profile: str, patterns: Sequence[str] | None = None, **parameters: Any) -> Runs:
    """The runs of `cells`."""
    return Runs(tuple(cells(setting(profile, **parameters), chosen_patterns(patterns))))
