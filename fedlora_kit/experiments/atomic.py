"""Files that are whole or absent: atomic writes, digests, and JSON that gives floats back exactly."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import BadValue

_TEMP = re.compile(r"^\.(?P<target>.+)\.\d+\.[0-9a-f]{8}\.tmp$")
_FLOAT = "__float__"  # {"__float__": "nan"} stands for a float that strict JSON has no word for


class DamageWarning(UserWarning):
    """Something stored is damaged; it is not used."""


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits; reads in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems cannot sync a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and itself, to the disk."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(where, name))
        sync_folder(Path(where))


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, at any moment, sees the old file or the new one.

    Temporary file in the same folder, flush, fsync, rename, fsync of the folder. Missing folders are made.

    Raises:
        FedloraError: the disk is full or the folder is not writable; the temporary file is removed.
    """
    temp = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    with disk_guard(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not tempfile: its mode 0600 would shut the others out of a shared store.
            handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        except BaseException:
            with suppress(OSError):
                temp.unlink()
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` for a JSON value, indented; see :func:`to_json` for what is allowed."""
    write_text(path, to_json(value, indent=2) + "\n")


def set_aside(path: Path, places: Iterable[Path]) -> Path:
    """Move something damaged to the first of ``places`` that is free; that place."""
    aside = next(place for place in places if not os.path.lexists(place))
    aside.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, aside)
    sync_folder(aside.parent)
    sync_folder(path.parent)
    return aside


def remove_leftovers(folder: Path, target: str | None = None) -> None:
    """Remove temporary files that a killed writer left in ``folder`` (only those of ``target``, if named).

    Only for a folder, or target, that nobody else writes now.
    """
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            found = _TEMP.match(name)
            if found and target in (None, found["target"]):
                with suppress(FileNotFoundError):
                    (folder / name).unlink()


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Strict JSON text of dicts with string keys, lists, strings, numbers, booleans and None.

    :func:`from_json` gives equal values back: floats bit by bit, whole numbers of any size; NaN and the
    infinities travel as ``{"__float__": "nan"}``, since JSON has no word for them. Tuples become lists.

    Raises:
        BadValue: a value of another type or a key that is no string; names the place.
    """
    return json.dumps(_encode(value, "value"), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """The value that :func:`to_json` wrote. ``ValueError`` for text that is no JSON, or nested too deep."""
    try:
        return json.loads(text, object_hook=_decode)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or key == _FLOAT:
                raise BadValue(f"{where} has the key {key!r}", f"keys are strings other than {_FLOAT!r}")
        return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise BadValue(
        f"{where} is a {type(value).__name__}, which JSON cannot hold",
        "allowed: dict with string keys, list, str, int, float, bool, None (arrays: .tolist())",
    )


def _decode(pairs: dict[str, Any]) -> Any:
    return float(pairs[_FLOAT]) if pairs.keys() == {_FLOAT} else pairs
