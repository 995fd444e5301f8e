"""``fedlora tensorboard``: the histories of finished runs for TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import JsonFlag, Output, folder_of, print_json
from fedlora_kit.cli.verbosity import say, warn
from fedlora_kit.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from fedlora_kit.experiments.entry import Entry
    from fedlora_kit.experiments.store import Store

_KEY = re.compile(r"[0-9a-fA-F]{1,16}|.*/[0-9a-f]{16}(/.*)?")


def tensorboard(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|ITEM]...",
            help="Keys of runs, or their beginnings; item ids, for the runs that their tables name. "
            "None: every finished run.",
            autocompletion=completion.runs_and_items,
        ),
    ] = None,
    logdir: Annotated[
        Path | None,
        typer.Option(
            "--logdir",
            metavar="DIR",
            parser=folder_of("--logdir"),
            help="Where to write. Default: data/cache/tensorboard.",
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            "--profile", "-p", help="Whose results name an item's runs.", autocompletion=completion.profiles
        ),
    ] = "smoke",
    output: Output = None,
    as_json: JsonFlag = False,
) -> None:
    """Write finished runs of the store as TensorBoard event files.

    Each run gets a folder: its history's columns as scalars over the rounds, counted from 1, and its
    description as text. A run that has its folder is not written again. Needs the extra: pip install
    'fedlora-kit[tensorboard]'.

    \b
    Examples:
      fedlora tensorboard start_here
      fedlora tensorboard 021893 0aa791 --logdir /tmp/two
      tensorboard --logdir data/cache/tensorboard

    \b
    JSON: one object with the keys logdir; written and kept (folders under it: new ones, and those that were
    there).
    """
    from fedlora_kit import paths
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.reporting.event_files import need_tensorboard, write_runs

    store = Store()
    place = logdir or paths.data_dir() / "cache" / "tensorboard"
    results = output or Path("figures")
    entries = _entries(runs or [], store, profile, results)
    need_tensorboard()
    written, kept = write_runs(entries, place)
    if as_json:
        names = {"written": written, "kept": kept}
        print_json({"logdir": str(place), **{k: [path.name for path in v] for k, v in names.items()}})
        return
    typer.echo(f"{len(written)} runs written, {len(kept)} were there: {place}")
    say(f"to look at them: tensorboard --logdir {place}")


def _entries(wanted: Sequence[str], store: Store, profile: str, results: Path) -> list[Entry]:
    """The finished runs that are asked for, each once."""
    from fedlora_kit.experiments.entry import Entry
    from fedlora_kit.reporting.one_run import find_key

    if not wanted:
        return list(store.entries())
    keys: dict[str, None] = {}
    for text in wanted:
        if not _KEY.fullmatch(text):
            keys.update(dict.fromkeys(_of_items(text, store, profile, results)))
            continue
        key = find_key(text, store)
        if store.status(key) != "finished":
            raise BadValue(f"run {key} is {store.status(key)}", "only finished runs can be written")
        keys[key] = None
    return [Entry(key, store.root / key) for key in keys]


def _of_items(text: str, store: Store, profile: str, results: Path) -> list[str]:
    """The runs that an item's tables name, or those of all items of a paper."""
    from fedlora_kit.batch.pool import PROFILES
    from fedlora_kit.papers.items import find
    from fedlora_kit.reporting import evidence
    from fedlora_kit.reporting.outputs import item_folder
    from fedlora_kit.reporting.tables import read_table

    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
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
