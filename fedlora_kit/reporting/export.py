"""Runs and an item's results as plain files: the rounds, the scores in long form, the tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from fedlora_kit import disk
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.reporting.rounds import flat, frame_of

Form = Literal["csv", "parquet"]


def long_frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """The scores of finished runs in long form: one row a run, scored part, metric and moment.

    Columns: ``key``; every field of the runs' descriptions by its dotted name; ``part`` ("local" is the mean
    over the clients of their own adapters), ``metric``, ``at`` ("final", "last10": mean over the evaluations
    in the last 10 rounds, "best": maximum on the part itself, optimistic), ``value`` (shares in [0, 1],
    losses in nats).
    """
    rows: list[dict[str, Any]] = []
    for entry in entries:
        about = {"key": entry.key, **flat(entry.spec)}
        for part, found in [*entry.results["scores"].items(), ("local", entry.results.get("local", {}))]:
            rows += [{**about, "part": part, **row} for row in _metrics(found)]
    return pd.DataFrame(rows)


def _metrics(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    plain = {"final": "accuracy", "last10": "accuracy", "best": "accuracy", "loss": "loss"}
    rows = [
        {"metric": metric, "at": "final" if name == "loss" else name, "value": found[name]}
        for name, metric in plain.items()
        if isinstance(found.get(name), int | float)
    ]
    for metric, values in found.items():
        if isinstance(values, Mapping) and "final" in values:
            rows += [{"metric": metric, "at": at, "value": values[at]} for at in ("final", "last10", "best")]
    return rows


def write_frames(entries: Sequence[Entry], folder: Path, form: Form) -> list[Path]:
    """Write ``rounds`` (see `rounds.runs_frame`) and ``scores`` (see `long_frame`) of runs; their paths."""
    folder = disk.folder(str(folder), "the folder of the export")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in (("rounds", frame_of(entries)), ("scores", long_frame(entries))):
        path = folder / f"{name}.{form}"
        if form == "csv":
            atomic.write_text(path, frame.to_csv(index=False))
        else:
            mixed = {c: frame[c].map(_text) for c in frame.columns if frame[c].dtype == object}
            frame = frame.assign(**mixed)
            frame.attrs = {}
            atomic.write_bytes(path, frame.to_parquet(index=False))
        written.append(path)
    return written


def copy_tables(item: Path, folder: Path, form: Form) -> list[Path]:
    """An item's tables, as its notebook wrote them, into ``folder``; their paths."""
    written = []
    for table in sorted(item.glob("*.csv")):
        path = folder / f"table_{table.stem}.{form}"
        if form == "csv":
            shutil.copyfile(table, path)
        else:
            atomic.write_bytes(path, pd.read_csv(table).to_parquet(index=False))
        written.append(path)
    return written


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)
