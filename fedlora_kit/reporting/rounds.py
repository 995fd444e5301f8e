"""The store as a frame: one row a round of every run asked for, and what tells the runs apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedlora_kit import looks
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.store import Store
from fedlora_kit.randomness import MOST_SEEDS
from fedlora_kit.reporting import two_runs
from fedlora_kit.reporting.named_runs import finished_runs
from fedlora_kit.reporting.runs import scores_of

#: fields of a run's description that have a short name of their own
_SHORT = {"method": "method.name", "seed": "seed", "precision": "precision"}
_IN_PERCENT = {"accuracy", "macro_f1", "rouge_l"}


def runs_frame(
    store: Store | None = None,
    *,
    item: str = "",
    profile: str = "smoke",
    results: str | Path = "figures",
    **where: Any,
) -> pd.DataFrame:
    """One row a round of every finished run that has these settings.

    Args:
        store: where to look; the default store if ``None``.
        item: only the runs that the tables of this item (or of all items of this paper) name.
        profile, results: whose tables, and the folder of all results; for ``item`` alone.
        where: field of a run's description → its value, or a list, tuple or set of values any of which will
            do. A field is named by its last part where that is clear (``task``, ``backbone``, ``epsilon``,
            ``method``), or with its sections, parted by two underscores (``local__lr``).
            ``key`` names runs. ``None`` is a field that a run does not have, such as epsilon without DP.

    Returns:
        Columns ``key``, ``method``, ``seed``, then the fields in which the runs differ, then ``round`` (from
        1), ``train_loss``, and by scored part and metric, such as ``"validation accuracy"``: accuracies and
        other shares in %, losses in nats; NaN in rounds that were not scored. ``"local accuracy"`` is the
        mean over the clients of their own adapters. ``frame.attrs["differ"]`` names the fields, seed and
        method apart, in which the runs differ: a line drawn by method alone would mix them. Runs stand in
        order of method, of these fields and of seed.

    Raises:
        BadValue: no finished run has these settings; a field of that name is there more than once.
        UnknownName: no run in the store has such a field, or there is no such item.
    """
    store = Store() if store is None else store
    named = finished_runs([item] if item else [], store, profile, Path(results), warnings.warn)
    found = _matching(named, where, str(store.root))
    seeds = sorted({entry.spec["seed"] for entry in found})
    reported = [seed for seed in seeds if seed < MOST_SEEDS]
    if "seed" not in where and 0 < len(reported) < len(seeds):
        warnings.warn(
            f"some runs have seeds from {MOST_SEEDS} on, with which tables choose learning rates: "
            f"seed={reported} leaves them out",
            stacklevel=2,
        )
    return frame_of(found)


def frame_of(entries: Iterable[Entry]) -> pd.DataFrame:
    """`runs_frame` of these runs."""
    runs = list(entries)
    specs = [flat(entry.spec) for entry in runs]
    fields = list(dict.fromkeys(name for spec in specs for name in spec))
    differ = [f for f in fields if f != "seed" and len({repr(spec.get(f)) for spec in specs}) > 1]
    differ = [f for f in differ if f != "method.name"]
    known = {name: at for at, name in enumerate(looks.known())}

    def place(one: tuple[Entry, dict[str, Any]]) -> list[Any]:
        values = [
            known.get(one[1]["method.name"], len(known)),
            *(one[1].get(f) for f in differ),
            one[1]["seed"],
        ]
        return [(2, "") if v is None else (1, v) if isinstance(v, str) else (0, v) for v in values]

    rows: list[dict[str, Any]] = []
    for entry, spec in sorted(zip(runs, specs, strict=True), key=place):
        about = {"key": entry.key, "method": spec["method.name"], "seed": spec["seed"]}
        about |= {_short(field, fields): spec.get(field) for field in differ}
        rows += [{**about, **_of_round(record)} for record in entry.history]
    frame = pd.DataFrame(rows)
    frame.attrs["differ"] = [_short(field, fields) for field in differ]
    return frame


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A run's description with dotted names, lists as texts; without what it does not have.

    >>> flat({"seed": 1, "local": {"lr": 0.1}, "privacy": None})
    {'seed': 1, 'local.lr': 0.1}
    """
    there = {name: value for name, value in two_runs.flat(spec).items() if value not in (None, {})}
    return {n: ", ".join(map(str, v)) if isinstance(v, list) else v for n, v in there.items()}


def lines_of(frame: pd.DataFrame, by: str) -> dict[str, pd.DataFrame]:
    """The frame's rows by the value of one column, in order of appearance.

    Raises:
        UnknownName: no such column.
        BadValue: runs of one line differ in more than the seed; the message names the fields.
    """
    if by not in frame.columns:
        raise UnknownName("column", by, list(frame.columns))
    lines = {str(name): rows for name, rows in frame.groupby(by, sort=False, dropna=False)}
    for name, rows in lines.items():
        others = [f for f in ["method", *frame.attrs.get("differ", [])] if f != by]
        mixed = {f: list(dict.fromkeys(map(str, rows[f]))) for f in others if f in rows.columns}
        mixed = {f: values for f, values in mixed.items() if len(values) > 1}
        if mixed:
            said = "; ".join(f"{f}: {', '.join(values[:4])}" for f, values in list(mixed.items())[:4])
            said += f"; and {len(mixed) - 4} more" * (len(mixed) > 4)
            raise BadValue(
                f"the runs of {by}={name} differ in more than the seed ({said})",
                f"choose one: runs_frame(..., {next(iter(mixed))}=...), or the runs of one table: "
                f"runs_frame(item='ffa-lora/table1', ...); or draw a line for each: by={next(iter(mixed))!r}",
            )
    return lines


def score_of(frame: pd.DataFrame, score: str | None) -> str:
    """The column to draw: the one asked for, or the only accuracy there is beside the hold-out's.

    Raises:
        UnknownName: no such column. BadValue: there are several to choose from, or none.
    """
    if score is not None:
        if score not in frame.columns:
            raise UnknownName("column", score, list(frame.columns))
        return score
    found = [c for c in frame.columns if c.endswith(" accuracy") and c.split()[0] not in ("holdout", "local")]
    if len(found) != 1:
        there = [c for c in frame.columns if c.split()[-1] in (*_IN_PERCENT, "loss")]
        raise BadValue(
            f"the runs have {len(found)} scored parts", f"name one: score= one of {', '.join(there)}"
        )
    return found[0]


def title_of(by: str, name: str) -> str:
    """A line's name in words."""
    return looks.of_method(name).title if by == "method" else f"{by} {name}"


def _matching(entries: list[Entry], where: Mapping[str, Any], place: str) -> list[Entry]:
    fields = list(dict.fromkeys(name for entry in entries for name in flat(entry.spec)))
    wanted = {_field(name, fields): _values(value) for name, value in where.items() if name != "key"}
    keys = _values(where["key"]) if "key" in where else None
    found = [
        entry
        for entry in entries
        if (keys is None or entry.key in keys)
        and all(flat(entry.spec).get(field) in values for field, values in wanted.items())
    ]
    if not found:
        asked = ", ".join(f"{name}={value!r}" for name, value in where.items())
        raise BadValue(
            f"none of {len(entries)} finished runs in {place} has {asked or 'a history'}",
            "`fedlora runs` lists them; FEDLORA_RUNS names another store",
        )
    return found


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _field(name: str, fields: list[str]) -> str:
    """The dotted name that ``name`` means."""
    if name in _SHORT:
        return _SHORT[name]
    ending = name.replace("__", ".")
    found = [field for field in fields if field == ending or field.endswith(f".{ending}")]
    if not found:
        if ending in ("epsilon", "delta", "clip"):  # a store without private runs
            return f"privacy.{ending}"
        known = dict.fromkeys([*_SHORT, *(_short(f, fields) for f in fields)])
        raise UnknownName("field of a run", name, [f for f in known if f != "method__name"])
    if len(found) > 1 and ending not in found:
        several = " or ".join(f.replace(".", "__") for f in found)
        raise BadValue(f"{name!r} names {len(found)} fields of a run", f"say which: {several}")
    return ending if ending in found else found[0]


def _short(field: str, fields: list[str]) -> str:
    """The last part of a dotted name, or all of it with underscores where that is not clear."""
    last = field.rpartition(".")[2]
    clear = sum(f.rpartition(".")[2] == last for f in fields) == 1 and last not in ("name", "round", "key")
    return last if clear else field.replace(".", "__")


def _of_round(record: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"round": record["round"] + 1, "train_loss": record.get("train_loss", math.nan)}
    row |= {f"{part} {m}": _unit(m) * v for (part, m), v in scores_of(record).items()}
    for metric, values in (record.get("local") or {}).items():
        if metric not in ("clients", "examples"):
            row[f"local {metric}"] = _unit(metric) * sum(values) / len(values)
    return row


def _unit(metric: str) -> int:
    return 1 if metric == "loss" else 100
