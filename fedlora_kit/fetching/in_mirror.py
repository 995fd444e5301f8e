"""What of a piece lies in a mirror already, fetched before or put there by hand, and whether it is of use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from fedlora_kit import mirror, paths
from fedlora_kit.data.origin import place
from fedlora_kit.data.task import Task
from fedlora_kit.errors import FedloraError
from fedlora_kit.fetching.plan import Piece, RemoteFile, Target

#: "fetched" (listed, and as the list says), "by hand" (there, and not listed), or "missing"
State = Literal["fetched", "by hand", "missing"]


def state(hub: Path, target: Target, origin: dict[str, Any]) -> State:
    """How one file of the mirror is there; one that is listed with another origin or digest is missing."""
    file, record = paths.inside(hub, target.place), mirror.listed(hub).get(target.place)
    if not file.is_file():
        return "missing"
    if record is None:
        return "by hand"
    fits = record.get("from") == origin and file.stat().st_size == record["bytes"]
    return "fetched" if fits and mirror.file_sha256(file) == record["sha256"] else "missing"


def same(file: Path, remote: RemoteFile) -> bool:
    """Whether a file has the size and the digest that the Hub tells."""
    size = file.stat().st_size
    if size != remote.size:
        return False
    if remote.sha256:
        return mirror.file_sha256(file) == remote.sha256
    if remote.blob:
        data = b"blob %d\0" % size + file.read_bytes()
        return hashlib.sha1(data, usedforsecurity=False).hexdigest() == remote.blob
    return True


def holds(hub: Path, piece: Piece) -> bool:
    """Whether a mirror has a whole piece of its own, asked for where the Hub does not give it.

    A file that does not fit the mirror's list, or that the list has from another commit, does not count.

    Raises:
        FedloraError: a table, or the index of a model's weights, was put there and is of no use.
    """
    if piece.task is None:
        folder = f"models/{piece.repo}"
        places = [f"{folder}/{name}" for name in _model_files(hub, folder)]
    else:
        places = [place(piece.task, split) for split in piece.task.source_splits]
    files = [paths.inside(hub, one) for one in places]
    if not all(file.is_file() for file in files):
        return False
    try:
        for file in files:
            mirror.check(file, hub, piece.revision)
    except FedloraError:
        return False
    if piece.task is not None:
        for one in places:
            check_table(hub, one, piece.task)
    return True


def _model_files(hub: Path, folder: str) -> list[str]:
    """The files without which a model cannot be loaded: its configuration and its weights."""
    index = paths.inside(hub, f"{folder}/model.safetensors.index.json")
    if not index.is_file():
        return ["config.json", "model.safetensors"]
    try:
        return ["config.json", *sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FedloraError(
            f"the mirror's {folder}/{index.name} does not name the files of the weights",
            "put the model's own file there, or remove it",
        ) from error


def check_table(hub: Path, place: str, task: Task) -> None:
    """Look at a table of the mirror.

    Raises:
        FedloraError: it is no parquet file, or has not the columns that the task reads.
    """
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(paths.inside(hub, place)).names
    except (OSError, ValueError) as error:
        raise FedloraError(
            f"the mirror's {place} is no parquet file that can be read ({type(error).__name__})",
            "remove it, and the same command fetches it; or put another one there",
        ) from error
    lost = [column for column in task.source_columns if column not in names]
    if lost:
        raise FedloraError(
            f"the mirror's {place} has no column {', '.join(lost)} (task {task.name}); "
            f"it has {', '.join(names)}",
            "name the columns that it has in a task of your own (columns, label_column, group_column; "
            "register_task), or put a table with those columns there",
        )
