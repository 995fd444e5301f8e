"""The rooms that items come from: the kit's, and the user's own papers that a command or a notebook names.

A room is a module with ``PAPER`` and ``ITEMS``; below it lies a module an item, with ``runs(profile,
**parameters)``. A user's is the ``paper.py`` of a folder (`experiments.own_code`), or one file for all.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from fedlora_kit import paths
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_code
from fedlora_kit.papers import fed_hello, fedlora_optimizer, ffa_lora, lessons
from fedlora_kit.study.item import KINDS, Item, Paper

KIT = (lessons, ffa_lora, fed_hello, fedlora_optimizer)
NOTEBOOKS = "notebooks"
"""Beside a user's ``PAPER``: the folder of its notebooks."""
_TAKEN = ("lessons", "own")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Room:
    """Where the things of a paper lie.

    Attributes:
        module: name of the module with ``PAPER`` and ``ITEMS``.
        paper: None for the kit's lessons.
        items: each knows its notebook.
        reported: CSV of the numbers that the paper reports (see `study.reported`).
    """

    module: str
    paper: Paper | None
    items: tuple[Item, ...]
    reported: Path

    def module_of(self, item: Item) -> str:
        """The module that has an item's ``runs``; the room's own where the item has none to itself."""
        name = f"{self.module}.{item.module or item.name}"
        try:
            return name if importlib.util.find_spec(name) else self.module
        except ModuleNotFoundError:  # the room is one file
            return self.module


def rooms() -> list[Room]:
    """The kit's rooms, then those of the user's papers.

    Raises:
        BadValue: a paper's ``PAPER`` or ``ITEMS`` are missing or cannot be used, or two papers share an id.
    """
    reported = paths.data_dir() / "reported" / own_code.REPORTED
    found = [Room(room.__name__, getattr(room, "PAPER", None), room.ITEMS, reported) for room in KIT]
    for module in own_code.modules():
        own = _own(module)
        if own is None:
            continue
        if own.paper and own.paper.id in {room.paper.id for room in found if room.paper}:
            raise BadValue(
                f"{module.__file__}: there is a paper {own.paper.id!r} already",
                "give PAPER another id, and its ITEMS with it",
            )
        found.append(own)
    return found


def _own(module: ModuleType) -> Room | None:
    """The room of a user's paper; None for a file that is no paper."""
    file = Path(str(module.__file__))
    paper, items = getattr(module, "PAPER", None), getattr(module, "ITEMS", None)
    if paper is None and items is None and file.name != own_code.PAPER:
        return None

    def refuse(problem: str, remedy: str) -> BadValue:
        return BadValue(f"{file} {problem}", remedy)

    if not isinstance(paper, Paper) or not _NAME.fullmatch(paper.id) or paper.id in _TAKEN:
        raise refuse(
            f"has no PAPER with an id of its own, but {paper!r}",
            'PAPER = Paper("my-paper", "Its title", "Where it appeared"), from fedlora_kit.study.item',
        )
    if not isinstance(items, tuple | list) or not items:
        raise refuse(
            "has no ITEMS: a paper without a table or figure is nothing to reproduce",
            f'ITEMS = (Item("{paper.id}/table1", "table", "What it shows", "Table 1", "SEEN"),)',
        )
    for item in items:
        mine = isinstance(item, Item) and item.paper == paper.id and _NAME.fullmatch(item.name)
        if not mine or item.kind not in KINDS:
            raise refuse(
                f"has the item {item!r}",
                f'write Item("{paper.id}/<name>", kind, ...), kind one of {", ".join(KINDS)}',
            )
    ids = [item.id for item in items]
    if doubled := sorted({one for one in ids if ids.count(one) > 1}):
        raise refuse(f"has the item {doubled[0]} twice", "give each an id of its own")
    folder = str(file.parent / NOTEBOOKS)
    placed = tuple(replace(item, folder=item.folder or folder) for item in items)
    return Room(module.__name__, paper, placed, file.with_name(own_code.REPORTED))
