"""What Fed-HeLLo's experiments have in common: methods × splits × resources, on any task that classifies.

Every run is described in full by a setting and a place in the product, so two items that ask for the same
run share it in the store.

Known (SEEN in the released code and its logs): CIFAR-100, ViT-B/16 pre-trained on ImageNet-21k, 100 clients,
10 of them a round, 500 rounds, one AdamW step a round on all of a client's examples (weight decay .01), LoRA
r = alpha = 16 with dropout .1 on query and value, a frozen random head, groups that train 6, 9 and 12 of 12
layers. The learning rate is meant to be .01 · .99^t; the released code stays at .0099 (`methods.defects`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.fed_hello.modes import MODES, RELEASED, constant_rate, released_method
from fedlora_kit.papers.fed_hello.setting import FURTHER_METHODS as FURTHER_METHODS
from fedlora_kit.papers.fed_hello.setting import METHODS as METHODS
from fedlora_kit.papers.fed_hello.setting import PROFILES as PROFILES
from fedlora_kit.papers.fed_hello.setting import RESOURCES as RESOURCES
from fedlora_kit.papers.fed_hello.setting import SCORING_METHODS as SCORING_METHODS
from fedlora_kit.papers.fed_hello.setting import SPLITS as SPLITS
from fedlora_kit.papers.fed_hello.setting import Setting as Setting
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.known_methods import names as known_names
from fedlora_kit.study.known_methods import shares_out
from fedlora_kit.study.overrides import override, plain
from fedlora_kit.study.tasks import fitting, need_classes

if TYPE_CHECKING:
    from fedlora_kit.partition import Partitioner

_COUNTS = {"rounds", "clients", "cohort", "batch_size", "proxy_examples", "train_limit", "eval_limit"}


def setting(item: str, profiles: Mapping[str, Setting], profile: str, **overrides: Any) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    ``seeds`` is a number (that many, from 0).

    Raises:
        UnknownName: no such profile, setting, task, method or split.
        BadValue: a value that cannot be used.
    """
    return override(item, profiles, profile, overrides, lambda name, value: _checked(item, name, value))


def _checked(item: str, name: str, value: Any) -> Any:
    made = plain(name, value)
    if name == "mode" and value not in MODES:
        raise UnknownName(f"mode of {item}", value, MODES)
    if name == "task":
        fitting(item, value)
    if name in {"methods", "splits"}:
        allowed = known_names((*METHODS, *FURTHER_METHODS)) if name == "methods" else SPLITS
        for one in value:
            if one not in allowed:
                raise UnknownName(f"{name.removesuffix('s')} of {item}", one, allowed)
    if name in _COUNTS and value < 1:
        raise BadValue(f"{name}={value}", "give 1 or more")
    if name == "lr" and not 0 < value < math.inf:
        raise BadValue(f"lr={value}", "give a finite number above 0")
    return made


def method_settings(s: Setting, method: str, roc: str, **more: Any) -> dict[str, Any]:
    """The settings of a method under a resource configuration, every one that matters spelled out.

    Args:
        roc: name in `RESOURCES`.
        more: further settings of the method, such as pattern or defects.

    Raises:
        UnknownName: no such resource configuration.
    """
    if roc not in RESOURCES:
        raise UnknownName("resource configuration", roc, RESOURCES)
    kind = shares_out(method)
    if kind is None:
        return dict(more)
    # under Straggler everybody trains what the weakest group can, the same in all configurations: one run
    roc = "1:1:1" if method == "straggler" else roc
    limited = RESOURCES[roc][kind]
    found: dict[str, Any] = {"resources": limited.model_dump(mode="json")}
    if method in SCORING_METHODS:
        found |= {"start": s.refresh, "every": s.refresh, "proxy_examples": s.proxy_examples}
        found |= {"pattern": "bottleneck"}
    return {**found, **more}


def split_settings(s: Setting, split: str) -> dict[str, Any]:
    """A split as a run describes it: {"partitioner", "clients", "settings"}.

    Raises:
        BadValue: a client would hold more classes than the task has.
    """
    if split == "iid":
        return {"partitioner": "iid", "clients": s.clients}
    need_classes(f"split {split}", get_task(s.task), s.classes[split])
    within: dict[str, dict[str, Any]] = {
        "pathological": {"mode": "dirichlet", "beta": 1.0, "min_per_holder": s.min_per_holder},
        "pathological_domains": {"leftovers": "deal"},
    }
    return {
        "partitioner": s.partitioner,
        "clients": s.clients,
        "settings": {"classes_per_client": s.classes[split], **within[s.partitioner]},
    }


def split_partitioner(s: Setting, split: str, seed: int) -> Partitioner:
    """The partitioner of a split, to look at."""
    from fedlora_kit.partition import partitioner

    made = split_settings(s, split)
    return partitioner(
        made["partitioner"], num_clients=made["clients"], seed=seed, **made.get("settings", {})
    )


def cell(
    s: Setting, split: str, roc: str, method: str, seed: int, coords: Mapping[str, str], **more: Any
) -> Cell:
    """One run.

    Args:
        coords: where it stands in its table; the data set is added.
        more: further settings of the method.
    """
    from fedlora_kit.experiments.spec import RunSpec

    lora = {"rank": s.rank, "alpha": s.alpha, "dropout": s.dropout, "targets": ["q", "v"], "head": "frozen"}
    settings = method_settings(s, method, roc, **more)
    lr, lr_decay = s.lr, s.lr_decay
    if s.mode == RELEASED:
        method, settings = released_method(method, settings)
        lr, lr_decay = constant_rate(lr, lr_decay)
    spec = RunSpec.parse(
        {
            "model": {"backbone": s.backbone, "lora": lora},
            "data": {
                "task": s.task,
                "train_limit": s.train_limit,
                "eval_limit": s.eval_limit,
                "augment": s.augment,
                "image_size": s.image_size,
                "max_length": s.max_length,
            },
            "split": split_settings(s, split),
            "method": {"name": method, "settings": settings},
            "local": {
                "optimizer": "adamw",
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": s.weight_decay,
                "steps": 1,
                "batch_size": s.batch_size,
                "max_tokens": s.max_tokens,
            },
            "rounds": {
                "rounds": s.rounds,
                "cohort": s.cohort,
                "eval_every": s.eval_every,
                "eval_max_tokens": 2 * s.max_tokens,
            },
            "seed": seed,
            "precision": s.precision,
        }
    )
    return Cell({**coords, "dataset": s.task}, {}, seed, spec)


def cells(s: Setting, roc: str = "1:1:1") -> list[Cell]:
    """Every run of methods × splits × seeds under a resource configuration."""
    return [
        cell(s, split, roc, method, seed, {"roc": roc, "split": split, "method": method})
        for split in s.splits
        for method in s.methods
        for seed in s.seeds
    ]
