"""What FedLoRA-Optimizer's items are run with: one setting a profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.papers import laptop
from fedlora_kit.papers.published import published
from fedlora_kit.study import overrides
from fedlora_kit.study.tasks import fitting, need_classes


@dataclass(frozen=True)
class Setting:
    """One profile's size: one category a client.

    Attributes:
        task: a causal task with categories.
        rank, alpha, targets: of the adapter.
        lr: of AdamW, for the local training and (unless a method says otherwise) its stages.
        steps, batch_size: of a client and round.
        seeds: reported seeds.
        server_examples: set aside at the server, for all methods.
        client_holdout: share of a client's examples that score its own adapter.
    """

    task: str
    backbone: str
    rounds: int
    steps: int
    batch_size: int
    lr: float
    seeds: tuple[int, ...]
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q", "v")
    dtype: str = "fp32"
    gradient_checkpointing: bool = False
    server_examples: int = 64
    client_holdout: float = 0.1
    train_limit: int | None = None
    eval_limit: int | None = None
    max_length: int | None = None
    max_new_tokens: int | None = None

    @property
    def clients(self) -> int:
        """As many as the task has categories."""
        return get_task(self.task).num_labels


_PAPER = Setting(
    task="dolly",
    backbone="meta-llama/Llama-2-7b-hf",
    rounds=20,
    steps=20,
    batch_size=16,
    lr=3e-4,
    seeds=(0, 1, 2),
    dtype="bf16",
    gradient_checkpointing=True,
    server_examples=160,
    eval_limit=400,
)
#: what the profile `laptop` of all items has in common
LAPTOP: dict[str, Any] = {
    "rounds": 2,
    "batch_size": 2,
    "lr": 1e-3,
    "seeds": laptop.SEEDS,
    "server_examples": 16,
    "client_holdout": 0.02,
    "train_limit": 1500,
    "eval_limit": 16,
    "max_length": 256,
    "max_new_tokens": 16,
}
#: profile -> setting; rate, rank, alpha and targets of the paper's profile are those of its neighbours
PROFILES: dict[str, Setting] = {
    "paper": _PAPER,
    "small": replace(
        _PAPER,
        backbone="TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        rounds=5,
        steps=10,
        batch_size=8,
        server_examples=64,
        train_limit=3000,
        eval_limit=80,
        max_length=512,
    ),
    "laptop": Setting(
        task="dolly",
        backbone=laptop.LANGUAGE,
        steps=1,
        **LAPTOP,
    ),
    "smoke": Setting(
        task="instructions",
        backbone="kit/instruct-tiny",
        rounds=2,
        steps=10,
        batch_size=16,
        lr=5e-3,
        seeds=(0, 1, 2),
        eval_limit=40,
    ),
}


def setting(item: str, profile: str, **changes: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    Raises:
        UnknownName, BadValue: see `study.overrides`.
    """
    return overrides.override(item, PROFILES, profile, changes, _checked)


def _checked(name: str, value: Any) -> Any:
    value = overrides.plain(name, value)
    if name == "task":
        need_classes("one category a client", fitting("FedLoRA-Optimizer", value, answers=True), 1)
    if name in {"rounds", "steps", "batch_size"} and not (isinstance(value, int) and value >= 1):
        raise BadValue(f"{name}={value!r}", "give an integer of at least 1")
    if name == "lr":
        overrides.positive(name, (value,))
    return value


def spec(s: Setting, method: str, seed: int, **settings: Any) -> RunSpec:
    """One run: a method with its settings, one category a client.

    Raises:
        UnknownName, BadValue: see `RunSpec.parse`.
    """
    return RunSpec.parse(
        {
            "model": {
                "backbone": s.backbone,
                "dtype": s.dtype,
                "gradient_checkpointing": s.gradient_checkpointing,
                "lora": {"rank": s.rank, "alpha": s.alpha, "targets": list(s.targets)},
            },
            "data": {
                "task": s.task,
                "server_examples": s.server_examples,
                "client_holdout": s.client_holdout,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
                "max_length": s.max_length,
                "max_new_tokens": s.max_new_tokens,
            },
            "split": {"partitioner": "by_group", "clients": s.clients},
            "method": {"name": method, "settings": settings},
            "local": {"optimizer": "adamw", "lr": s.lr, "steps": s.steps, "batch_size": s.batch_size},
            "rounds": {"rounds": s.rounds, "eval_every": 0},
            "seed": seed,
        }
    )


def published_gain(item: str) -> float:
    """The gain that the abstract states for an item ("global", "local"), %; of which metric is not known."""
    rows = published("fedlora-optimizer", item)
    return float(rows.loc[rows["cell"] == "gain over baseline", "value"].iloc[0])


def deviations(s: Setting) -> list[str]:
    """What of the setting is the kit's, or a neighbour's."""
    return [
        "The paper fine-tunes LLaMA2-7B and DeepSeek-7B on Databricks-Dolly-15k and Natural Instructions; "
        f"here it is {s.backbone} on {s.task}, one category a client. The paper's split, rank, α, targets, "
        f"rates, steps and rounds are not known. Here: {s.clients} clients, rank {s.rank}, α {s.alpha:g} on "
        f"{', '.join(s.targets)}, AdamW at {s.lr:g}, {s.steps} steps of {s.batch_size} examples a round, "
        f"{s.rounds} rounds.",
    ]
