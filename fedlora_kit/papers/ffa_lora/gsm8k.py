"""FFA-LoRA, section 5.3: LoRA and FFA-LoRA on GSM8K with LLaMA-7B, without DP.

Known of the paper: the model, the data, and two numbers. Everything else is chosen here. The `paper` profile
takes FederatedScope-LLM's own federation for GSM8K (its ``baseline/exp_yaml/gsm/gsm_federate.yaml``):
3 clients, i.i.d., 500 rounds of 30 local steps on one example each, r = 8, alpha = 16, dropout 0.05, Alpaca's
prompt; and the paper's SGD with its grids of learning rates, as that file names no optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.papers import laptop
from fedlora_kit.papers.ffa_lora.grid import METHODS, PAPER_RATES, rates_of
from fedlora_kit.papers.ffa_lora.overrides import checked
from fedlora_kit.study.grid import Cell, choose, results_frame
from fedlora_kit.study.overrides import override, plain
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.tasks import fitting

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished

PUBLISHED_MODEL = "llama-7b"


@dataclass(frozen=True)
class Setting:
    """Everything the table needs, for one profile.

    Attributes:
        tasks: the one task of answers that is trained on.
        methods: the paper's two, or any others that are registered.
        prompt: name of the template around the question (see `data.prompts`).
        max_length, max_new_tokens: tokens of the longest example, and of a generated answer; None takes the
            task's.
        rates: method -> learning rates of the grid.
        seeds: reported seeds; tuning_seeds: seeds of the grid, never reported.
        holdout: training examples set aside for choosing from the grid.
        train_limit, eval_limit: at most so many examples; None for all.
        dtype: number format of the frozen base weights.
        optimizer: of the clients; "sgd" is the paper's.
    """

    tasks: tuple[str, ...]
    backbone: str
    prompt: str
    rounds: int
    steps: int
    batch_size: int
    rates: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    holdout: int
    methods: tuple[str, ...] = METHODS
    clients: int = 3
    train_limit: int | None = None
    eval_limit: int | None = None
    max_length: int | None = None
    max_new_tokens: int | None = None
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    dtype: str = "fp32"
    gradient_checkpointing: bool = False
    load_in_4bit: bool = False
    max_tokens: int = 4096
    eval_max_tokens: int = 16_384
    optimizer: str = "sgd"


_PAPER = Setting(
    tasks=("gsm8k",),
    backbone="huggyllama/llama-7b",
    prompt="alpaca",
    rounds=500,
    steps=30,
    batch_size=1,
    rates=PAPER_RATES,
    seeds=(0, 1, 2),
    tuning_seeds=(1000,),
    holdout=100,
    max_length=1000,
    max_new_tokens=400,
    dtype="bf16",
    eval_max_tokens=32_768,
)
PROFILES: dict[str, Setting] = {
    "paper": _PAPER,
    "small": replace(
        _PAPER,
        backbone="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        rounds=10,
        steps=10,
        batch_size=8,
        holdout=50,
        eval_limit=200,
        max_new_tokens=300,
        eval_max_tokens=16_384,
    ),
    "laptop": Setting(
        tasks=("gsm8k",),
        backbone=laptop.LANGUAGE,
        prompt="plain",
        rounds=4,
        steps=4,
        batch_size=4,
        rates={"lora": (3e-4, 1e-3), "ffa-lora": (3e-4, 1e-3)},
        seeds=laptop.SEEDS,
        tuning_seeds=(1000,),
        holdout=20,
        eval_limit=40,
        max_length=640,
        max_new_tokens=96,
        dropout=0.0,
        optimizer="adamw",
    ),
    "smoke": Setting(
        tasks=("arithmetic",),
        backbone="kit/causal-tiny",
        prompt="plain",
        rounds=5,
        steps=5,
        batch_size=16,
        rates={"lora": (0.1, 0.3), "ffa-lora": (1.0, 3.0)},
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        holdout=100,
        eval_limit=150,
    ),
}


def setting(profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    ``seeds`` is a number (that many, from 0). ``rates`` replaces the grid of all methods. ``tasks`` is a
    list of one task.

    Raises:
        UnknownName: no such profile, setting, task or method.
        BadValue: a value that cannot be used.
    """
    return override("ffa-lora/gsm8k", PROFILES, profile, overrides, _checked)


def _checked(name: str, value: Any) -> Any:
    if name != "tasks":
        return checked("ffa-lora/gsm8k", name, value)
    if len(value) > 1:
        raise BadValue(f"tasks={value}", "the table is of one task: name one of them")
    for task in value:
        fitting("ffa-lora/gsm8k", task, answers=True)
    return plain(name, value)


def cell(s: Setting, method: str, seed: int, lr: float, *, tuning: bool = False) -> Cell:
    """One run of the table; a run of the grid (``tuning``) answers one question of the scored split only."""
    from fedlora_kit.experiments.spec import RunSpec

    spec = RunSpec.parse(
        {
            "model": {
                "backbone": s.backbone,
                "lora": {"rank": s.rank, "alpha": s.alpha, "dropout": s.dropout},
                "dtype": s.dtype,
                "gradient_checkpointing": s.gradient_checkpointing,
                "load_in_4bit": s.load_in_4bit,
            },
            "data": {
                "task": s.tasks[0],
                "prompt": s.prompt,
                "max_length": s.max_length,
                "max_new_tokens": s.max_new_tokens,
                "holdout": s.holdout,
                "train_limit": s.train_limit,
                "eval_limit": 1 if tuning else s.eval_limit,
            },
            "split": {"partitioner": "iid", "clients": s.clients},
            "method": {"name": method},
            "local": {
                "optimizer": s.optimizer,
                "lr": lr,
                "steps": s.steps,
                "batch_size": s.batch_size,
                "max_tokens": s.max_tokens,
            },
            "rounds": {"rounds": s.rounds, "eval_every": 0, "eval_max_tokens": s.eval_max_tokens},
            "seed": seed,
        }
    )
    return Cell({"method": method, "model": model_name(s.backbone)}, {"lr": lr}, seed, spec)


def model_name(backbone: str) -> str:
    """The short name of a backbone: its id without the owner."""
    return backbone.rpartition("/")[2]


def grid(s: Setting) -> list[Cell]:
    """Every run of the learning-rate grids, at the tuning seeds."""
    return [
        cell(s, method, seed, lr, tuning=True)
        for method in s.methods
        for lr in rates_of(s.rates, method)
        for seed in s.tuning_seeds
    ]


def grid_by_loss(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """All of the grid, for `study.grid.choose`: one row a run.

    The score is minus the loss of the held-out answers (nats a token, mean over examples; NaN for a run that
    failed): a small or hardly trained model answers nothing right, but its loss still tells settings apart.
    """
    rows = []
    for at, run in done:
        score = math.nan if run.entry is None else -run.entry.results["scores"]["holdout"]["loss"]
        rows.append({**at.coords, **at.tuned, "seed": at.seed, "key": run.key, "score": score})
    return pd.DataFrame(rows)


def table(s: Setting, chosen: pd.DataFrame) -> list[Cell]:
    """The table's own runs: each method's chosen rate (`study.grid.choose`), at every reported seed."""
    best = {str(row["method"]): float(row["lr"]) for row in chosen.to_dict("records")}
    return [cell(s, method, seed, best[method]) for method in s.methods for seed in s.seeds]


def results(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """`study.grid.results_frame`, and the loss of the scored answers.

    ``accuracy`` is exact match of the final number, %. ``answer_loss``: nats a token of the reference answer,
    mean over examples; ``perplexity`` is its exponential.
    """
    frame = results_frame(done)
    parts = [get_task(at.spec.data.task).parts for at, _ in done]
    losses = [
        math.nan if run.entry is None else run.entry.results["scores"][part]["loss"]
        for (_, run), scored in zip(done, parts, strict=True)
        for part in scored.values()
    ]
    return frame.assign(answer_loss=losses, perplexity=np.exp(np.minimum(losses, 700.0)))


def runs(profile: str, **parameters: Any) -> Runs:
    """The grid's runs, then the table's with the rates that the finished grid chooses."""
    s = setting(profile, **parameters)
    return Runs(tuple(grid(s)), lambda done: table(s, choose(grid_by_loss(done), ["method"], ["lr"])))
