"""Notebooks of the user's own: ``notebooks/own/<name>.ipynb`` is item ``own/<name>`` once it is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fedlora_kit import paths
from fedlora_kit.papers.items import ITEMS, Item

FOLDER = "own"
_STEM = re.compile(r"[a-z0-9_]+")


def own_items() -> list[Item]:
    """An item for each notebook in the user's folder, by name; files with other names are not seen."""
    found = sorted((paths.notebooks_dir() / FOLDER).glob("*.ipynb"))
    return [
        Item(f"{FOLDER}/{path.stem}", "lesson", _heading(path), "", "your own")
        for path in found
        if _STEM.fullmatch(path.stem)
    ]


def all_items() -> list[Item]:
    """The kit's items, then the user's own."""
    return [*ITEMS, *own_items()]


def _heading(path: Path) -> str:
    """A notebook's first heading; its name where there is none."""
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    except (OSError, ValueError, KeyError, TypeError):
        texts = []
    headings = [line[2:].strip() for text in texts for line in text.splitlines() if line.startswith("# ")]
    return headings[0] if headings else path.stem
