"""When an item need not run again: nothing that its outputs depend on has changed, and they are all there."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fedlora_kit
from fedlora_kit import paths
from fedlora_kit.batch.parameters import read_notebook
from fedlora_kit.batch.status import OK, STATUS_FILE, Status, read_status
from fedlora_kit.experiments import atomic, own_code
from fedlora_kit.experiments.libraries import installed
from fedlora_kit.reporting import style
from fedlora_kit.reporting.outputs import changed_files

_DECIDING = ("torch", "transformers", "peft", "opacus")


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of the packages that decide a run's numbers."""
    own = {"python": platform.python_version(), "fedlora-kit": fedlora_kit.__version__}
    return own | {name: installed(name) or "not installed" for name in _DECIDING}


def cache_key(notebook: Path, profile: str, parameters: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of everything that an item's outputs depend on.

    The notebook's cells (prose too: the executed notebook is an output), the whole package, the reported
    numbers, the backbones, the profile, the parameters, `versions` (of PyTorch the release: builds share
    results), the mirror's files by size and time, and files of the user's own, those that the cells import
    too (`own_code`, `style.own_settings`). Where the outputs go does not count.
    """
    from fedlora_kit.experiments.source import package_digest

    cells = [
        [cell.get("cell_type"), "".join(cell.get("source", "")), cell.get("metadata", {}).get("tags", [])]
        for cell in read_notebook(notebook)["cells"]
    ]
    parts: dict[str, Any] = {
        "cells": cells,
        "package": package_digest(),
        "reported": _contents(paths.data_dir() / "reported"),
        "backbones": _contents(paths.data_dir() / "backbones"),
        "parameters": {name: value for name, value in parameters.items() if name != "output_dir"},
        "profile": profile,
        "versions": {name: found.partition("+")[0] for name, found in versions().items()},
        "mirror": _listing(paths.hub_dir()),
    }
    if own := own_code.contents([text for kind, text, _ in cells if kind == "code"], notebook.parent):
        parts["own code"] = own
    if settings := style.own_settings():
        parts["style"] = {name: str(value) for name, value in settings.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unchanged(folder: Path, key: str) -> Status | None:
    """The status of the earlier ok run in ``folder`` if its outputs are current and intact, else ``None``."""
    status = read_status(folder)
    if status is None or status.status != OK or status.cache_key != key or not status.files:
        return None
    return None if STATUS_FILE in status.files or changed_files(folder, status.files) else status


def _contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return {path.relative_to(folder).as_posix(): atomic.sha256_file(path) for path in files}


def _listing(folder: Path | None) -> dict[str, list[int]] | None:
    """Size and time, not content: a mirror may hold hundreds of GB."""
    if folder is None:
        return None
    listing = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            listing[path.relative_to(folder).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    return listing
