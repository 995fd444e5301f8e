"""FFA-LoRA on images: a ViT on Food-101, "performs similarly".

Known of the paper: a ViT on Food-101, LoRA and FFA-LoRA, and that they perform similarly. No number, and
nothing of the setting, is known. Taken from the paper's Table 1: 3 clients, r = alpha = 8 on q, k, v, o, a
frozen random head, B = 200, 10 local steps of (DP-)SGD, the learning-rate grids. Chosen here: ViT-B/16
pre-trained on ImageNet-21k, equal random thirds, 200 rounds, random cuts and mirroring, epsilon = 6 beside
no privacy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from fedlora_kit.papers import laptop
from fedlora_kit.papers.ffa_lora.claims import half_claims
from fedlora_kit.papers.ffa_lora.grid import METHODS, PAPER_RATES, number_name, rates_of
from fedlora_kit.papers.ffa_lora.overrides import checked
from fedlora_kit.study.claims import Claim
from fedlora_kit.study.equivalence import within_margin
from fedlora_kit.study.grid import Cell, choose, grid_frame
from fedlora_kit.study.number_formats import precision_note
from fedlora_kit.study.overrides import override
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.tasks import fitting

#: "similarly", in points of accuracy; the paper gives no figure: declared here, before any run
MARGIN = 2.0


@dataclass(frozen=True)
class Setting:
    """Everything the item needs, for one profile.

    Attributes:
        epsilons: None stands for no DP.
        methods: the paper's two, or any others that are registered.
        rates: method -> learning rates of the grid; LoRA's for one that has none of its own.
        clip: clipping norm (under DP only).
        augment: random views of the training images (see `data.image_ops`).
        seeds: reported seeds; tuning_seeds: seeds of the grid, never reported.
        holdout: training examples set aside for choosing from the grid.
        train_limit, eval_limit: at most so many examples; None for all.
        max_tokens: image patches a physical batch.
        precision: of the model's passes (see `training.precision`).
        head_scale: see `grid.Setting`; image_size: see `experiments.spec.DataSpec`.
    """

    task: str
    backbone: str
    rounds: int
    steps: int
    batch_size: int
    rates: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    holdout: int
    augment: str
    clip: float = 2.0
    methods: tuple[str, ...] = METHODS
    train_limit: int | None = None
    eval_limit: int | None = None
    epsilons: tuple[float | None, ...] = (None, 6.0)
    delta: float = 1e-5
    clients: int = 3
    rank: int = 8
    alpha: float = 8.0
    eval_every: int = 0
    max_tokens: int = 4096
    precision: str = "fp32"
    head_scale: float | None = None
    image_size: int | None = None


_PAPER = Setting(
    task="food101",
    backbone="google/vit-base-patch16-224-in21k",
    precision="tf32",
    rounds=200,
    steps=10,
    batch_size=200,
    rates=PAPER_RATES,
    seeds=tuple(range(5)),
    tuning_seeds=(1000,),
    holdout=2000,
    augment="zoom_flip",
    eval_every=20,
    max_tokens=40_000,
)
PROFILES: dict[str, Setting] = {
    "paper": _PAPER,
    "small": replace(
        _PAPER,
        task="cifar100",
        rounds=20,
        batch_size=64,
        seeds=(0, 1, 2),
        holdout=1000,
        augment="crop_flip",
        eval_limit=2000,
        eval_every=0,
        max_tokens=13_000,
    ),
    "laptop": Setting(
        task="cifar100",
        backbone=laptop.IMAGE,
        rounds=5,
        steps=10,
        batch_size=16,
        rates=laptop.RATES,
        seeds=laptop.SEEDS,
        tuning_seeds=(1000,),
        holdout=400,
        augment="crop_flip",
        eval_limit=1000,
        image_size=56,
        head_scale=laptop.HEAD_SCALE,
    ),
    "smoke": Setting(
        task="digits",
        backbone="kit/image-tiny",
        rounds=10,
        steps=5,
        batch_size=32,
        rates={"lora": (0.1, 0.3, 1.0), "ffa-lora": (0.3, 1.0, 3.0)},
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        holdout=97,
        augment="none",
        clip=1.0,
    ),
}


def setting(profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    ``seeds`` is a number (that many, from 0). ``rates`` replaces the grid of all methods. ``epsilons`` takes
    numbers; 0 stands for no DP.

    Raises:
        UnknownName: no such profile, setting, task or method.
        BadValue: a value that cannot be used.
    """
    return override("ffa-lora/food101", PROFILES, profile, overrides, _checked)


def _checked(name: str, value: Any) -> Any:
    if name == "task":
        fitting("ffa-lora/food101", value)
    return checked("ffa-lora/food101", name, value)


def cell(s: Setting, method: str, epsilon: float | None, seed: int, lr: float) -> Cell:
    """One run of the table."""
    from fedlora_kit.experiments.spec import RunSpec

    spec = RunSpec.parse(
        {
            "model": {
                "backbone": s.backbone,
                "head_scale": s.head_scale,
                "lora": {"rank": s.rank, "alpha": s.alpha, "head": "frozen"},
            },
            "data": {
                "task": s.task,
                "holdout": s.holdout,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
                "augment": s.augment,
                "image_size": s.image_size,
            },
            "split": {"partitioner": "iid", "clients": s.clients},
            "method": {"name": method},
            "local": {
                "optimizer": "sgd",
                "lr": lr,
                "steps": s.steps,
                "batch_size": s.batch_size,
                "max_tokens": s.max_tokens,
            },
            "rounds": {"rounds": s.rounds, "eval_every": s.eval_every, "eval_max_tokens": 2 * s.max_tokens},
            "privacy": None if epsilon is None else {"epsilon": epsilon, "delta": s.delta, "clip": s.clip},
            "seed": seed,
            "precision": s.precision,
        }
    )
    return Cell({"eps": number_name(epsilon), "method": method, "dataset": s.task}, {"lr": lr}, seed, spec)


def grid(s: Setting) -> list[Cell]:
    """Every run of the learning-rate grids, at the tuning seeds."""
    return [
        cell(s, method, epsilon, seed, lr)
        for epsilon in s.epsilons
        for method in s.methods
        for lr in rates_of(s.rates, method)
        for seed in s.tuning_seeds
    ]


def table(s: Setting, chosen: pd.DataFrame) -> list[Cell]:
    """The table's own runs: the chosen learning rate of each cell, at every reported seed.

    Args:
        chosen: from `study.grid.choose` by ("eps", "method").
    """
    best = {(r.eps, r.method): r.lr for r in chosen.itertuples()}
    return [
        cell(s, method, epsilon, seed, float(best[(number_name(epsilon), method)]))  # type: ignore[arg-type]
        for epsilon in s.epsilons
        for method in s.methods
        for seed in s.seeds
    ]


def claims(s: Setting) -> list[Claim]:
    """What the paper says of images, as predicates over `study.grid.results_frame`."""
    lora, ffa = {"method": "lora"}, {"method": "ffa-lora"}
    found = half_claims(["eps", "task"])
    for epsilon in s.epsilons:
        name = number_name(epsilon)
        words = "without DP" if epsilon is None else f"at epsilon = {name}"
        found.append(
            Claim(
                f"similar_eps{name}",
                f"{words}, FFA-LoRA performs similarly to LoRA (within {MARGIN:g} points of accuracy)",
                "section 5.3 or appendix",
                "existence SEEN; the margin, and whether it was said of DP, are ours",
                lambda r, e=name: within_margin(  # type: ignore[misc]
                    r,
                    "accuracy",
                    one={**ffa, "eps": e},
                    other={**lora, "eps": e},
                    margin=MARGIN,
                    within=["task"],
                ),
            )
        )
    return found


def deviations(profile: str, s: Setting) -> list[str]:
    """Where a run of this setting departs from the paper, and what the paper leaves unknown."""
    lines = [
        "Unknown in the paper, and therefore not comparable in any profile: all its numbers, the ViT, the "
        "clients' split, rounds, batch, learning rates, augmentation, and whether there was DP.",
        "Taken over from Table 1: 3 clients, r = α = 8 on q, k, v, o, frozen random head, SGD, δ = 1e-5. "
        "Chosen here: learning rates "
        + "; ".join(
            f"{method} {', '.join(f'{x:g}' for x in rates_of(s.rates, method))}" for method in s.methods
        )
        + ", equal random thirds, "
        f"{s.rounds} rounds of {s.steps} steps at B = {s.batch_size}, views of training images: {s.augment}, "
        f"clipping norm {s.clip:g}.",
        f"“Similarly” is judged as: the interval of the paired difference is within ±{MARGIN:g} points "
        "of accuracy. The margin is ours, declared before any run.",
        "The learning rate is chosen on held-out training examples at a tuning seed; the runs of the grid "
        "use the same private examples, and their privacy is not accounted for.",
        *precision_note(s.precision, private=True),
    ]
    if profile == "paper" and s == PROFILES["paper"]:
        return lines
    first = [f"Task {s.task} and backbone {s.backbone}: not Food-101 with a ViT of the paper's kind."]
    if s.task == "digits":
        first = [
            "Smoke profile: 8 × 8 grey digits turned by a quarter stand in for Food-101, on the kit's own "
            "small ViT; no picture is resized, cut or mirrored in the runs (a mirrored digit is no digit)."
        ]
    return [*first, *lines]


def runs(profile: str, **parameters: Any) -> Runs:
    """The grid's runs, then the table's with the rates that the finished grid chooses."""
    s = setting(profile, **parameters)
    return Runs(
        tuple(grid(s)),
        lambda done: table(s, choose(grid_frame(done), ["eps", "method"], ["lr"])),
    )
