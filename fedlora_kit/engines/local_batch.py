"""Training runs on their way through the processes of this machine."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field, replace

from fedlora_kit.engines.stages import Planned, Training, Wanted, is_stored
from fedlora_kit.engines.warm import Outcome, train
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.placing import on_cpu, wanted_device
from fedlora_kit.experiments.spec import RunSpec, external
from fedlora_kit.experiments.store import Store
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.planning.rate import Rate
from fedlora_kit.running.places import Places, Pool

_log = logging.getLogger(__name__)

#: a core of no particular machine: it orders runs and weighs them; what they take is measured as they end
ROUGH = Rate(4e10, 1e-3, 3e-3, 0.01, 0.5, how="given")
_TICK = 0.5  # seconds between two looks at the clock
_BREAKS = 3  # pools that may break before the rest is left to the notebooks


def rough_seconds(spec: RunSpec) -> float | None:
    """Estimated seconds of a run on a core of no particular machine; None if its sizes are not known."""
    try:
        return ROUGH.seconds(estimate(spec))
    except Exception:  # it only orders the runs
        return None


class LocalBatch:
    """Runs on their way through a pool (see `stages.Trainer`).

    Attributes:
        store: where they come to.
        finished, failed: how many were trained here to the end, and how many diverged.
        left: key -> why this run is left to its notebook.
    """

    def __init__(
        self,
        store: Store,
        processes: int,
        pool: Callable[[int, str], Pool],
        tell: Callable[[Training], object] = lambda _: None,
        seconds: Callable[[RunSpec], float | None] = rough_seconds,
    ) -> None:
        self.store = store
        self.finished = self.failed = 0
        self.left: dict[str, str] = {}
        self._tell, self._seconds = tell, seconds
        self._places: Places[Pool] = Places(processes, pool)
        self._at_once = processes
        self._opened, self._breaks = False, 0
        self._begun = time.monotonic()
        self._keys: set[str] = set()
        self._over: set[str] = set()
        self._waiting: list[_Waiting] = []  # a heap
        self._running: dict[Future[Outcome], tuple[_Waiting, float]] = {}  # and when it began
        self._grids: dict[str, Planned] = {}  # that have not chosen yet
        self._later: dict[str, list[float]] = {}  # estimated seconds of what these will choose
        self._estimated = self._taken = 0.0  # seconds of the runs that have ended

    def expect(self, planned: Mapping[str, Planned]) -> None:
        """Name the items, so that the progress counts what their grids will choose."""
        self._grids = {item: one for item, one in planned.items() if one.runs.after is not None}

    def add(self, runs: Sequence[Wanted], chosen_by: str | None = None) -> None:
        """Take up runs, each once; what the store has is over, what a cell defines is its notebook's."""
        if chosen_by is not None:
            self._grids.pop(chosen_by, None)
            self._later.pop(chosen_by, None)
        for run in runs:
            key = _key(run.spec)
            if key is None or key in self._keys:
                continue
            self._keys.add(key)
            try:
                stored = is_stored(self.store, key)
            except (FedloraError, OSError) as error:  # an entry that cannot be read
                self.left[key] = str(error)
                continue
            if stored:
                self._over.add(key)
            elif external(run.spec):
                self.left[key] = "only its notebook knows what it names"
            else:
                self._open(run)  # its libraries are imported while the runs are weighed here
                seconds = self._seconds(run.spec)
                # one of unknown length begins early: it may be long
                length = seconds if seconds is not None else float("inf")
                order = (not run.chooses, -length, len(self._keys))
                heapq.heappush(self._waiting, _Waiting(order, key, run, seconds or 1.0))

    def over(self, spec: RunSpec) -> bool:
        """Whether a run is finished or failed."""
        return _key(spec) in self._over

    def step(self) -> bool:
        """Keep the processes busy until a run ends; False if there is none."""
        broken: list[Future[Outcome] | None] = []
        try:
            self._submit_all()
        except BrokenExecutor:
            broken = [None]
        if not self._running and not broken:
            return False
        self._at_once = max(1, len(self._running))
        ended: set[Future[Outcome]] = set()
        while self._running and not ended:
            ended, _ = wait(self._running, timeout=_TICK, return_when=FIRST_COMPLETED)
            self._tell(self.progress())
        for future in ended:
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                broken.append(future)  # it stays among the running ones
                continue
            one, _ = self._running.pop(future)
            self._places.over(future)
            reason = f"{type(error).__name__}: {error}"
            self._end(one, Outcome("error", 0.0, reason) if error is not None else future.result())
        for dead in broken:
            if dead is None or dead in self._running:
                self._mend(dead)
        self._tell(self.progress())
        return True

    def progress(self) -> Training:
        """How far the training is."""
        now = time.monotonic()
        scale = self._taken / self._estimated if self._estimated else None
        remaining = None
        if scale is not None:
            under_way = [max(0.0, one.seconds * scale - now + begun) for one, begun in self._running.values()]
            later = [seconds for runs in self._later.values() for seconds in runs]
            waiting = sum(one.seconds for one in self._waiting) + sum(later)
            # spread over as many as go at once; and no run is shorter than itself
            remaining = max([(waiting * scale + sum(under_way)) / self._at_once, *under_way])
        ended = self.finished + self.failed
        total = ended + len(self._running) + len(self._waiting) + sum(map(len, self._later.values()))
        return Training(ended, self.failed, total, now - self._begun, remaining)

    def close(self) -> None:
        """End the processes, at once."""
        self._places.close()

    def _open(self, run: Wanted) -> None:
        """Start processes where this run will be trained, if it is clear where that is."""
        if trains_on_cpu(run):
            self._places.pool()
        if not self._opened:
            self._opened = True
            self._later = {item: self._chosen_seconds(planned) for item, planned in self._grids.items()}

    def _submit_all(self) -> None:
        """Start as many runs as there is room for, in their order; a full device holds up no other."""
        held, no_room = list[_Waiting](), set[str]()
        try:
            while self._waiting and not self._places.full:
                held.append(heapq.heappop(self._waiting))
                place = wanted_device(held[-1].run.spec, held[-1].run.device)
                try:
                    if place in no_room or not self._submit(held[-1]):
                        no_room.add(place)
                        continue
                except FedloraError as error:  # no such device here
                    self.left[held[-1].key] = str(error)
                held.pop()
        finally:
            for one in held:
                heapq.heappush(self._waiting, one)

    def _submit(self, one: _Waiting) -> bool:
        given = (one.run.spec.model_dump(mode="json"), one.key)
        root = str(self.store.root)

        def start(pool: Pool, device: str) -> Future[Outcome]:
            return pool.submit(train, *given, device, root)

        future = self._places.send(one.run.spec, one.run.device, start, alone=one.alone)
        if future is None:
            return False
        self._running[future] = (one, time.monotonic())
        return True

    def _end(self, one: _Waiting, outcome: Outcome) -> None:
        _log.debug("run %s: %s after %.1f s %s", one.key, outcome.status, outcome.seconds, outcome.error)
        if outcome.status == "out of memory" and not one.alone:
            heapq.heappush(self._waiting, replace(one, alone=True))
            return
        if outcome.status in ("error", "out of memory"):
            self.left[one.key] = outcome.error
            return
        self._over.add(one.key)
        self.finished += outcome.status == "finished"
        self.failed += outcome.status == "failed"
        self._estimated += one.seconds
        self._taken += outcome.seconds

    def _mend(self, dead: Future[Outcome] | None) -> None:
        """After a process was killed: which one cannot be told, so the runs under way beside it are left to
        their notebooks, and the others go on one at a time.
        """
        self._breaks += 1
        self._places.jobs = 1
        for future in self._places.broken(dead):
            one, _ = self._running.pop(future)
            self.left[one.key] = "its process was killed (out of memory, most likely)"
        if self._breaks >= _BREAKS:
            self.left |= {one.key: "processes were killed again and again" for one in self._waiting}
            self._waiting.clear()

    def _chosen_seconds(self, planned: Planned) -> list[float]:
        try:
            return [self._seconds(spec) or 1.0 for spec in planned.runs.like_chosen()]
        except Exception:  # it will be known when they are chosen
            return []


@dataclass(frozen=True, order=True)
class _Waiting:
    order: tuple[bool, float, int]
    key: str = field(compare=False)
    run: Wanted = field(compare=False)
    seconds: float = field(compare=False)  # estimated
    alone: bool = field(default=False, compare=False)  # on its GPU


def _key(spec: RunSpec) -> str | None:
    """A run's key; None where its data or its backbone are not on this machine, or cannot be read."""
    try:
        return spec.key()
    except (FedloraError, OSError):
        return None


def trains_on_cpu(run: Wanted) -> bool:
    """Whether a run needs no GPU."""
    try:
        return on_cpu(run.spec, run.device)
    except FedloraError:  # no such device here: each of its runs will say so
        return False
