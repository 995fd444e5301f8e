"""What the page holds of each run: description, thinned history, ledger, provenance, in little space.

Only the runs that the items' tables name are read, however many the store holds. What many runs share (a
model, versions) is kept once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import rounded

T = TypeVar("T")
_POINTS, _FEWER, _MANY_RUNS = 80, 24, 3000
"""Points of a curve; of each where there are more runs than that."""
_OWN = ("started_utc", "wall_seconds", "peak_memory_bytes", "resumed_after_round")
"""What of the provenance differs from run to run."""


class Pool:
    """JSON values, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Where ``value`` stands in ``values``."""
        text = json.dumps(value, sort_keys=True)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(value)
        return self._places[text]


def run_data(keys: Iterable[str], store: Store | None = None) -> dict[str, Any]:
    """The page's data of these runs.

    Returns:
        ``pool``: values that runs refer to by position; ``runs``: key → ``spec`` (section → position),
        ``same`` (position of the shared provenance), ``own`` (the rest of it), ``results``, ``privacy``,
        ``curves`` (name → [[round, value], …], rounds counted from 1), or ``problem`` where the store does
        not hold the run or it is damaged.
    """
    wanted = list(dict.fromkeys(keys))
    store = Store() if store is None else store
    pool = Pool()
    points = _POINTS if len(wanted) <= _MANY_RUNS else _FEWER
    runs = {key: _run(Entry(key, store.root / key), pool, points) for key in wanted}
    return {"pool": pool.values, "runs": runs}


def _run(entry: Entry, pool: Pool, points: int) -> dict[str, Any]:
    if not entry.path.is_dir():
        return {"problem": "not in the store of this machine"}
    try:
        provenance = entry.provenance
        return {
            "spec": {name: pool.place(_short(value)) for name, value in entry.spec.items()},
            "same": pool.place(_short({k: v for k, v in provenance.items() if k not in (*_OWN, "seed")})),
            "own": {k: provenance[k] for k in _OWN if provenance.get(k) is not None},
            "results": _short({k: v for k, v in entry.results.items() if k != "client_sizes"}),
            "privacy": _short(entry.privacy) if entry.privacy else None,
            "curves": curves(entry.history, points),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FedloraError) as error:
        return {"problem": f"damaged: {error}"}


def curves(history: Sequence[Mapping[str, Any]], points: int = _POINTS) -> dict[str, list[list[float]]]:
    """Score and loss over rounds, thinned to ``points`` a curve with both ends kept.

    Returns:
        "<part> <metric>" and "train loss" → [[round from 1, value to four digits], …]; values that are not
        numbers are left out.
    """
    found: dict[str, list[list[float]]] = {}
    for record in history:
        at = int(record["round"]) + 1
        scores = {f"{part} {metric}": value for (part, metric), value in scores_of(record).items()}
        for name, value in [*scores.items(), ("train loss", record.get("train_loss"))]:
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append([at, rounded(value, 4)])
    return {name: list(thinned(curve, points)) for name, curve in found.items()}


def scores_of(record: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """A round's scores by scored part and metric; empty where it was not scored."""
    parts = record.get("eval") or {}
    return {(part, m): v for part, metrics in parts.items() for m, v in metrics.items() if m != "examples"}


def thinned(rows: Sequence[T], most: int) -> Sequence[T]:
    """At most ``most`` of the rows, evenly, with both ends; all of them for 0."""
    if most <= 0 or len(rows) <= most:
        return rows
    last = len(rows) - 1
    return [rows[0]] if most == 1 else [rows[round(i * last / (most - 1))] for i in range(most)]


def _short(value: Any) -> Any:
    """The same with six significant digits, and lists of a client each left out where they are long."""
    if isinstance(value, float):
        return rounded(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items() if not (isinstance(v, list | dict) and len(v) > 40)}
    return [_short(v) for v in value] if isinstance(value, list) else value
