"""Training runs of items on their way through an executor: grids first, then what they choose."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from fedlora_kit.engines.stages import Planned, Training
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.own_parts import external
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.planning.rate import Rate
from fedlora_kit.running.scheduler import Executor, Scheduler
from fedlora_kit.running.training import Job, Outcome

_log = logging.getLogger(__name__)

#: a core of no particular machine: it orders runs and weighs them; what they take is measured as they end
ROUGH = Rate(4e10, 1e-3, 3e-3, 0.01, 0.5, how="given")


def rough_seconds(spec: RunSpec) -> float | None:
    """Estimated seconds of a run on a core of no particular machine; None if its sizes are not known."""
    try:
        return ROUGH.seconds(estimate(spec))
    except Exception:  # it only orders the runs
        return None


class Batch:
    """Runs on their way: grids go first, then the longest.

    Attributes:
        store: where they come to.
        finished, failed: how many were trained to the end, and how many diverged.
        left: key -> why this run could not be trained.
    """

    ONLY_HERE = "only its notebook knows what it names"

    def __init__(
        self,
        store: Store,
        executor: Executor,
        tell: Callable[[Training], object] = lambda _: None,
        seconds: Callable[[RunSpec], float | None] = rough_seconds,
    ) -> None:
        self.store = store
        self.finished = self.failed = 0
        self.left: dict[str, str] = {}
        self.keys: set[str] = set()
        self.ended: set[str] = set()
        self._tell, self._seconds, self._executor = tell, seconds, executor
        self._scheduler = Scheduler(executor)
        self._begun = time.monotonic()
        self._grids: dict[str, Planned] = {}  # that have not chosen yet
        self._later: dict[str, list[float]] = {}  # estimated seconds of what these will choose
        self._estimated = self._taken = 0.0  # seconds of the runs that have ended

    def train(self, planned: Mapping[str, Planned]) -> None:
        """Train all runs of items; as soon as an item's grid is finished, those that it chooses.

        A grid that cannot be finished, or that nothing can be chosen from, has no chosen runs: the item's
        notebook says why.
        """
        self._grids = {item: one for item, one in planned.items() if one.runs.after is not None}
        for item, one in planned.items():
            self.add(one.runs.specs(), one.device, chooses=item in self._grids)
        while True:
            for item, one in list(self._grids.items()):
                if all(_key(spec) in self.ended for spec in one.runs.specs()):
                    del self._grids[item]
                    self._later.pop(item, None)
                    with suppress(Exception):
                        self.add(one.runs.chosen(self.store) or [], one.device)
            if not self.step():
                return

    def add(self, specs: Sequence[RunSpec], device: str = "auto", *, chooses: bool = False) -> None:
        """Take up runs, each once; what the store has is over, what a cell defines is its notebook's.

        Args:
            chooses: whether runs that are not known yet wait for these.
        """
        for spec in specs:
            key = _key(spec)
            if key is None or key in self.keys:
                continue
            self.keys.add(key)
            try:
                here = self._is_here(key, spec)
            except (FedloraError, OSError) as error:  # an entry that cannot be read
                self.left[key] = str(error)
                continue
            if here:
                self.ended.add(key)
            elif external(spec):
                self.left[key] = self.ONLY_HERE
            else:
                self._executor.expect(Job((), key, spec, device))
                if not self._later:
                    self._later = {item: self._chosen_seconds(one) for item, one in self._grids.items()}
                seconds = self._seconds(spec)
                # one of unknown length begins early: it may be long
                order = (not chooses, -(float("inf") if seconds is None else seconds), len(self.keys))
                self._scheduler.add(Job(order, key, spec, device, seconds or 1.0))

    def step(self) -> bool:
        """Keep the executor busy until a run ends; False if there is none."""
        ended = self._scheduler.step(lambda: self._tell(self.progress()))
        for job, outcome in ended or []:
            self._end(job, outcome)
        if ended is not None:
            self._tell(self.progress())
        return ended is not None

    @property
    def open(self) -> int:
        """Runs that wait or are under way."""
        return len(self._scheduler.waiting) + len(self._scheduler.running)

    def progress(self) -> Training:
        """How far the training is."""
        now, running = time.monotonic(), self._scheduler.running.values()
        scale = self._taken / self._estimated if self._estimated else None
        later = [seconds for runs in self._later.values() for seconds in runs]
        remaining = None
        if scale is not None:
            under_way = [max(0.0, job.seconds * scale - now + begun) for job, begun in running]
            waiting = sum(job.seconds for job in self._scheduler.waiting) + sum(later)
            # spread over as many as go at once; and no run is shorter than itself
            remaining = max([(waiting * scale + sum(under_way)) / self._scheduler.at_once, *under_way])
        ended = self.finished + self.failed
        return Training(ended, self.failed, ended + self.open + len(later), now - self._begun, remaining)

    def _is_here(self, key: str, spec: RunSpec) -> bool:
        """Whether a run is finished and whole, or has failed."""
        status = self.store.status(key)
        return status == "failed" or (status == "finished" and self.store.load(key) is not None)

    def _end(self, job: Job, outcome: Outcome) -> None:
        _log.debug("run %s: %s after %.1f s %s", job.key, outcome.status, outcome.seconds, outcome.error)
        if outcome.status in ("finished", "failed"):
            self.ended.add(job.key)
            self.finished += outcome.status == "finished"
            self.failed += outcome.status == "failed"
            self._estimated += job.seconds
            self._taken += outcome.seconds
        elif outcome.status != "sent again":
            self.left[job.key] = outcome.error

    def _chosen_seconds(self, planned: Planned) -> list[float]:
        try:
            return [self._seconds(spec) or 1.0 for spec in planned.runs.like_chosen()]
        except Exception:  # it will be known when they are chosen
            return []


def _key(spec: RunSpec) -> str | None:
    """A run's key; None where its data or its backbone are not on this machine, or cannot be read."""
    try:
        return spec.key()
    except (FedloraError, OSError):
        return None
