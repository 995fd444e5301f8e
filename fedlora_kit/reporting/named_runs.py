"""The runs that a command line names: by key, or by the items whose tables name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.items import find
from fedlora_kit.reporting import evidence
from fedlora_kit.reporting.one_run import find_key
from fedlora_kit.reporting.outputs import item_folder
from fedlora_kit.reporting.tables import read_table

_KEY = re.compile(r"[0-9a-fA-F]{1,16}|.*/[0-9a-f]{16}(/.*)?")


def is_key(text: str) -> bool:
    """Whether it names a run by its key, and not an item."""
    return _KEY.fullmatch(text) is not None


def finished_runs(
    wanted: Sequence[str], store: Store, profile: str, results: Path, warn: Callable[[str], object]
) -> list[Entry]:
    """The finished runs that are asked for, each once; all of the store if nothing is.

    Args:
        wanted: keys, or their beginnings; items or papers, for the runs that their tables name.
        results: the top folder of the items' outputs.
        warn: is told of runs that a table names and the store has not.

    Raises:
        UnknownName, BadValue: there is no such run or item, or none of it is finished.
    """
    if not wanted:
        return list(store.entries())
    keys: dict[str, None] = {}
    for text in wanted:
        if not is_key(text):
            keys.update(dict.fromkeys(_of_items(text, store, profile, results, warn)))
            continue
        key = find_key(text, store)
        if store.status(key) != "finished":
            raise BadValue(f"run {key} is {store.status(key)}", "only finished runs can be written")
        keys[key] = None
    return [Entry(key, store.root / key) for key in keys]


def _of_items(
    text: str, store: Store, profile: str, results: Path, warn: Callable[[str], object]
) -> list[str]:
    """The runs that an item's tables name, or those of all items of a paper."""
    folders = [item_folder(item.id, profile, results) for item in find(text)]
    tables = [read_table(path) for folder in folders for path in sorted(folder.glob("*.csv"))]
    keys = evidence.keys(tables)
    found = [key for key in keys if store.status(key) == "finished"]
    if not found:
        raise BadValue(
            f"no run of {text} at profile {profile} is in {store.root}",
            f"fedlora reproduce {text} --profile {profile} makes them; --output names other results",
        )
    if len(found) < len(keys):
        warn(f"{len(keys) - len(found)} runs that the tables of {text} name are not in {store.root}")
    return found
