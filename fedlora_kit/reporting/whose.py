"""Whose a notebook's results are: the item of its file, whatever id it was copied with."""

from __future__ import annotations

import os
from pathlib import Path

from fedlora_kit import paths
from fedlora_kit.errors import BadValue

ITEM_VARIABLE = "FEDLORA_ITEM"
"""While the batch runner executes a notebook, this names its item."""
_SESSION = "JPY_SESSION_NAME"  # Jupyter tells a kernel the file that it was started for


def item_of_notebook(named: str) -> str:
    """The id under which the notebook that runs here writes; what it says itself where its file is not known.

    A copy in ``notebooks/own/`` is the item of its own name. Where nobody says which file runs (papermill
    alone, a script), the id that the notebook names stands.

    Args:
        named: the id in the notebook's code.

    Raises:
        BadValue: Jupyter runs a copy whose file is no item's: its results would take the original's place.
    """
    if item := os.environ.get(ITEM_VARIABLE):
        return item
    from fedlora_kit.papers.items import OWN, all_items

    file = Path(os.environ.get(_SESSION, ""))
    items = all_items()
    stem = next((item.path.stem for item in items if item.id == named), named.rpartition("/")[2])
    if file.suffix != ".ipynb" or file.stem == stem or not file.is_file():
        return named
    own = next((item.id for item in items if item.path == file.resolve()), None)
    if own is None:
        raise BadValue(
            f"this notebook is {file.name}, and {named} is {stem}.ipynb's, whose results it would replace",
            f"move the copy to {paths.notebooks_dir() / OWN}, where its name (letters, digits, - and _) is "
            f"its item's, or give it another id in its code, such as {OWN}/{stem}_2",
        )
    return own
