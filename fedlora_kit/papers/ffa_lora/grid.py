"""What FFA-LoRA's tables have in common: LoRA against FFA-LoRA over a product of settings.

Every run is described in full by a setting and a point of the product, so two tables that ask for the same
run share it in the store.

Known of the paper (labels in the notes of the items): RoBERTa-large, q, k, v, o, r = alpha = 8, frozen random
head, 3 clients, B = 200, 1000 rounds of 10 local steps, (DP-)SGD, delta = 1e-5, learning rates and clipping
norms from the grids below, 20 runs. Unknown, and chosen here: sequence length 128, no momentum, no schedule,
the scored split (GLUE's validation), how the best configuration was chosen (here: on examples held out of the
training split), and that the known label shares are those of every table that does not say otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.study.grid import Cell

METHODS = ("lora", "ffa-lora")
#: label shares of the three clients (SEEN; whether the paper calls them mild or severe is unknown)
SHARES = {
    2: ((0.1, 0.9), (0.9, 0.1), (0.5, 0.5)),
    3: ((0.9, 0.05, 0.05), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9)),
}
#: half way from equal shares to the known ones: the level that is not known, the kit's choice
MILD_SHARES = {
    2: ((0.3, 0.7), (0.7, 0.3), (0.5, 0.5)),
    3: ((0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6)),
}
SPLITS: dict[str, Mapping[int, tuple[tuple[float, ...], ...]] | None] = {
    "iid": None,
    "mild": MILD_SHARES,
    "severe": SHARES,
}
#: real task -> the built-in task that stands in for it in the smoke profile
STAND_INS = {"mnli": "entailment", "sst2": "polarity", "qqp": "paraphrase", "qnli": "answerable"}

PAPER_RATES = {"lora": (0.01, 0.02, 0.05, 0.1), "ffa-lora": (0.1, 0.2, 0.5, 1.0)}
PAPER_CLIPS = (2.0, 5.0, 10.0)
AXES = ("eps", "split", "rank", "alpha", "init", "method")


@dataclass(frozen=True)
class Setting:
    """Everything a table needs, for one profile.

    Attributes:
        tasks: tasks trained on, one run each (MNLI's run fills two columns).
        rates: method -> learning rates of the grid; see `rates_of` for a method without an entry.
        clips: clipping norms of the grid (under DP only).
        seeds: reported seeds; tuning_seeds: seeds of the grid, never reported.
        holdout: training examples set aside for choosing from the grid.
        train_limit, eval_limit: at most so many examples; None for all.
        epsilons: None stands for no DP.
        splits: names in `SPLITS`. ranks: LoRA's r. alphas: LoRA's alpha; None stands for alpha = r.
        inits: starts of A (see `models.init_of_a`).
        precision: of the model's passes (see `training.precision`).
        head_scale: standard deviation of the frozen head; None is the model's own (see `ModelSpec`).
        private: what runs under DP have in place of the above, such as tasks or batch_size (see `under`).
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
    epsilons: tuple[float | None, ...] = (None,)
    delta: float = 1e-5
    splits: tuple[str, ...] = ("severe",)
    ranks: tuple[int, ...] = (8,)
    alphas: tuple[float | None, ...] = (8.0,)
    inits: tuple[str, ...] = ("kaiming",)
    methods: tuple[str, ...] = METHODS
    eval_every: int = 0
    max_tokens: int = 4096
    precision: str = "fp32"
    head_scale: float | None = None
    private: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One place of a table: all that its runs have in common besides learning rate, clip and seed."""

    task: str
    epsilon: float | None
    split: str
    rank: int
    alpha: float
    init: str
    method: str

    def coords(self) -> dict[str, str]:
        """Every coordinate, as text."""
        return {
            "eps": number_name(self.epsilon),
            "split": self.split,
            "rank": str(self.rank),
            "alpha": number_name(self.alpha),
            "init": self.init,
            "method": self.method,
        }


def rates_of(rates: Mapping[str, tuple[float, ...]], method: str) -> tuple[float, ...]:
    """Learning rates of a method's grid; LoRA's for one that has none of its own."""
    return rates[method if method in rates else "lora"]


def number_name(value: float | None) -> str:
    """A number as a coordinate: "none", "6", "0.5"."""
    return "none" if value is None else f"{value:g}"


def points(s: Setting) -> list[Point]:
    """The product of the setting's coordinates, in the order of the table's rows; tasks vary fastest."""
    return [
        Point(task, epsilon, split, rank, float(rank) if alpha is None else alpha, init, method)
        for epsilon in s.epsilons
        for split, rank, alpha, init, method, task in itertools.product(
            s.splits, s.ranks, s.alphas, s.inits, s.methods, under(s, epsilon).tasks
        )
    ]


def under(s: Setting, epsilon: float | None) -> Setting:
    """The setting of the runs at a privacy level: ``s``, and under DP with what ``s.private`` replaces."""
    return s if epsilon is None else replace(s, **s.private)


def cell(
    s: Setting, at: Point, seed: int, lr: float, clip: float | None, axes: tuple[str, ...] = AXES
) -> Cell:
    """One run of a table; its coordinates are ``axes`` and the data set."""
    from fedlora_kit.experiments.spec import RunSpec

    s, shares = under(s, at.epsilon), shares_of(at.task, at.split)
    spec = RunSpec.parse(
        {
            "model": {
                "backbone": s.backbone,
                "head_scale": s.head_scale,
                "lora": {"rank": at.rank, "alpha": at.alpha, "init": at.init, "head": "frozen"},
            },
            "data": {
                "task": at.task,
                "max_length": s.max_length,
                "holdout": s.holdout,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
            },
            "split": {"partitioner": "iid", "clients": 3}
            if shares is None
            else {
                "partitioner": "label_shares",
                "clients": 3,
                "settings": {"shares": [list(row) for row in shares]},
            },
            "method": {"name": at.method},
            "local": {
                "optimizer": "sgd",
                "lr": lr,
                "steps": s.steps,
                "batch_size": s.batch_size,
                "max_tokens": s.max_tokens,
            },
            "rounds": {"rounds": s.rounds, "eval_every": s.eval_every},
            "privacy": None
            if at.epsilon is None
            else {"epsilon": at.epsilon, "delta": s.delta, "clip": clip},
            "seed": seed,
            "precision": s.precision,
        }
    )
    tuned = {"lr": lr, "clip": clip if clip is not None else float("nan")}
    coords = {name: text for name, text in at.coords().items() if name in axes}
    return Cell({**coords, "dataset": at.task}, tuned, seed, spec)


def shares_of(task: str, split: str) -> tuple[tuple[float, ...], ...] | None:
    """Label shares of the three clients, one row each; None for equal random thirds.

    Raises:
        BadValue: they are not known for the task's number of classes.
    """
    shares, classes = SPLITS[split], get_task(task).num_labels
    if shares is None:
        return None
    if classes not in shares:
        raise BadValue(
            f"task {task!r} has {classes} classes, and FFA-LoRA's label shares are known for 2 and 3",
            "name a task of 2 or 3 classes, or splits=iid where the table has that setting",
        )
    return shares[classes]


def as_published(results: pd.DataFrame) -> pd.DataFrame:
    """`study.grid.results_frame`, with the parts of stand-ins called as those of the tasks they stand for."""
    names = {
        ours: theirs
        for real, stand_in in STAND_INS.items()
        for ours, theirs in zip(get_task(stand_in).parts, get_task(real).parts, strict=True)
    }
    return results.assign(task=results["task"].replace(names))
