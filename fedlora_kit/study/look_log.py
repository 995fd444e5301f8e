"""Which looks were taken at an item's results: ``<store>/.looks/<profile>/<item>.json``, beside its runs.

Results are the same question as earlier ones if they share a run with them (a row, where they name no runs).
Their first look is at the seeds that came first, and every other set of seeds is a further one, more seeds or
fewer; the same seeds again are the look that they were. What changes the key of every run (another setting,
other code, other data) is another question. One seed alone has no interval, and is no look.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlora_kit import paths
from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.locks import KeyLock

if TYPE_CHECKING:
    import pandas as pd

FOLDER = ".looks"

_judged_for: tuple[str, str] | None = (
    None  # not a context variable: a notebook's cells have contexts of their own
)


@dataclass(frozen=True)
class Look:
    """A look: the how manyth, counted from 1, and at which seeds."""

    number: int
    seeds: list[Any]


@dataclass(frozen=True)
class _Taken:
    seeds: list[Any]
    rows: list[str]


def judge_for(item: str, profile: str) -> None:
    """From now on this process judges results of that item and profile."""
    global _judged_for
    _judged_for = item, profile


def take(results: pd.DataFrame) -> Look:
    """The look that judging these results is; it is written down.

    Without an item (`judge_for`), or without two seeds, it is a first look that nobody counts.

    Raises:
        FedloraError: the log of earlier looks is damaged, or cannot be written.
    """
    seeds = sorted(results["seed"].dropna().unique().tolist()) if "seed" in results else []
    if _judged_for is None or len(seeds) < 2:
        return Look(1, seeds)
    item, profile = _judged_for
    path = paths.runs_dir() / FOLDER / profile / f"{item}.json"
    lock, rows = KeyLock(path.with_suffix(".lock")), _rows(results)
    try:
        with disk_guard(path):
            lock.acquire(lambda _: None)
        taken = _read(path)
        alike = [one for one in taken if rows & set(one.rows)]
        if not any(one.seeds == seeds and rows <= set(one.rows) for one in alike):
            atomic.write_json(path, [*map(asdict, taken), asdict(_Taken(seeds, sorted(rows)))])
    finally:
        lock.release()
    looks = list(dict.fromkeys(tuple(one.seeds) for one in [*alike, _Taken(seeds, [])]))
    return Look(looks.index(tuple(seeds)) + 1, seeds)


def _read(path: Path) -> list[_Taken]:
    try:
        return [_Taken(**one) for one in atomic.from_json(path.read_bytes())] if path.exists() else []
    except (ValueError, TypeError) as error:
        raise FedloraError(
            f"the log of looks {path} is damaged: {error}",
            "restore it; without it the looks at this item count from 1 again",
        ) from None


def _rows(results: pd.DataFrame) -> set[str]:
    """What tells a result from others: its run, else its coordinates."""
    from pandas.api.types import is_float_dtype
    from pandas.util import hash_pandas_object

    if "key" in results:
        return set(results["key"].dropna().astype(str))
    words = results.loc[:, [not is_float_dtype(kind) for kind in results.dtypes]].astype(str)
    return {f"{number:016x}" for number in hash_pandas_object(words, index=False)}
