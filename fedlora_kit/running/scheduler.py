"""Runs on their way through an executor: in order, as many at a time as it has room for."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import replace

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.placing import wanted_device
from fedlora_kit.running.training import Job, Outcome, refused

_TICK = 0.5  # seconds between two looks at the clock
_BREAKS = 3  # pools that may break before the rest is given up

Ended = tuple[Job, Outcome]


class Executor:
    """What trains runs: the processes of this machine (`places.Places`), or a cluster."""

    def expect(self, job: Job) -> None:
        """A run that will be submitted soon: what it needs may be started."""

    def submit(self, job: Job) -> Future[Outcome] | None:
        """Begin a run; None if there is no room for it before another one ends.

        Raises:
            FedloraError: it cannot be trained there.
            BrokenExecutor: a process was killed; see `broken`.
        """
        raise NotImplementedError

    def over(self, future: Future[Outcome]) -> None:
        """A run has ended: its place is free."""

    def broken(self, future: Future[Outcome] | None) -> list[Future[Outcome]]:
        """End the processes beside one that was killed (all, if none is named); the runs that they had."""
        return []


class Scheduler:
    """Keeps an executor busy. A run that finds too little memory on a GPU is sent again, with a GPU of its
    own; where a process is killed, the runs beside it are given up, as nobody can tell which one it was.

    Attributes:
        waiting: a heap.
        running: with the moment at which it began.
        at_once: how many went side by side last.
    """

    def __init__(self, executor: Executor) -> None:
        self.waiting: list[Job] = []
        self.running: dict[Future[Outcome], tuple[Job, float]] = {}
        self.at_once = 1
        self._executor, self._breaks = executor, 0

    def add(self, job: Job) -> None:
        """Take up a run."""
        heapq.heappush(self.waiting, job)

    def step(self, tick: Callable[[], object] = lambda: None) -> list[Ended] | None:
        """Wait until runs end: which, and how; None if none is on its way.

        Args:
            tick: called about twice a second.
        """
        over = self._submit_all()
        if not (over or self.running or self.waiting):
            return None
        self.at_once = max(1, len(self.running))
        ended: set[Future[Outcome]] = set()
        while self.running and not ended and not over:
            ended, _ = wait(self.running, _TICK, FIRST_COMPLETED)
            tick()
        return over + self._collect(ended)

    def _submit_all(self) -> list[Ended]:
        """Begin what there is room for; a full device holds up no other. The runs that cannot be begun."""
        over: list[Ended] = []
        held: list[Job] = []
        no_room: set[str] = set()
        broken = False
        while self.waiting and not broken:
            job = heapq.heappop(self.waiting)
            place, future = wanted_device(job.spec, job.device), None
            try:
                if place not in no_room:
                    future = self._executor.submit(job)
            except FedloraError as error:  # no such device here
                over.append((job, refused(error)))
                continue
            except BrokenExecutor:
                broken = True
            if future is not None:
                self.running[future] = (job, time.monotonic())
            else:
                no_room.add(place)
                held.append(job)
        for job in held:
            self.add(job)
        return over + (self._mend(None) if broken else [])

    def _collect(self, ended: Iterable[Future[Outcome]]) -> list[Ended]:
        over, dead = list[Ended](), list[Future[Outcome]]()
        for future in ended:
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                dead.append(future)
                continue
            job, _ = self.running.pop(future)
            self._executor.over(future)
            outcome = future.result() if error is None else refused(error)
            if outcome.status == "out of memory" and not job.alone:
                self.add(replace(job, alone=True))
                outcome = replace(outcome, status="sent again")
            over.append((job, outcome))
        for future in dead:
            if future in self.running:
                over += self._mend(future)
        return over

    def _mend(self, dead: Future[Outcome] | None) -> list[Ended]:
        self._breaks += 1
        lost = [self.running.pop(future)[0] for future in self._executor.broken(dead)]
        one = Outcome("killed", error="its process was killed (out of memory, most likely)")
        over = [(job, one) for job in lost]
        if self._breaks >= _BREAKS:
            more = Outcome("killed", error="processes were killed again and again")
            over += [(job, more) for job in self.waiting]
            self.waiting.clear()
        return over
