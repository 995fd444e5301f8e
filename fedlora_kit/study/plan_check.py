"""Estimates beside what finished runs really took: the store's records against `planning.estimate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.planning.rate import Rate

#: what an estimate is meant to keep to
FACTOR = 2.0


@dataclass(frozen=True)
class Compared:
    """Estimates beside records.

    Attributes:
        runs: one row a finished run: backbone, task, private ("DP" or ""), method, wall (s), seconds
        (estimate),
            ratio (estimate / wall), up, disk (the same ratios of sent and of stored bytes; NaN where nothing
            was).
        skipped: key -> why a run could not be compared.
    """

    runs: pd.DataFrame
    skipped: dict[str, str]


def compare_with_records(store: Store, rate_of: Callable[[RunSpec], Rate]) -> Compared:
    """Estimate every finished run of a store anew, and set it beside its record.

    Runs that were resumed are left out: their wall time is that of the last part. Wall times are as they were
    taken: what else the machine did meanwhile is in them, and so is the first encoding of a data set, which
    only one run of a process pays for.
    """
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for entry in store.entries():
        try:
            rows.append(_row(entry, rate_of))
        except FedloraError as error:
            skipped[entry.key] = str(error)
    return Compared(pd.DataFrame(rows), skipped)


def _row(entry: Entry, rate_of: Callable[[RunSpec], Rate]) -> dict[str, Any]:
    if entry.provenance.get("resumed_after_round") is not None:
        raise FedloraError("it was resumed", "its wall time is that of the last part")
    spec = RunSpec.parse(entry.spec)
    rate = rate_of(spec)
    cost = estimate(spec, gpu=rate.gpu)
    seconds, wall = rate.seconds(cost), float(entry.provenance["wall_seconds"])
    sent = float(entry.results["bytes_up"])
    stored = sum(file.stat().st_size for file in entry.path.rglob("*") if file.is_file())
    return {
        "backbone": spec.model.backbone,
        "task": spec.data.task,
        "private": "DP" if spec.privacy is not None else "",
        "method": spec.method.name,
        "wall": wall,
        "seconds": seconds,
        "ratio": seconds / wall,
        "up": cost.bytes_up / sent if sent else float("nan"),
        "disk": cost.store_bytes / stored,
    }


def by_kind(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a kind of run (backbone, task, DP): how the estimates lie.

    Columns: backbone, task, private, runs; wall and seconds (medians); ratio, low, high (median and range of
    estimate / wall); quiet (the median ratio of the fastest tenth of the runs: those that other work
    disturbed least); within (share of the runs within `FACTOR`); up, disk (median ratios).
    """

    def summary(group: pd.DataFrame) -> pd.Series:
        ratio = group["ratio"]
        fast = group[group["wall"] <= group["wall"].quantile(0.1)]
        return pd.Series(
            {
                "runs": len(group),
                "wall": group["wall"].median(),
                "seconds": group["seconds"].median(),
                "ratio": ratio.median(),
                "low": ratio.min(),
                "high": ratio.max(),
                "quiet": fast["ratio"].median(),
                "within": ratio.between(1 / FACTOR, FACTOR).mean(),
                "up": group["up"].median(),
                "disk": group["disk"].median(),
            }
        )

    by = ["backbone", "task", "private"]
    return runs.groupby(by)[list(runs.columns)].apply(summary).reset_index().astype({"runs": int})
