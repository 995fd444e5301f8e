"""Paths that cannot be used are one clear error: full disks, files in place of folders, closed folders."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedlora_kit.errors import BadValue, FedloraError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FILE_THERE = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
_NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
_OTHER = {errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENXIO, errno.EBUSY}
_ANOTHER = "name another one (FEDLORA_RUNS for the store of runs)"


@contextmanager
def disk_guard(path: Path) -> Iterator[None]:
    """Turn what the disk refuses inside the block into one clear error that names ``path``.

    Raises:
        FedloraError: no space left, quota used up, no permission, a file in place of a folder, a name that is
            too long or leads in a circle, a folder in which nothing can be made.
    """
    try:
        yield
    except FedloraError:
        raise
    except Exception as error:
        refusal = refused(path, error)
        if refusal is None:
            raise
        raise refusal from error


def refused(path: Path, error: Exception) -> FedloraError | None:
    """The error that names ``path``, if the disk refused it; None for any other fault."""
    code = error.errno if isinstance(error, OSError) else None
    # Writers in native code (safetensors) report a full disk in the text only.
    if code in _FULL or "No space left on device" in str(error):
        return FedloraError(
            f"no space left on the disk while writing {_short(path)} ({_free(path)})",
            "free some space there, or name a folder on another disk (FEDLORA_RUNS for the store of "
            "runs); what was complete before is still whole, so the same command goes on from there",
        )
    if code is None or (code == errno.ENOENT and _has_folder(path)):
        return None  # what is missing in a folder that is there is no matter of the disk
    if code in _CLOSED:
        remedy = f"make the folder writable, or {_ANOTHER}"
    elif code in _FILE_THERE:
        remedy = f"a file lies where a folder should be: move it away, or {_ANOTHER}"
    elif code in _NO_PATH | _OTHER:
        remedy = f"no folder can be made there: {_ANOTHER}"
    else:
        return None
    return FedloraError(f"cannot write {_short(path)}: {os.strerror(code)}", remedy)


def folder(text: str, named_by: str) -> Path:
    """A folder as somebody has named it, absolute and with links followed; it need not exist.

    Args:
        named_by: the option or variable, for the error.

    Raises:
        BadValue: an empty name, a file, a name that no folder can have, an unknown user's home.
        FedloraError: it counts from a working folder that is gone.
    """
    remedy = f"name a folder with {named_by}"
    if not text:
        raise BadValue(f"{named_by} is empty", f"{remedy}, or leave it out")
    try:
        given = Path(text).expanduser()
        path = (given if given.is_absolute() else here() / given).resolve()
        there = _nearest(path)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadValue(f"{named_by} is {_short(text)}, which no folder can be: {reason}", remedy) from error
    if not there.is_dir():
        raise BadValue(f"{named_by} is {_short(text)}, but {_short(there)} is no folder", remedy)
    return path


def here() -> Path:
    """The working folder.

    Raises:
        FedloraError: it has been deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise FedloraError("the working folder has been deleted", "change into one that is there") from error


def _nearest(path: Path) -> Path:
    """What is there of a path: itself, or the nearest place above it."""
    for place in (path, *path.parents[:-1]):
        with suppress(FileNotFoundError, NotADirectoryError):
            place.lstat()
            return place
    return Path(path.anchor)


def _has_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.parent.is_dir()
    return False


def _short(path: Path | str) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}…{text[-40:]}"


def _free(path: Path) -> str:
    """How much is free where ``path`` lies or would lie, in words."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return f"{shutil.disk_usage(place).free / 2**20:.1f} MiB free"
    return "free space unknown"
