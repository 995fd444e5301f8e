"""Parameters of a notebook over the setting of a profile, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods import METHODS
from fedlora_kit.papers.ffa_lora.grid import METHODS as PAPER_METHODS
from fedlora_kit.papers.ffa_lora.grid import SPLITS, STAND_INS, Setting
from fedlora_kit.study.overrides import override, plain, positive
from fedlora_kit.study.tasks import fitting


def apply(item: str, profiles: Mapping[str, Setting], profile: str, overrides: Mapping[str, Any]) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    ``seeds`` is a number (that many, from 0). ``rates`` replaces the grid of all methods. ``epsilons`` takes
    numbers; 0 stands for no DP.

    Raises:
        UnknownName: no such profile, setting or task.
        BadValue: a value that cannot be used.
    """
    return override(item, profiles, profile, overrides, lambda name, value: checked(item, name, value))


def checked(item: str, name: str, value: Any) -> Any:
    """One value as the setting holds it (a list becomes a tuple).

    Raises:
        UnknownName, BadValue: see `apply`.
    """
    made = plain(name, value)
    if name == "tasks":
        for task in value:
            fitting(item, task)
        if any(STAND_INS.get(task) in value for task in value):
            raise BadValue(f"tasks={value}", "a task and its stand-in share a published number: name one")
    if name == "methods":
        for method in value:
            if method not in METHODS:
                raise UnknownName(f"method of {item}", method, METHODS)
    if name == "splits":
        for split in value:
            if split not in SPLITS:
                raise UnknownName(f"split of {item}", split, SPLITS)
    if name == "holdout" and value < 1:
        raise BadValue(f"holdout={value}", "give 1 or more: the grid is chosen on them")
    if name in {"rates", "clips", "alphas", "ranks", "local_steps"}:
        positive(name, made)
    if name in {"ranks", "local_steps"} and not all(isinstance(x, int) for x in value):
        raise BadValue(f"{name}={value}", "give whole numbers")
    return dict.fromkeys(PAPER_METHODS, made) if name == "rates" else made
