"""FedLoRA-Optimizer's two tables: data sets × models × methods, by the global adapter and by the clients'.

Both items score the same runs: the global adapter on all tasks' test part, each client's own adapter on
examples of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import METHODS
from fedlora_kit.models.names import backbone
from fedlora_kit.papers import laptop
from fedlora_kit.papers.fedlora_optimizer import setting as flo_setting
from fedlora_kit.study import known_methods, overrides
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.tasks import fitting, need_classes

if TYPE_CHECKING:
    pass

OURS, BASELINE = "fedlora-optimizer", "lora"
MORE_STEPS, NO_GLOBAL = "lora-equal-steps", "no-global-optimizer"
#: row of the tables -> (method, its settings)
VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    BASELINE: ("lora", {}),
    MORE_STEPS: ("lora", {}),
    "dora": ("lora", {}),
    "ffa-lora": ("ffa-lora", {}),
    "fedsa-lora": ("fedsa-lora", {}),
    "ditto": ("ditto", {}),
    "local-only": ("local-only", {}),
    NO_GLOBAL: ("fedlora-optimizer", {"global_trains": None}),
    OURS: ("fedlora-optimizer", {}),
}
WORDS = {
    BASELINE: "FedIT: LoRA, averaged",
    MORE_STEPS: "FedIT with at least as many steps in all as FedLoRA-Optimizer takes",
    "dora": "DoRA, averaged",
    "ffa-lora": "FFA-LoRA: A frozen",
    "fedsa-lora": "FedSA-LoRA: A shared, B stays with its client",
    "ditto": "Ditto: a global adapter, and one of each client's own (in place of FedDPA)",
    "local-only": "every client alone",
    NO_GLOBAL: "FedLoRA-Optimizer without its global optimiser",
    OURS: "FedLoRA-Optimizer",
}
#: split -> categories that a client holds
SPLITS = {"cat_1": 1, "cat_2": 2}
#: metric of the tables -> (column of the results, decimals); the first one is shown first
METRICS = {"ROUGE-L": ("rouge_l", 2), "exact match": ("accuracy", 2), "loss": ("loss", 3)}


@dataclass(frozen=True)
class Setting:
    """One profile's size: tasks × splits × backbones × methods × seeds.

    Attributes:
        tasks: causal tasks with categories; there are as many clients as categories.
        splits: of `SPLITS`.
        methods: of `VARIANTS`, or any registered one by its name.
        prompt, max_new_tokens: see `experiments.spec.DataSpec`. Others: see `setting.Setting`.
    """

    tasks: tuple[str, ...]
    splits: tuple[str, ...]
    backbones: tuple[str, ...]
    rounds: int
    steps: int
    batch_size: int
    lr: float
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = tuple(VARIANTS)
    rank: int = 8
    alpha: float = 16.0
    dtype: str = "fp32"
    gradient_checkpointing: bool = False
    server_examples: int = 64
    client_holdout: float = 0.1
    train_limit: int | None = None
    eval_limit: int | None = None
    max_length: int | None = None
    prompt: str | None = None
    max_new_tokens: int | None = None


_PAPER = Setting(
    tasks=("dolly", "natural_instructions"),
    splits=("cat_1",),
    backbones=("meta-llama/Llama-2-7b-hf", "deepseek-ai/deepseek-llm-7b-base"),
    rounds=20,
    steps=20,
    batch_size=16,
    lr=3e-4,
    dtype="bf16",
    gradient_checkpointing=True,
    server_examples=160,
    eval_limit=400,
)
#: profile -> setting; what the paper does not say is as in `setting`
PROFILES: dict[str, Setting] = {
    "paper": _PAPER,
    "small": replace(
        _PAPER,
        backbones=("TinyLlama/TinyLlama-1.1B-Chat-v1.0",),
        rounds=10,
        steps=10,
        batch_size=8,
        server_examples=64,
        train_limit=3000,
        eval_limit=200,
        max_length=512,
    ),
    "laptop": Setting(
        tasks=("dolly",),
        splits=("cat_1",),
        backbones=(laptop.LANGUAGE,),
        methods=(BASELINE, MORE_STEPS, "fedsa-lora", "ditto", "local-only", NO_GLOBAL, OURS),
        steps=2,
        **flo_setting.LAPTOP,
    ),
    "smoke": Setting(
        tasks=("instructions",),
        splits=("cat_1", "cat_2"),
        backbones=("kit/instruct-tiny",),
        methods=(BASELINE, MORE_STEPS, "fedsa-lora", "ditto", "local-only", NO_GLOBAL, OURS),
        rounds=2,
        steps=4,
        batch_size=8,
        lr=5e-3,
        train_limit=400,
        eval_limit=24,
    ),
}


def setting(item: str, profile: str, **changes: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    Args:
        item: "fedlora-optimizer/global" or "fedlora-optimizer/local", for the messages.

    Raises:
        UnknownName: no such profile, setting, task, split, model or method.
        BadValue: a value that cannot be used.
    """
    return overrides.override(item, PROFILES, profile, changes, lambda n, v: _checked(item, n, v))


def _checked(item: str, name: str, value: Any) -> Any:
    made = overrides.plain(name, value)
    for task in made if name == "tasks" else ():
        fitting(item, task, answers=True, rouge=True)
    allowed = {"splits": tuple(SPLITS), "methods": known_methods.names(VARIANTS)}
    for one in made if name in allowed else ():
        if one not in allowed[name]:
            raise UnknownName(f"{name.removesuffix('s')} of {item}", one, allowed[name])
    if name == "backbones":
        for one in made:
            backbone(one)
    if isinstance(made, int) and not isinstance(made, bool) and made < 1:
        raise BadValue(f"{name}={made}", "give 1 or more")
    if name == "lr":
        overrides.positive(name, (made,))
    if name == "client_holdout" and not 0 < made < 1:
        raise BadValue(
            f"client_holdout={made}", "give a share above 0 and below 1: it scores the own adapters"
        )
    return made


def equal_steps(s: Setting, clients: int) -> int:
    """Local steps a round with which FedIT takes at least as many in all as FedLoRA-Optimizer.

    That one adds ``steps`` at the server in every round, and ``steps`` at every client after the last round;
    rounded up.
    """
    return math.ceil(s.steps * (1 + 1 / clients + 1 / s.rounds))


def cell(s: Setting, task: str, split: str, model: str, method: str, seed: int) -> Cell:
    """One run."""
    clients = get_task(task).num_labels
    need_classes(f"split {split}", get_task(task), SPLITS[split])
    base = flo_setting.Setting(
        task=task,
        backbone=model,
        rounds=s.rounds,
        steps=equal_steps(s, clients) if method == MORE_STEPS else s.steps,
        batch_size=s.batch_size,
        lr=s.lr,
        seeds=s.seeds,
        rank=s.rank,
        alpha=s.alpha,
        dtype=s.dtype,
        gradient_checkpointing=s.gradient_checkpointing,
        server_examples=s.server_examples,
        client_holdout=s.client_holdout,
        train_limit=s.train_limit,
        eval_limit=s.eval_limit,
        max_length=s.max_length,
    )
    name, given = VARIANTS.get(method, (method, {}))
    made = flo_setting.spec(base, name, seed, **given).model_dump(mode="json")
    made["data"] |= {"prompt": s.prompt, "max_new_tokens": s.max_new_tokens}
    if SPLITS[split] > 1:
        held = {"classes_per_client": SPLITS[split]}
        made["split"] = {"partitioner": "pathological", "clients": clients, "settings": held}
    if method == "dora":
        made["model"]["lora"]["use_dora"] = True
    coords = {"split": split, "model": model, "method": method}
    return Cell(coords, {}, seed, RunSpec.parse(made))


def cells(s: Setting) -> list[Cell]:
    """Every run of tasks × splits × backbones × methods × seeds."""
    return [
        cell(s, task, split, model, method, seed)
        for task in s.tasks
        for split in s.splits
        for model in s.backbones
        for method in s.methods
        for seed in s.seeds
    ]


def has_global(method: str) -> bool:
    """Whether a row of the tables has a global adapter: not if LoRA, or part of it, stays at the clients."""
    return METHODS[VARIANTS.get(method, (method,))[0]].one_global


def runs(profile: str, item: str, **parameters: Any) -> Runs:
    """Data sets × models × methods × seeds; global and local score the same runs."""
    return Runs(tuple(cells(setting(item, profile, **parameters))))
