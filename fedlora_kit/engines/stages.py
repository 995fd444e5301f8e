"""What is trained before the notebooks, and how far that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedlora_kit.numerals import clock
from fedlora_kit.papers.runs_of import planned_runs
from fedlora_kit.study.planned import Runs


@dataclass(frozen=True)
class Planned:
    """An item's runs, and the device that its notebook names: "auto", "cpu", "cuda", "cuda:<n>"."""

    runs: Runs
    device: str


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
