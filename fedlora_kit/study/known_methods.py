"""The methods that a table can set beside each other: its own, and whatever else is registered.

A method that a user has registered (`methods.register`) stands in a table like the kit's own: name it among
the methods of the table's setting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from fedlora_kit import looks
from fedlora_kit.errors import UnknownName
from fedlora_kit.methods import METHODS
from fedlora_kit.methods.layerwise import LayerMethod
from fedlora_kit.methods.ranks import RankMethod


def names(own: Iterable[str]) -> tuple[str, ...]:
    """Names that a table takes: its ``own``, in their order, then every other registered method."""
    first = tuple(own)
    return (*first, *sorted(set(METHODS) - set(first)))


def shares_out(name: str) -> Literal["layers", "ranks"] | None:
    """What a method allocates to clients of unequal resources; None if all of them train everything.

    Raises:
        UnknownName: no such method.

    >>> shares_out("fed-hello"), shares_out("hetlora"), shares_out("lora")
    ('layers', 'ranks', None)
    """
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    if issubclass(METHODS[name], LayerMethod):
        return "layers"
    return "ranks" if issubclass(METHODS[name], RankMethod) else None


def look(name: str) -> looks.Look:
    """How a method looks in a figure; one that a user has registered is called by its class's title."""
    found = looks.of_method(name)
    own = name in METHODS and name not in looks.known()
    return replace(found, title=METHODS[name].title) if own else found
