"""Finished runs as TensorBoard event files: a folder a run, written once.

A run never changes once it is finished, so a file that is there is right. Its name tells no machine and no
time, and all of its events bear the time at which the run ended: the same run gives the same file name
everywhere.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.atomic import write_bytes
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.reporting.one_run import description

_NO_SCALARS = {"round"}
_COUNTS = {"clients", "examples"}  # of a table by client: who and how many, no scores


def need_tensorboard() -> Any:
    """PyTorch's writer of event files.

    Raises:
        FedloraError: the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise FedloraError(
            "event files need the package tensorboard, which is not installed",
            "pip install 'fedlora-kit[tensorboard]'",
        ) from error
    return SummaryWriter


def write_runs(entries: Iterable[Entry], logdir: Path) -> tuple[list[Path], list[Path]]:
    """Write the event files that are missing under ``logdir``.

    Returns:
        The runs' folders: those written now, and those that were there.

    Raises:
        FedloraError: tensorboard is not installed, an entry is damaged, or the folder cannot be written.
    """
    writer = need_tensorboard()
    written, kept = [], []
    for entry in entries:
        folder = logdir / folder_name(entry.key, entry.spec)
        target = folder / f"events.out.tfevents.0.{entry.key}"
        if target.is_file():
            kept.append(folder)
            continue
        write_bytes(target, _events(entry, writer))
        written.append(folder)
    return written, kept


def folder_name(key: str, spec: Mapping[str, Any]) -> str:
    """A run's folder: method, task, seed and key.

    >>> folder_name("0123456789abcdef", {"method": {"name": "lora"}, "data": {"task": "a/b"}, "seed": 3})
    'lora_a-b_seed3_0123456789abcdef'
    """
    method, task = (spec.get("method") or {}).get("name"), (spec.get("data") or {}).get("task")
    words = [str(word) for word in (method, task) if word]
    words += [f"seed{spec['seed']}"] if "seed" in spec else []
    return "_".join(re.sub(r"[^\w.-]+", "-", word) for word in [*words, key])


def scalars(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """A history's numbers by name.

    A number in a nested part gets the path to it (``eval/validation/accuracy``); of a table by client, as
    ``local``, the unweighted mean over the clients is taken. Other lists are left out.

    Returns:
        name → (round from 1, value), in order.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for record in history:
        for name, value in _numbers(record, ""):
            found.setdefault(name, []).append((int(record["round"]) + 1, value))
    return {name: curve for name, curve in found.items() if name not in _NO_SCALARS}


def _numbers(part: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, float]]:
    by_client = isinstance(part.get("clients"), list)
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif _is_number(value):
            yield f"{prefix}{name}", float(value)
        elif by_client and name not in _COUNTS and value and all(map(_is_number, value)):
            yield f"{prefix}{name}", fmean(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _events(entry: Entry, writer_class: Any) -> bytes:
    """The event file's bytes."""
    at = _ended(entry.provenance)
    with tempfile.TemporaryDirectory(prefix="fedlora-events-") as folder:
        with writer_class(folder) as writer:
            rows = [f"| {name} | {text} |" for name, text in description(entry.spec)]
            table = "\n".join(["| what | setting |", "|---|---|", *rows])
            whole = json.dumps(entry.spec, indent=2, ensure_ascii=False)
            writer.add_text("hyperparameters", table, 0, walltime=at)
            writer.add_text("description", f"```json\n{whole}\n```", 0, walltime=at)
            for name, curve in scalars(entry.history).items():
                for step, value in curve:
                    writer.add_scalar(name, value, step, walltime=at)
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


def _ended(provenance: Mapping[str, Any]) -> float:
    """Seconds since 1970 at which the run ended; 0 where that is not known."""
    try:
        began = datetime.fromisoformat(provenance["started_utc"]).timestamp()
        return began + float(provenance["wall_seconds"])
    except (KeyError, TypeError, ValueError):
        return 0.0
