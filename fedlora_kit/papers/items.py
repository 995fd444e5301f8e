"""Every table, figure and lesson there is, by id: the kit's, and the user's own papers and notebooks.

What the labels in ``foundation`` mean: SEEN: read in a source that quotes the paper, or in its authors' code
or logs; SECOND: read in somebody's summary; REPLAYED: the released code was run again and agrees with its
logs; DERIVED: arithmetic from what was seen; UNKNOWN: not found, so the kit's own declared choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedlora_kit import paths
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.rooms import KIT, rooms
from fedlora_kit.study.item import Item, Paper

#: the kit's own; for the user's, too: `papers` and `all_items`
PAPERS: tuple[Paper, ...] = tuple(room.PAPER for room in KIT if hasattr(room, "PAPER"))
ITEMS: tuple[Item, ...] = tuple(item for room in KIT for item in room.ITEMS)
#: ``notebooks/own/<name>.ipynb`` is item ``own/<name>`` once it is there
OWN = "own"
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # also Jupyter's "mine-Copy1"


def own_items() -> list[Item]:
    """An item for each notebook in the user's folder, by name; files with other names are not seen."""
    found = sorted((paths.notebooks_dir() / OWN).glob("*.ipynb"))
    return [
        Item(f"{OWN}/{path.stem}", "lesson", _heading(path), "", "your own")
        for path in found
        if _STEM.fullmatch(path.stem)
    ]


def papers() -> list[Paper]:
    """The kit's papers, then the user's own."""
    return [room.paper for room in rooms() if room.paper is not None]


def with_runs() -> list[Item]:
    """The items of all rooms: their runs can be named without running their notebooks."""
    return [item for room in rooms() for item in room.items]


def all_items() -> list[Item]:
    """The kit's items, the user's papers', and the user's own notebooks."""
    return [*with_runs(), *own_items()]


def find(wanted: str | Iterable[str]) -> list[Item]:
    """The items of these ids, also the user's own, in the order asked for, each once.

    Args:
        wanted: an id, a paper's id (meaning all its items), or several of either.

    Raises:
        UnknownName: no such item or paper.

    >>> [item.kind for item in find(["start_here", "ffa-lora/figure1"])]
    ['lesson', 'figure']
    """
    names, items = [wanted] if isinstance(wanted, str) else list(wanted), all_items()
    found: dict[str, Item] = {}
    for name in names:
        matching = [item for item in items if name == item.id or (item.paper and name == item.paper)]
        if not matching:
            raise UnknownName("item", name, [*(i.id for i in items), *(p.id for p in papers())])
        found.update((item.id, item) for item in matching)
    return list(found.values())


def to_run(wanted: Sequence[str] = ()) -> list[Item]:
    """The items to be run: those asked for (see `find`); if none is, all that have a notebook.

    Raises:
        UnknownName: no such item or paper.
        BadValue: none of them has a notebook, or one that is asked for by its id has none.
    """
    chosen = find(wanted) if wanted else [item for item in all_items() if item.notebook is not None]
    missing = [item.id for item in chosen if item.notebook is None and item.id in wanted]
    if missing:
        raise BadValue(
            f"no notebook yet for {', '.join(missing)}", "`fedlora list` shows which items have one"
        )
    if all(item.notebook is None for item in chosen):
        raise BadValue(
            f"there is no notebook to run under {paths.notebooks_dir()}",
            "`fedlora list` shows what is planned; FEDLORA_HOME names the kit's folder if it lies elsewhere",
        )
    return chosen


def _heading(path: Path) -> str:
    """A notebook's first heading; its name where there is none."""
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    except (OSError, ValueError, KeyError, TypeError):
        texts = []
    headings = [line[2:].strip() for text in texts for line in text.splitlines() if line.startswith("# ")]
    return headings[0] if headings else path.stem
