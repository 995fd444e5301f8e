"""Items' training runs in their order: those known at once, then those that finished grids choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import clock
from fedlora_kit.papers.runs_of import planned_runs
from fedlora_kit.study.planned import Runs


@dataclass(frozen=True)
class Wanted:
    """A run that an item asks for.

    Attributes:
        device: as the item's notebook names it: "auto", "cpu", "cuda", "cuda:<n>".
        chooses: whether runs that are not known yet wait for it.
    """

    spec: RunSpec
    device: str = "auto"
    chooses: bool = False


@dataclass(frozen=True)
class Planned:
    """An item's runs, and the device that its notebook names."""

    runs: Runs
    device: str

    def first(self) -> list[Wanted]:
        """The runs that are needed whatever comes out of them."""
        return [Wanted(spec, self.device, self.runs.after is not None) for spec in self.runs.specs()]

    def chosen(self, store: Store) -> list[Wanted] | None:
        """The runs that the finished first ones choose; None while one of those is missing."""
        specs = self.runs.chosen(store)
        return None if specs is None else [Wanted(spec, self.device) for spec in specs]


@dataclass(frozen=True)
class Training:
    """The training of all notebooks' runs, before the notebooks.

    Attributes:
        ended, failed: runs trained so far, and how many of them diverged.
        total: those and what is still to come, as far as it is known.
        elapsed, remaining: seconds; the latter estimated from the runs' sizes and what the ended ones took,
            None before the first.
    """

    ended: int
    failed: int
    total: int
    elapsed: float
    remaining: float | None

    def times(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{clock(self.elapsed)} elapsed, about {clock(self.remaining)} to go{failed}"


def plan_item(item: str, profile: str, parameters: Mapping[str, Any]) -> Planned:
    """An item's runs.

    Args:
        parameters: of its notebook, typed.

    Raises:
        UnknownName, BadValue: see `papers.runs_of.runs_of`.
    """
    return Planned(planned_runs(item, profile, **parameters), str(parameters.get("device", "auto")))
