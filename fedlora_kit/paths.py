"""Where the kit's files lie: the repository, the run store, the local mirror."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The kit's top folder: ``FEDLORA_HOME``, or the repository this package is installed from."""
    named = os.environ.get("FEDLORA_HOME")
    return Path(named).expanduser().resolve() if named else Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    """``data/``: reported numbers, backbones, the store of runs."""
    return home() / "data"


def runs_dir() -> Path:
    """The store of runs: ``FEDLORA_RUNS``, or ``data/runs`` in the repository."""
    named = os.environ.get("FEDLORA_RUNS")
    return Path(named).expanduser().resolve() if named else data_dir() / "runs"


def notebooks_dir() -> Path:
    """``notebooks/``: one notebook an item."""
    return home() / "notebooks"


def hub_dir() -> Path | None:
    """The local mirror named by ``FEDLORA_HUB``, or ``None`` (then the Hub itself is asked)."""
    named = os.environ.get("FEDLORA_HUB")
    return Path(named).expanduser().resolve() if named else None
