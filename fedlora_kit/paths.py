"""Where the kit's files lie: the working folder or the checkout, the run store, the local mirror."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from fedlora_kit import disk
from fedlora_kit.errors import BadValue, FedloraError

MARKER = ".fedlora-kit.json"
"""The file by which a working folder is known; ``fedlora init`` writes it."""
INSTALLED = Path(__file__).resolve().with_name("_kit")
"""Notebooks and data as a wheel carries them; a checkout has them at its top, and no such folder."""


def home() -> Path:
    """The kit's top folder: ``FEDLORA_HOME``; else the working folder at or above the current one, as
    ``fedlora init`` laid it; else the checkout that this package is imported from.

    Raises:
        BadValue: the variable names a file, or what no folder can be; the package is installed, and there is
            no working folder. For the others below likewise.
    """
    named = os.environ.get("FEDLORA_HOME")
    found = disk.folder(named, "FEDLORA_HOME") if named else working_folder() or checkout()
    if found is None:
        raise BadValue(
            "no working folder of the kit is here or above",
            "make one with `fedlora init DIR` and change into it, or name one with FEDLORA_HOME",
        )
    return found


def working_folder() -> Path | None:
    """The nearest folder with a `MARKER`, at the current one or above it."""
    try:
        current = Path.cwd()
    except FileNotFoundError:  # it has been deleted
        return None
    return next((place for place in (current, *current.parents) if (place / MARKER).is_file()), None)


def checkout() -> Path | None:
    """The checkout that this package is imported from; ``None`` if it is installed."""
    return None if INSTALLED.is_dir() else INSTALLED.parent.parent


def data_dir() -> Path:
    """``data/``: reported numbers, backbones, the store of runs."""
    return home() / "data"


def runs_dir() -> Path:
    """The store of runs: ``FEDLORA_RUNS``, or ``data/runs`` in the repository."""
    named = os.environ.get("FEDLORA_RUNS")
    return disk.folder(named, "FEDLORA_RUNS") if named else data_dir() / "runs"


def notebooks_dir() -> Path:
    """``notebooks/``: one notebook an item."""
    return home() / "notebooks"


def hub_dir() -> Path | None:
    """The local mirror named by ``FEDLORA_HUB``, or ``None`` (then the Hub itself is asked).

    Raises:
        BadValue: there is no such folder.
    """
    named = os.environ.get("FEDLORA_HUB")
    if not named:
        return None
    folder = disk.folder(named, "FEDLORA_HUB")
    if not folder.is_dir():
        raise BadValue(
            f"FEDLORA_HUB names {folder}, and there is no such folder",
            "name the mirror's folder, or unset FEDLORA_HUB to ask the Hub",
        )
    return folder


def style_file() -> Path | None:
    """The user's own settings of figures, named by ``FEDLORA_STYLE``; ``None`` without them."""
    named = os.environ.get("FEDLORA_STYLE")
    return Path(named).expanduser() if named else None


def inside(root: Path, relative: str | Path) -> Path:
    """``root / relative``, if that lies below ``root``, with all links followed; it need not exist.

    Names of data sets, models and files come from outside: from a task that somebody registered, a list in a
    mirror, a parameter.

    Raises:
        FedloraError: an absolute path, one with "..", a backslash or a NUL, or a link that leads out.
    """
    name = relative.as_posix() if isinstance(relative, Path) else relative
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise FedloraError(f"{name!r} is no name of a file below {root}", "a relative path without '..'")
    path = root.joinpath(*parts)
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise FedloraError(
            f"{path} is a link that leads out of {root}, to {real}",
            "put the file itself there, or a link to a file below that folder",
        )
    return path
