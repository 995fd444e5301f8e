"""Parameters of a notebook over the setting of a profile, checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.ffa_grid import COLUMNS, SPLITS, Setting


def apply(item: str, profiles: Mapping[str, Setting], profile: str, overrides: Mapping[str, Any]) -> Setting:
    """The setting of a profile, with some values replaced (those that are not None).

    ``seeds`` is a number (that many, from 0). ``rates`` replaces the grid of all methods. ``epsilons`` takes
    numbers; 0 stands for no DP.

    Raises:
        UnknownName: no such profile, setting or task.
        BadValue: a value that cannot be used.
    """
    if profile not in profiles:
        raise UnknownName("profile", profile, profiles)
    known = {f.name for f in dataclasses.fields(Setting)}
    changed: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            raise UnknownName(f"setting of {item}", name, known)
        if value is not None:
            changed[name] = checked(item, profiles[profile], name, value)
    return dataclasses.replace(profiles[profile], **changed)


def checked(item: str, base: Setting, name: str, value: Any) -> Any:
    """One value as the setting holds it (a list becomes a tuple).

    Raises:
        UnknownName, BadValue: see `apply`.
    """
    if name == "seeds" and isinstance(value, int):
        if value < 1:
            raise BadValue(f"seeds={value}", "give the number of seeds: 1 or more (claims need at least 2)")
        return tuple(range(value))
    if isinstance(value, list) and (not value or len(set(value)) < len(value)):
        raise BadValue(f"{name}={value}", "give at least one value, none of them twice")
    if name == "tasks":
        for task in value:
            if task not in COLUMNS:
                raise UnknownName(f"task of {item}", task, COLUMNS)
        columns = [column for task in value for column in COLUMNS[task]]
        if len(set(columns)) < len(columns):
            raise BadValue(f"tasks={value}", "a task and its stand-in fill the same column: name one of them")
    if name == "splits":
        for split in value:
            if split not in SPLITS:
                raise UnknownName(f"split of {item}", split, SPLITS)
    if name in {"rates", "clips", "alphas", "ranks", "local_steps"} and not all(
        0 < x < math.inf for x in value
    ):
        raise BadValue(f"{name}={value}", "give finite numbers above 0")
    if name in {"ranks", "local_steps"} and not all(isinstance(x, int) for x in value):
        raise BadValue(f"{name}={value}", "give whole numbers")
    if name == "epsilons":
        if not all(0 <= e < math.inf for e in value):
            raise BadValue(f"epsilons={value}", "give positive numbers; 0 stands for no DP")
        return tuple(float(e) if e else None for e in value)
    if name == "rates":
        return {method: tuple(value) for method in base.methods}
    return tuple(value) if isinstance(value, list) else value
