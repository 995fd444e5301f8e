"""A mirror's own list of what its files must hash to: ``DIGESTS.json`` beside ``datasets/`` and ``models/``.

`fedlora fetch` writes it. Where it is there, a file that it lists is compared with it before it is read; a
file that was put there by hand, and is not listed, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedlora_kit import paths
from fedlora_kit.errors import FedloraError

LIST = "DIGESTS.json"
#: a mirror's own list: id of a model that it lacks -> id of one that it has
STAND_INS = "STAND_INS.json"


def listed(hub: Path) -> dict[str, dict[str, Any]]:
    """What a mirror's list says: path below the mirror -> {"sha256", "bytes", ...}; empty without a list.

    Raises:
        FedloraError: the list cannot be read.
    """
    path = hub / LIST
    try:
        stat = path.stat()
    except FileNotFoundError:
        return {}
    return _read(str(path), stat.st_size, stat.st_mtime_ns)


def check(file: Path, hub: Path | None = None, revision: str = "") -> None:
    """Compare a file of the mirror with the mirror's list, if that has it.

    Args:
        hub: the mirror; that of ``FEDLORA_HUB`` if None.
        revision: the commit that is pinned, if one is; the list's must be the same, where it names one.

    Raises:
        FedloraError: the file is not what the list says, or is of another commit.
    """
    hub = hub or paths.hub_dir()
    if hub is None or not file.is_relative_to(hub):
        return
    name = file.relative_to(hub).as_posix()
    record = listed(hub).get(name)
    if record is None:
        return
    size = file.stat().st_size
    if size != record["bytes"] or file_sha256(file) != record["sha256"]:
        raise FedloraError(
            f"the mirror's {name} is damaged: it is not the file that {LIST} lists "
            f"({size} bytes, {record['bytes']} listed)",
            f"fetch it again: fedlora fetch -p PROFILE --to {hub}",
        )
    origin = record.get("from")
    came = str(origin.get("revision", "")) if isinstance(origin, dict) else ""
    if is_commit(revision) and is_commit(came) and came != revision:
        raise FedloraError(
            f"the mirror's {name} is of commit {came[:12]}, and {revision[:12]} is pinned",
            f"fetch it again: fedlora fetch -p PROFILE --to {hub}",
        )


def stand_in(name: str) -> str:
    """The model that the mirror has in the place of ``name``: as its ``STAND_INS.json`` says.

    ``name`` itself, where the mirror has it, or has no such list or line. Descriptions and tables name the
    model that is used.

    Raises:
        FedloraError: the list is no object of names.
    """
    hub = paths.hub_dir()
    if hub is None or not (hub / STAND_INS).is_file() or (hub / "models" / name.partition("@")[0]).is_dir():
        return name
    try:
        read = json.loads((hub / STAND_INS).read_text("utf-8"))
        return str(read.get(name, name))
    except (ValueError, AttributeError, OSError):
        raise FedloraError(
            f"the mirror's {STAND_INS} cannot be read",
            'write it as {"org/model": "org/model that the mirror has"}, or remove it',
        ) from None


def models(hub: Path) -> list[str]:
    """Ids of the models that a mirror has."""
    return sorted(c.parent.relative_to(hub / "models").as_posix() for c in hub.glob("models/*/*/config.json"))


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit, which never moves."""
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def check_folder(folder: Path, hub: Path | None = None, revision: str = "") -> None:
    """`check` for every file below a folder that the list has; one that is missing is damage, too.

    Raises:
        FedloraError: a file is not what the list says, or is not there.
    """
    hub = hub or paths.hub_dir()
    if hub is None or not folder.is_relative_to(hub):
        return
    start = f"{folder.relative_to(hub).as_posix()}/"
    for name in listed(hub):
        if name.startswith(start):
            file = paths.inside(hub, name)
            if not file.is_file():
                raise FedloraError(
                    f"the mirror has no {name}, which {LIST} lists",
                    f"fetch it again: fedlora fetch -p PROFILE --to {hub}",
                )
            check(file, hub, revision)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits; taken once a process while its size and time stay as they are."""
    stat = file.stat()
    return _sha256(str(file), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(file: str, size: int, mtime_ns: int) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@lru_cache(maxsize=8)
def _read(path: str, size: int, mtime_ns: int) -> dict[str, dict[str, Any]]:
    try:
        files: dict[str, dict[str, Any]] = json.loads(Path(path).read_text("utf-8"))["files"]
        if all({"sha256", "bytes"} <= record.keys() for record in files.values()):
            return files
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise FedloraError(
        f"the mirror's {LIST} cannot be read",
        "fetch the mirror again; or remove that file, and nothing is compared any more",
    )
