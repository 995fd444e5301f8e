"""What a notebook shows before it runs: how long it will take, and what came of the last time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedlora_kit import paths
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import duration
from fedlora_kit.papers.runs_of import has_runs, planned_runs
from fedlora_kit.reporting.outputs import count_claims, read_claims
from fedlora_kit.reporting.tables import read_rows

_ROWS = 20  # of a table that is shown


@dataclass(frozen=True)
class Opening:
    """``time``, ``last``: sentences, empty where nothing is known. ``picture``: a PNG, or a table (.md)."""

    time: str
    last: str
    picture: Path | None


def opening(item: str, profile: str, folder: Path, store: Store | None = None) -> Opening:
    """What is known beforehand of an item, without training, measuring or asking the Hub.

    Args:
        folder: the item's outputs (`outputs.item_folder`), which may be missing or damaged.
        store: where finished runs lie; the usual store if None.
    """
    store = store or Store()
    try:
        status = json.loads((folder / "status.json").read_text("utf-8"))
        if status["status"] == "ok":
            return Opening(
                _time(folder, float(status["seconds"]), store), _last(folder, status), _picture(folder)
            )
    except (OSError, ValueError, KeyError, TypeError, FedloraError):
        pass
    shown = paths.home() / "figures" / profile / "gallery" / item.replace("/", "-")
    there = [path for kind in (".png", ".md") if (path := shown.with_name(shown.name + kind)).is_file()]
    last = "Not run here yet; this is the kit's own result." if there else ""
    return Opening(_planned(item, profile), last, there[0] if there else None)


def _time(folder: Path, seconds: float, store: Store) -> str:
    """By the runs that the tables name and what they took when they were trained."""
    keys: dict[str, None] = {}
    for path in sorted(folder.glob("*.csv")):
        header, rows = read_rows(path)
        if "key" in header:
            keys |= dict.fromkeys(row[header.index("key")] for row in rows)
    there = [Entry(key, store.root / key) for key in keys if (store.root / key).is_dir()]
    if not keys:
        return f"Time: about {duration(seconds)}, as the last time."
    took = [float(entry.provenance.get("wall_seconds") or 0) for entry in there]
    alone = "one after the other"
    if len(there) == len(keys):
        known = f"its {len(keys)} training runs are in the store (they took {duration(sum(took))}, {alone})"
        return f"Time: with the settings of the last time at most {duration(seconds)}; {known}."
    missing = len(keys) - len(there)
    known = f", about {duration(missing * sum(took) / len(took))}, {alone}" if sum(took) else ""
    return f"Time: {missing} of the last time's {len(keys)} runs are not in the store and are trained{known}."


def _planned(item: str, profile: str) -> str:
    try:
        planned = planned_runs(item, profile) if has_runs(item) else None
        count = len(planned.specs()) + len(planned.like_chosen()) if planned else 0
    except FedloraError:
        return ""
    if not count:
        return ""
    return (
        f"Time: {count} training runs, less those that the store has already. "
        f"`fedlora plan {item} --profile {profile}` says how long they take on this machine."
    )


def _last(folder: Path, status: dict[str, object]) -> str:
    counts = count_claims(read_claims(folder))
    said = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    return f"Last time ({str(status['finished'])[:10]}): " + (f"of the claims {said}." if said else "done.")


def _picture(folder: Path) -> Path | None:
    """The figure, else any, else a short table."""
    drawn = sorted(folder.glob("*.png"), key=lambda path: (path.stem != "figure", path.stem))
    table = folder / "table.md"
    if drawn or not table.is_file() or len(table.read_text("utf-8").splitlines()) > _ROWS + 2:
        return drawn[0] if drawn else None
    return table
