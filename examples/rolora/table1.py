"""RoLoRA, our table 1: LoRA, FFA-LoRA and RoLoRA on the same examples, shared out among ever more clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.study.claims import Claim, mean_difference, smaller_drop
from fedlora_kit.study.equivalence import exact_ratio
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.overrides import departures, override, plain
from fedlora_kit.study.planned import Runs

ITEM = "rolora/table1"


@dataclass(frozen=True)
class Setting:
    """Everything the table needs, for one profile.

    Attributes:
        tasks: tasks trained on, one run each.
        clients: numbers of clients, ascending; all of them train in every round.
        lr: AdamW's learning rate, the same for all methods.
        seeds: reported seeds.
        train_limit, eval_limit: at most so many examples; None for all.
    """

    tasks: tuple[str, ...]
    backbone: str
    clients: tuple[int, ...]
    rounds: int
    steps: int
    batch_size: int
    lr: float
    seeds: tuple[int, ...]
    methods: tuple[str, ...] = ("lora", "ffa-lora", "rolora")
    rank: int = 8
    train_limit: int | None = None
    eval_limit: int | None = None
    max_length: int | None = None
    precision: str = "fp32"


PROFILES = {
    "paper": Setting(
        ("sst2", "qnli", "mnli", "qqp"),
        "FacebookAI/roberta-large",
        clients=(3, 20, 50),
        rounds=100,
        steps=20,
        batch_size=32,
        lr=5e-4,
        seeds=(0, 1, 2, 3, 4),
        max_length=128,
        precision="tf32",
    ),
    "small": Setting(
        ("sst2",),
        "FacebookAI/roberta-base",
        clients=(3, 20, 50),
        rounds=30,
        steps=10,
        batch_size=16,
        lr=5e-4,
        seeds=(0, 1, 2),
        train_limit=10_000,
        eval_limit=800,
        max_length=128,
        precision="tf32",
    ),
    "smoke": Setting(
        ("polarity",),
        "kit/text-tiny",
        clients=(3, 10, 20),
        rounds=6,
        steps=4,
        batch_size=8,
        lr=0.01,
        seeds=(0, 1, 2),
        train_limit=600,
        eval_limit=300,
    ),
}


def setting(profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    Raises:
        UnknownName, BadValue: see `study.overrides.override`.
    """
    return override(ITEM, PROFILES, profile, overrides, plain)


def cells(s: Setting) -> list[Cell]:
    """Every run of the table, in the order of its rows."""
    return [
        Cell(
            {"clients": str(n), "method": name, "dataset": task},
            {"lr": s.lr},
            seed,
            run(s, task, n, name, seed),
        )
        for n in s.clients
        for name in s.methods
        for task in s.tasks
        for seed in s.seeds
    ]


def run(s: Setting, task: str, clients: int, method: str, seed: int) -> RunSpec:
    """One run, described in full."""
    return RunSpec.parse(
        {
            "model": {"backbone": s.backbone, "lora": {"rank": s.rank, "alpha": s.rank, "head": "frozen"}},
            "data": {
                "task": task,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
                "max_length": s.max_length,
            },
            "split": {"partitioner": "iid", "clients": clients},
            "method": {"name": method},
            "local": {"optimizer": "adamw", "lr": s.lr, "steps": s.steps, "batch_size": s.batch_size},
            "rounds": {"rounds": s.rounds, "eval_every": 0},
            "seed": seed,
            "precision": s.precision,
        }
    )


def runs(profile: str, **overrides: Any) -> Runs:
    """The table's runs; all of them are known at once."""
    return Runs(tuple(cells(setting(profile, **overrides))))


def claims(s: Setting) -> list[Claim]:
    """What RoLoRA is for, as predicates over `study.grid.results_frame`."""
    ours, lora, ffa = ({"method": name} for name in ("rolora", "lora", "ffa-lora"))
    few, many = ({"clients": str(n)} for n in (s.clients[0], s.clients[-1]))
    return [
        Claim(
            "half_sent",
            "RoLoRA sends half as many bytes a round as LoRA (counted in the first round, where B is sent)",
            "abstract: communication benefits",
            "SECOND: the direction; the half DERIVED",
            lambda r: exact_ratio(r, "sent_bytes", numerator=ours, denominator=lora, ratio=0.5),
        ),
        *(
            Claim(
                f"above_{name}_many",
                f"with the most clients, RoLoRA is more accurate than {title}",
                "the later version's summary (arXiv 2502.01755)",
                "SECOND: the direction; the numbers are UNKNOWN",
                lambda r, other=other: mean_difference(  # type: ignore[misc]
                    r, "accuracy", better={**ours, **many}, worse={**other, **many}, within=["task"]
                ),
            )
            for name, title, other in (("lora", "LoRA", lora), ("ffa", "FFA-LoRA", ffa))
        ),
        Claim(
            "smaller_drop",
            "from the fewest to the most clients, RoLoRA loses less accuracy than FFA-LoRA",
            "the later version's summary (arXiv 2502.01755)",
            "SECOND: the direction; the numbers are UNKNOWN",
            lambda r: smaller_drop(
                r, "accuracy", better=ours, worse=ffa, before=few, after=many, within=["task"]
            ),
        ),
    ]


def deviations(s: Setting) -> list[str]:
    """Where a run of a setting departs from the paper, and what is not known of it."""
    return [
        *departures(s, PROFILES["paper"]),
        "Known of the paper here: rank 8, 3 clients, no DP, and the names of four tasks. Its model, its "
        "other numbers of clients, rounds, steps, batch, optimiser, rates and head policy are chosen here.",
        "AdamW with one learning rate for all methods, not tuned: another rate may favour another method.",
        "Which factor the paper trains first is not known here; ours is B: while it is zero, A alone has no "
        "gradient.",
        "The examples are the same for any number of clients and shared out evenly, so that more clients "
        "hold fewer each; every client trains in every round.",
        "Which of MNLI's two scored parts the quoted number is of is not known; it stands beside neither.",
    ]
