"""Training runs of items in one pool of warm processes on this machine, before the notebooks ask for them."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedlora_kit.batch.progress import Training
from fedlora_kit.batch.stages import Planned, Wanted, plan_item, train_stages
from fedlora_kit.batch.warm import Outcome, WarmPool, train
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.many import default_jobs
from fedlora_kit.experiments.setup import resolve_device
from fedlora_kit.experiments.spec import RunSpec, external
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import has_runs
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.planning.rate import Rate

_log = logging.getLogger(__name__)

#: a core of no particular machine: it orders runs and weighs them; what they take is measured as they end
ROUGH = Rate(4e10, 1e-3, 3e-3, 0.01, 0.5, 0.5, how="given")
Work = Callable[..., Outcome]
_TICK = 0.5  # seconds between two looks at the clock
_BREAKS = 3  # pools that may break before the rest is left to the notebooks


class Pool(Protocol):
    """What trains; `warm.WarmPool` is one."""

    def submit(self, work: Work, /, *given: Any) -> Future[Outcome]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Trained:
    """What was done before the notebooks.

    Attributes:
        finished, failed: runs trained now that are in the store, and that diverged.
        left: of the items' runs, those that are left to the notebooks: what stopped them, by key.
        unplanned: items whose runs could not be named, and why.
        on_cpu: whether the device that trains is a CPU.
    """

    finished: int
    failed: int
    left: Mapping[str, str]
    unplanned: Mapping[str, str]
    on_cpu: bool = True

    @property
    def side_by_side(self) -> bool:
        """Whether notebooks may run at the same time now: what they still train shares the cores, and needs
        no GPU, nor the memory that a process was killed for.
        """
        return self.on_cpu and not self.left


def train_items(
    items: Mapping[str, Mapping[str, Any]],
    profile: str,
    *,
    store: Store | None = None,
    log: Path | None = None,
    tell: Callable[[Training], object] = lambda _: None,
    pool: Callable[[int], Pool] | None = None,
) -> Trained:
    """Train what items need and the store lacks: grids first, and the longest first.

    Several runs go side by side on a CPU (`many.default_jobs`), one on a GPU. No process is started where
    nothing is to be trained. Whatever cannot be planned or trained is left to the item's notebook, which
    meets the error itself; a run that diverges is recorded as failed.

    Args:
        items: item -> its notebook's parameters, typed.
        store: where the notebooks look; the usual store if None.
        log: the file for what the processes print.
        tell: is told of the progress, about every second.
        pool: number of processes -> the pool.
    """
    planned: dict[str, Planned] = {}
    unplanned: dict[str, str] = {}
    for item, given in items.items():
        if not has_runs(item):
            continue  # a notebook of the user's own
        try:
            planned[item] = plan_item(item, profile, given)
        except Exception as error:  # the notebook says why
            unplanned[item] = f"{type(error).__name__}: {error}".splitlines()[0]
    on_cpu = all(_on_cpu(one.device) for one in planned.values())

    def warm(processes: int) -> Pool:
        return WarmPool(processes, log, one_thread=on_cpu)

    batch = LocalBatch(store or Store(), default_jobs() if on_cpu else 1, pool or warm, tell)
    batch.expect(planned)
    try:
        train_stages(planned, batch)
    finally:
        batch.close()
    _log.info("%d runs trained, %d failed, %d left", batch.finished, batch.failed, len(batch.left))
    return Trained(batch.finished, batch.failed, batch.left, unplanned, on_cpu)


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
        pool: Callable[[int], Pool],
        tell: Callable[[Training], object] = lambda _: None,
        seconds: Callable[[RunSpec], float | None] = rough_seconds,
    ) -> None:
        self.store = store
        self.finished = self.failed = 0
        self.left: dict[str, str] = {}
        self._make, self._processes, self._tell, self._seconds = pool, processes, tell, seconds
        self._pool: Pool | None = None
        self._breaks = 0
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
        """Take up runs, each once; what the store has is over, what only its notebook knows is left to it."""
        if chosen_by is not None:
            self._grids.pop(chosen_by, None)
            self._later.pop(chosen_by, None)
        for run in runs:
            key = _key(run.spec)
            if key is None or key in self._keys:
                continue
            self._keys.add(key)
            try:
                stored = self._stored(key)
            except (FedloraError, OSError) as error:  # an entry that cannot be read
                self.left[key] = str(error)
                continue
            if stored:
                self._over.add(key)
            elif external(run.spec):
                self.left[key] = "only its notebook knows what it names"
            else:
                self._open()  # its libraries are imported while the runs are weighed here
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
        broken = False
        try:
            while self._waiting and len(self._running) < self._processes:
                self._submit(self._waiting[0])
                heapq.heappop(self._waiting)
        except BrokenExecutor:
            broken = True
        if not self._running and not broken:
            return False
        ended: set[Future[Outcome]] = set()
        while self._running and not ended:
            ended, _ = wait(self._running, timeout=_TICK, return_when=FIRST_COMPLETED)
            self._tell(self.progress())
        for future in ended:
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                broken = True  # it stays among the running ones
                continue
            one, _ = self._running.pop(future)
            reason = f"{type(error).__name__}: {error}"
            self._end(one, Outcome("error", 0.0, reason) if error is not None else future.result())
        if broken:
            self._mend()
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
            # spread over the processes; and no run is shorter than itself
            remaining = max([(waiting * scale + sum(under_way)) / self._processes, *under_way])
        ended = self.finished + self.failed
        total = ended + len(self._running) + len(self._waiting) + sum(map(len, self._later.values()))
        return Training(ended, self.failed, total, now - self._begun, remaining)

    def close(self) -> None:
        """End the processes, at once."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _stored(self, key: str) -> bool:
        status = self.store.status(key)
        return status == "failed" or (status == "finished" and self.store.load(key) is not None)

    def _open(self) -> Pool:
        if self._pool is None:
            self._pool = self._make(self._processes)
            if not self._breaks:
                self._later = {item: self._chosen_seconds(planned) for item, planned in self._grids.items()}
        return self._pool

    def _submit(self, one: _Waiting) -> None:
        description, root = one.run.spec.model_dump(mode="json"), str(self.store.root)
        future = self._open().submit(train, description, one.key, one.run.device, root)
        self._running[future] = (one, time.monotonic())

    def _end(self, one: _Waiting, outcome: Outcome) -> None:
        _log.debug("run %s: %s after %.1f s %s", one.key, outcome.status, outcome.seconds, outcome.error)
        if outcome.status == "error":
            self.left[one.key] = outcome.error
            return
        self._over.add(one.key)
        self.finished += outcome.status == "finished"
        self.failed += outcome.status == "failed"
        self._estimated += one.seconds
        self._taken += outcome.seconds

    def _mend(self) -> None:
        """After a process was killed: which one cannot be told, so the runs under way are left to their
        notebooks, and the others go on one at a time.
        """
        self.close()
        self._breaks += 1
        self._processes = 1
        for one, _ in self._running.values():
            self.left[one.key] = "its process was killed (out of memory, most likely)"
        self._running.clear()
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


def _key(spec: RunSpec) -> str | None:
    """A run's key; None where its data or its backbone are not on this machine, or cannot be read."""
    try:
        return spec.key()
    except (FedloraError, OSError):
        return None


def _on_cpu(device: str) -> bool:
    try:
        return resolve_device(device).type == "cpu"
    except FedloraError:  # no such device here: each of its runs will say so
        return False
