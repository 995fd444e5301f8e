"""FFA-LoRA, discordance 1, measured: averaging A and B apart against averaging their product.

The paper argues; the measurement is the kit's. Every run records, round by round, the relative error ||B A
- sum w_k B_k A_k|| / ||sum w_k B_k A_k|| of its aggregation (`methods.aggregation_gap`). The first round is
left out of what is judged: B starts at 0, so A's first gradient is 0, and after one local step there is no
error for anyone, whatever the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.errors import BadValue
from fedlora_kit.papers.ffa_lora import table1
from fedlora_kit.papers.ffa_lora.grid import Setting, cell, points
from fedlora_kit.papers.ffa_lora.overrides import apply, checked
from fedlora_kit.study.claims import Claim, Verdict, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.pairing import MissingCells
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished


@dataclass(frozen=True)
class Sweep:
    """What is measured, for one profile.

    Attributes:
        base: everything but the number of local steps; its rates hold one learning rate a method.
        local_steps: local steps a round that are compared.
    """

    base: Setting
    local_steps: tuple[int, ...]


_LEVELS: dict[str, Any] = {"epsilons": (None,), "splits": ("iid", "mild", "severe")}
PROFILES: dict[str, Sweep] = {
    "paper": Sweep(
        dataclasses.replace(
            table1.PROFILES["paper"],
            **_LEVELS,
            tasks=("sst2",),
            rounds=20,
            rates={"lora": (0.05,), "ffa-lora": (0.5,)},
        ),
        (1, 2, 5, 10, 20, 50),
    ),
    "small": Sweep(
        dataclasses.replace(
            table1.PROFILES["small"],
            **_LEVELS,
            tasks=("sst2",),
            rounds=5,
            rates={"lora": (0.05,), "ffa-lora": (0.5,)},
        ),
        (1, 5, 10, 20),
    ),
    "laptop": Sweep(
        dataclasses.replace(
            table1.PROFILES["laptop"],
            **_LEVELS,
            tasks=("sst2",),
            rounds=4,
            rates={"lora": (1.0,), "ffa-lora": (5.0,)},
            eval_limit=50,
            holdout=0,
        ),
        (1, 5, 15),
    ),
    "smoke": Sweep(
        dataclasses.replace(
            table1.PROFILES["smoke"],
            **_LEVELS,
            tasks=("polarity",),
            rounds=4,
            batch_size=16,
            rates={"lora": (0.6,), "ffa-lora": (2.0,)},
            eval_limit=60,
            holdout=0,
        ),
        (1, 4, 12),
    ),
}


def sweep(profile: str, local_steps: Sequence[int] | None = None, **overrides: Any) -> Sweep:
    """The sweep of a profile, with some values replaced.

    Raises:
        UnknownName, BadValue: see `overrides.apply`.
    """
    item = "ffa-lora/discordance1"
    base = apply(item, {name: one.base for name, one in PROFILES.items()}, profile, overrides)
    if local_steps is None:
        return Sweep(base, PROFILES[profile].local_steps)
    return Sweep(base, checked(item, "local_steps", list(local_steps)))


def cells(s: Sweep) -> list[Cell]:
    """Every run of the measurement."""
    made = []
    for steps in s.local_steps:
        setting = dataclasses.replace(s.base, steps=steps)
        for at in points(setting):
            for seed in setting.seeds:
                one = cell(setting, at, seed, setting.rates[at.method][0], None, ("split", "method"))
                rounds = one.spec.rounds.model_copy(update={"measure_gap": True})
                spec = one.spec.model_copy(update={"rounds": rounds})
                made.append(dataclasses.replace(one, coords={**one.coords, "steps": str(steps)}, spec=spec))
    return made


def gap_frame(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """One row a run and round.

    Columns: split, method, dataset, steps (text), local_steps (number), seed, key, round (from 1), gap
    (relative error of the aggregation, 0 or more).
    """
    rows = [
        {
            **one.coords,
            "local_steps": one.spec.local.steps,
            "seed": one.seed,
            "key": run.key,
            "round": record["round"] + 1,
            "gap": record["aggregation_gap"],
        }
        for one, run in done
        if run.entry is not None
        for record in run.entry.history
    ]
    return pd.DataFrame(rows)


def per_run(gaps: pd.DataFrame) -> pd.DataFrame:
    """The mean gap of each run over its rounds from the second on (see the module's docstring).

    Raises:
        BadValue: there is no second round.
    """
    gaps = gaps[gaps["round"] > 1]
    if gaps.empty:
        raise BadValue("the first round says nothing about the gap, as B starts at 0", "run 2 rounds or more")
    names = ["split", "method", "dataset", "steps", "local_steps", "seed", "key"]
    return gaps.groupby(names, sort=False)["gap"].mean().reset_index()


def claims(local_steps: Sequence[int]) -> list[Claim]:
    """Discordance 1 as predicates over `per_run`."""
    few, many = str(min(local_steps)), str(max(local_steps))
    lora: Mapping[str, str] = {"method": "lora"}
    return [
        Claim(
            "ffa_exact",
            "FFA-LoRA's average is exact: mean(B) A = mean(B A)",
            "section 3, discordance 1",
            "SEEN",
            _exact,
        ),
        Claim(
            "lora_inexact",
            "LoRA's average is not: its relative error is larger than FFA-LoRA's",
            "section 3, discordance 1",
            "SEEN",
            lambda r: mean_difference(
                r, "gap", better=lora, worse={"method": "ffa-lora"}, within=["split", "steps", "dataset"]
            ),
        ),
        Claim(
            "grows_with_steps",
            f"LoRA's error grows with the local steps: larger at {many} than at {few}",
            "section 3, discordance 1",
            "SEEN",
            lambda r: _more_steps(r, few, many),
        ),
        Claim(
            "grows_with_heterogeneity",
            "LoRA's error grows with heterogeneity: larger under severe than under i.i.d. labels",
            "section 3, discordance 1",
            "SEEN",
            lambda r: mean_difference(
                r,
                "gap",
                better={**lora, "split": "severe"},
                worse={**lora, "split": "iid"},
                within=["steps", "dataset"],
            ),
        ),
    ]


def _more_steps(results: pd.DataFrame, few: str, many: str) -> Verdict:
    if few == many:
        raise MissingCells("only one number of local steps was run", "give two or more in local_steps")
    return mean_difference(
        results,
        "gap",
        better={"method": "lora", "steps": many},
        worse={"method": "lora", "steps": few},
        within=["split", "dataset"],
    )


def deviations(s: Sweep) -> list[str]:
    """What is the kit's own here, which is everything but the argument."""
    base = s.base
    return [
        "The paper makes the argument without measuring it: sizes, task, splits and rates here are the "
        "kit's.",
        f"{base.rounds} rounds on {', '.join(base.tasks)} with {base.backbone}, B = {base.batch_size}; one "
        "learning rate a method, not tuned: "
        + ", ".join(f"{method} {rates[0]:g}" for method, rates in base.rates.items())
        + ".",
        "The first round is not judged: B starts at 0, so A does not move in the first step, and the error "
        "after "
        "one local step is 0 by construction.",
    ]


def _exact(results: pd.DataFrame, tolerance: float = 1e-6) -> Verdict:
    rows = results[results["method"] == "ffa-lora"]
    if rows.empty:
        raise MissingCells("no result for method=ffa-lora", "run the missing cells")
    largest = float(rows["gap"].max())
    return Verdict(
        "reproduced" if largest <= tolerance else "not reproduced",
        f"largest relative error of {len(rows)} runs: {largest:.1e}; float32 rounding allows {tolerance:.0e}",
        {"largest": largest, "tolerance": tolerance},
    )


def runs(profile: str, **parameters: Any) -> Runs:
    """The runs of the sweep."""
    return Runs(tuple(cells(sweep(profile, **parameters))))
