"""Parameters of a notebook over the setting of a profile: what every item asks of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from fedlora_kit import mirror
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.randomness import checked_seed, checked_seeds

S = TypeVar("S")


def override(
    item: str,
    profiles: Mapping[str, S],
    profile: str,
    overrides: Mapping[str, Any],
    checked: Callable[[str, Any], Any],
) -> S:
    """The setting of a profile, with some values replaced (those that are not None).

    Args:
        item: id of the item, for the messages.
        profiles: profile -> setting, a frozen dataclass.
        checked: name and value -> the value as the setting holds it; raises for one that cannot be used.

    Raises:
        UnknownName: no such profile or setting.
        BadValue: one text where several values are expected.
    """
    if profile not in profiles:
        raise UnknownName("profile", profile, profiles)
    base: Any = profiles[profile]
    known = {f.name for f in dataclasses.fields(base)}
    changed: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            raise UnknownName(f"setting of {item}", name, known)
        if isinstance(getattr(base, name), tuple):
            not_text(name, value)
        if value is not None:
            changed[name] = checked(name, value)
    made: S = dataclasses.replace(base, **{**_stand_ins(base), **changed})
    return made


def _stand_ins(setting: Any) -> dict[str, Any]:
    """The models of a profile for which the mirror names others (see `mirror.stand_in`)."""
    found: dict[str, Any] = {}
    if isinstance(getattr(setting, "backbone", None), str):
        found["backbone"] = mirror.stand_in(setting.backbone)
    if hasattr(setting, "backbones"):
        found["backbones"] = tuple(dict.fromkeys(map(mirror.stand_in, setting.backbones)))
    return found


def plain(name: str, value: Any) -> Any:
    """A value as a setting holds it: ``seeds`` a number (that many, from 0), ``epsilons`` with 0 for no DP, a
    list as a tuple.

    Raises:
        BadValue: fewer than one seed, an empty list or one with a value twice, a negative epsilon.
    """
    if name == "seeds" and isinstance(value, int):
        return tuple(checked_seeds(value))
    if name == "seeds":
        value = [checked_seed(seed) for seed in value]
    if isinstance(value, list | tuple) and (not value or len(set(value)) < len(value)):
        raise BadValue(f"{name}={value}", "give at least one value, none of them twice")
    if name == "epsilons":
        if not all(0 <= e < math.inf for e in value):
            raise BadValue(f"epsilons={value}", "give positive numbers; 0 stands for no DP")
        return tuple(float(e) if e else None for e in value)
    return tuple(value) if isinstance(value, list) else value


def departures(setting: Any, paper: Any, *, apart: Collection[str] = ()) -> list[str]:
    """Where a setting differs from the paper's own, a sentence a field, for a notebook's deviations.

    Args:
        setting, paper: frozen dataclasses of one kind.
        apart: fields that change no result.
    """
    names = [f.name for f in dataclasses.fields(setting) if f.name not in apart]
    return [
        f"{name}: {getattr(setting, name)!r} (paper profile: {getattr(paper, name)!r})"
        for name in names
        if getattr(setting, name) != getattr(paper, name)
    ]


def chosen(what: str, name: str, names: Sequence[str] | None, known: Collection[str]) -> list[str]:
    """The names that a parameter gives, all that are known if it gives none.

    Args:
        what: kind of the thing, for the message ("variant of Fed-HeLLo").
        name: the parameter.

    Raises:
        UnknownName: one is not known.
        BadValue: one text in place of a list, an empty list, or one twice.
    """
    not_text(name, names)
    wanted = list(known if names is None else names)
    for one in wanted:
        if one not in known:
            raise UnknownName(what, one, known)
    if not wanted or len(set(wanted)) < len(wanted):
        raise BadValue(f"{name}={wanted}", "give at least one, none of them twice")
    return wanted


def not_text(name: str, value: Any) -> None:
    """Refuse one text where a list is expected, which would be taken letter by letter.

    Raises:
        BadValue: it is a text.
    """
    if isinstance(value, str):
        raise BadValue(f"{name}={value!r}", f"give a list: {name}=[{value!r}]")


def positive(name: str, values: tuple[float, ...]) -> None:
    """Refuse values that are not finite numbers above 0.

    Raises:
        BadValue: one of them is not.
    """
    if not all(0 < x < math.inf for x in values):
        raise BadValue(f"{name}={list(values)}", "give finite numbers above 0")
