"""One share of the training runs of items, for a plain job array: no notebook runs, nobody talks to anybody.

Every task of the array names the same runs and takes those whose key falls to it; all of them write to one
store on a shared file system. The notebooks are run once afterwards, and only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlora_kit.engines.stages import plan_item
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.running.many import Finished, run_all


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``of`` shares, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "3/8" is the third of eight.

        Raises:
            BadValue: it is not of that form, or there is no such share.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise BadValue(f"--shard {text!r}", "write i/n with i from 1 to n, such as 3/8")
        return cls(int(number), int(of))

    def takes(self, key: str) -> bool:
        """Whether a run is in this share: by its key alone, so that all shares agree."""
        return int(key, 16) % self.of == self.number - 1


@dataclass(frozen=True)
class Share:
    """What a share has done.

    Attributes:
        finished, failed: runs of this share that are in the store now, and that diverged.
        others: runs that fall to other shares.
        waiting: items whose grid is not finished yet by all shares: their chosen runs are still to come.
    """

    finished: int
    failed: int
    others: int
    waiting: tuple[str, ...]


def train_share(
    items: Mapping[str, Mapping[str, Any]],
    profile: str,
    shard: Shard,
    *,
    store: Store | None = None,
    train: Callable[..., list[Finished]] = run_all,
    say: Callable[[str], object] = print,
) -> Share:
    """Train what falls to a share: first the runs that are known at once, then those that finished grids
    choose.

    A chosen run needs its whole grid, of which other shares train a part. What they have not finished when
    this share comes to it is left: run the array a second time.

    Args:
        items: item -> its notebook's parameters, typed.
        store: on a file system that all shares see; the usual store if None.
        train: as `running.many.run_all`.

    Raises:
        UnknownName, BadValue: see `papers.runs_of.runs_of`.
        FedloraError: a run cannot be trained here; what was finished is kept.
    """
    store = store or Store()
    planned = {item: plan_item(item, profile, given) for item, given in items.items()}
    done: dict[str, Finished] = {}
    others: set[str] = set()

    def take(runs: Iterable[tuple[str, Sequence[RunSpec]]], label: str) -> None:
        mine: dict[str, dict[str, RunSpec]] = {}
        for device, specs in runs:
            keys = {spec.key(): spec for spec in specs}
            others.update(key for key in keys if not shard.takes(key))
            mine.setdefault(device, {}).update(
                {k: v for k, v in keys.items() if k not in others | done.keys()}
            )
        say(f"share {shard.number} of {shard.of}, {label}: {sum(map(len, mine.values()))} runs")
        for device, own in mine.items():
            for finished in train(list(own.values()), device=device, store=store, label=label):
                done[finished.key] = finished

    take([(one.device, one.runs.specs()) for one in planned.values()], "runs")
    chosen = {item: one.runs.chosen(store) for item, one in planned.items()}
    take([(planned[item].device, specs or []) for item, specs in chosen.items()], "chosen runs")
    failed = sum(run.entry is None for run in done.values())
    waiting = tuple(item for item, specs in chosen.items() if specs is None)
    return Share(len(done) - failed, failed, len(others), waiting)
