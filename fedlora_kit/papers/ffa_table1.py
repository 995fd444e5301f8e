"""FFA-LoRA, Table 1: LoRA and FFA-LoRA without DP and at epsilon = 6, 3, 1.

Known of the paper (labels in the notes of the items): RoBERTa-large, q, k, v, o, r = alpha = 8, frozen random
head, 3 clients, B = 200, 1000 rounds of 10 local steps, (DP-)SGD, delta = 1e-5, learning rates and clipping
norms from the grids below, 20 runs. Unknown, and chosen here: sequence length 128, no momentum, no schedule,
the scored split (GLUE's validation), how the best configuration was chosen (here: on examples held out of the
training split), and that the known label shares are those of this table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.grid import Cell

METHODS = ("lora", "ffa-lora")
#: label shares of the three clients (SEEN; whether the paper calls them mild or severe is unknown)
SHARES = {
    2: ((0.1, 0.9), (0.9, 0.1), (0.5, 0.5)),
    3: ((0.9, 0.05, 0.05), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9)),
}
#: the table's columns: name -> scored part, for each real task and its built-in stand-in
COLUMNS: dict[str, dict[str, str]] = {
    "mnli": {"mnli-m": "matched", "mnli-mm": "mismatched"},
    "sst2": {"sst2": "validation"},
    "qqp": {"qqp": "validation"},
    "qnli": {"qnli": "validation"},
    "entailment": {"mnli-m": "matched", "mnli-mm": "mismatched"},
    "polarity": {"sst2": "validation"},
    "paraphrase": {"qqp": "validation"},
    "answerable": {"qnli": "validation"},
}
#: real task -> the built-in task that stands in for it in the smoke profile
STAND_INS = {"mnli": "entailment", "sst2": "polarity", "qqp": "paraphrase", "qnli": "answerable"}
CLASSES = {"mnli": 3, "entailment": 3}


@dataclass(frozen=True)
class Setting:
    """Everything Table 1 needs, for one profile.

    Attributes:
        tasks: tasks trained on, one run each (MNLI's run fills two columns).
        epsilons: None stands for no DP.
        rates: method -> learning rates of the grid.
        clips: clipping norms of the grid (under DP only).
        seeds: reported seeds; tuning_seeds: seeds of the grid, never reported.
        holdout: training examples set aside for choosing from the grid.
        train_limit, eval_limit: at most so many examples; None for all.
    """

    tasks: tuple[str, ...]
    backbone: str
    rounds: int
    steps: int
    batch_size: int
    rates: Mapping[str, tuple[float, ...]]
    clips: tuple[float, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    holdout: int
    train_limit: int | None = None
    eval_limit: int | None = None
    max_length: int | None = None
    epsilons: tuple[float | None, ...] = (None, 6.0, 3.0, 1.0)
    delta: float = 1e-5
    rank: int = 8
    alpha: float = 8.0
    eval_every: int = 0
    max_tokens: int = 4096


PAPER_RATES = {"lora": (0.01, 0.02, 0.05, 0.1), "ffa-lora": (0.1, 0.2, 0.5, 1.0)}
PAPER_CLIPS = (2.0, 5.0, 10.0)

PROFILES: dict[str, Setting] = {
    "paper": Setting(
        tasks=("mnli", "sst2", "qqp", "qnli"),
        backbone="FacebookAI/roberta-large",
        rounds=1000,
        steps=10,
        batch_size=200,
        rates=PAPER_RATES,
        clips=PAPER_CLIPS,
        seeds=tuple(range(20)),
        tuning_seeds=(1000,),
        holdout=2000,
        max_length=128,
        eval_every=100,
        max_tokens=32_768,
    ),
    "small": Setting(
        tasks=("mnli", "sst2", "qqp", "qnli"),
        backbone="FacebookAI/roberta-base",
        rounds=30,
        steps=10,
        batch_size=64,
        rates=PAPER_RATES,
        clips=(2.0,),
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        holdout=1000,
        train_limit=20_000,
        eval_limit=1000,
        max_length=128,
        max_tokens=16_384,
    ),
    "smoke": Setting(
        tasks=("entailment", "polarity", "paraphrase", "answerable"),
        backbone="kit/text-tiny",
        rounds=4,
        steps=5,
        batch_size=32,
        rates={"lora": (0.6, 2.0), "ffa-lora": (2.0, 6.0)},
        clips=(1.0,),
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        holdout=300,
        eval_limit=300,
    ),
}


def setting(profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    ``seeds`` is a number (that many, from 0). ``rates`` replaces the grid of both methods. ``epsilons`` takes
    numbers; 0 stands for no DP.

    Raises:
        UnknownName: no such profile, setting or task.
        BadValue: a value that cannot be used.
    """
    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    base = PROFILES[profile]
    known = {f.name for f in dataclasses.fields(Setting)}
    changed: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            raise UnknownName("setting of ffa-lora/table1", name, known)
        if value is not None:
            changed[name] = _override(name, value)
    return dataclasses.replace(base, **changed)


def _override(name: str, value: Any) -> Any:
    if name == "seeds" and isinstance(value, int):
        if value < 1:
            raise BadValue(f"seeds={value}", "give the number of seeds: 1 or more (claims need at least 2)")
        return tuple(range(value))
    if isinstance(value, list) and (not value or len(set(value)) < len(value)):
        raise BadValue(f"{name}={value}", "give at least one value, none of them twice")
    if name == "tasks":
        for task in value:
            if task not in COLUMNS:
                raise UnknownName("task of ffa-lora/table1", task, COLUMNS)
        columns = [column for task in value for column in COLUMNS[task]]
        if len(set(columns)) < len(columns):
            raise BadValue(f"tasks={value}", "a task and its stand-in fill the same column: name one of them")
    if name in {"rates", "clips"} and not all(0 < x < math.inf for x in value):
        raise BadValue(f"{name}={value}", "give finite numbers above 0")
    if name == "epsilons":
        if not all(0 <= e < math.inf for e in value):
            raise BadValue(f"epsilons={value}", "give positive numbers; 0 stands for no DP")
        return tuple(float(e) if e else None for e in value)
    if name == "rates":
        return {method: tuple(value) for method in METHODS}
    return tuple(value) if isinstance(value, list) else value


def eps_name(epsilon: float | None) -> str:
    """The coordinate of a privacy level: "none", "6", "0.5"."""
    return "none" if epsilon is None else f"{epsilon:g}"


def cell(
    s: Setting, task: str, method: str, epsilon: float | None, seed: int, lr: float, clip: float | None
) -> Cell:
    """One run of the table."""
    from fedlora_kit.experiments.spec import RunSpec

    spec = RunSpec.parse(
        {
            "model": {"backbone": s.backbone, "lora": {"rank": s.rank, "alpha": s.alpha, "head": "frozen"}},
            "data": {
                "task": task,
                "max_length": s.max_length,
                "holdout": s.holdout,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
            },
            "split": {
                "partitioner": "label_shares",
                "clients": 3,
                "settings": {"shares": [list(row) for row in SHARES[CLASSES.get(task, 2)]]},
            },
            "method": {"name": method},
            "local": {
                "optimizer": "sgd",
                "lr": lr,
                "steps": s.steps,
                "batch_size": s.batch_size,
                "max_tokens": s.max_tokens,
            },
            "rounds": {"rounds": s.rounds, "eval_every": s.eval_every},
            "privacy": None if epsilon is None else {"epsilon": epsilon, "delta": s.delta, "clip": clip},
            "seed": seed,
        }
    )
    tuned = {"lr": lr, "clip": clip if clip is not None else float("nan")}
    return Cell({"eps": eps_name(epsilon), "method": method, "dataset": task}, tuned, seed, spec)


def grid(s: Setting) -> list[Cell]:
    """Every run of the learning-rate and clipping grids, at the tuning seeds."""
    return [
        cell(s, task, method, epsilon, seed, lr, clip)
        for task in s.tasks
        for epsilon in s.epsilons
        for method in METHODS
        for lr in s.rates[method]
        for clip in (s.clips if epsilon is not None else (None,))
        for seed in s.tuning_seeds
    ]


def table(s: Setting, chosen: pd.DataFrame) -> list[Cell]:
    """The table's own runs: the chosen setting of each cell, at every reported seed.

    Args:
        chosen: from `papers.grid.choose` by ("eps", "method", "dataset").
    """
    best = {(r.eps, r.method, r.dataset): (r.lr, r.clip) for r in chosen.itertuples()}
    cells = []
    for epsilon in s.epsilons:
        for method in METHODS:
            for task in s.tasks:
                lr, clip = best[(eps_name(epsilon), method, task)]
                for seed in s.seeds:
                    clipped = None if epsilon is None else float(clip)  # type: ignore[arg-type]
                    cells.append(cell(s, task, method, epsilon, seed, float(lr), clipped))  # type: ignore[arg-type]
    return cells
