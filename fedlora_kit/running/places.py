"""The processes of one machine that train runs side by side: some for the CPU, and some for each GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedlora_kit.devices import free_bytes, gpu_count, visible_gpus
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.own_parts import own_modules
from fedlora_kit.experiments.placing import on_cpu, wanted_device
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.running.pools import WarmPool
from fedlora_kit.running.scheduler import Executor
from fedlora_kit.running.shares import memory_bytes, share_of_gpu
from fedlora_kit.running.training import Job, Outcome, work

log = logging.getLogger(__name__)
_PROBE_SECONDS = 180.0
_WHOLE = 1000  # of a GPU, in thousandths


class Pool(Protocol):
    """Processes that work; `pools.WarmPool` is one."""

    def submit(self, work: Callable[..., Any], /, *given: Any) -> Future[Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class _Seat:
    gpu: str  # its name for CUDA_VISIBLE_DEVICES; "" is the CPU
    share: int  # of the GPU's memory, in thousandths


def default_jobs() -> int:
    """Runs at a time: ``FEDLORA_JOBS``, or the number of usable cores."""
    named = os.environ.get("FEDLORA_JOBS")
    if named and named.isdigit() and int(named) > 0:
        return int(named)
    return cores()


def cores() -> int:
    """Cores that this process may use (affinity, containers), not what there is."""
    from joblib import cpu_count

    return int(cpu_count())


def jobs_on_gpus() -> int:
    """Runs at a time where GPUs train: ``FEDLORA_JOBS``, or a core each, but one for each GPU at least."""
    return default_jobs() if os.environ.get("FEDLORA_JOBS") else max(default_jobs(), gpu_count())


def trains_on_cpu(spec: RunSpec, asked: str) -> bool:
    """Whether a run needs no GPU; also where it asks for one that is not here, which it will say itself."""
    try:
        return on_cpu(spec, asked)
    except FedloraError:
        return False


class Places(Executor):
    """Takes runs as long as there is room: ``jobs`` at a time, and on a GPU as many as its memory holds.

    Each GPU has processes of its own, which see no other GPU (``CUDA_VISIBLE_DEVICES``); those of the CPU see
    none. What is free on a GPU is asked of its first process, once.

    Args:
        root: of the store that the runs go to.
        make: (processes, ``CUDA_VISIBLE_DEVICES``) -> the pool.
        needs: bytes of GPU memory that a run takes; None: unknown, it gets a GPU of its own.
        force: try runs again that failed.
    """

    def __init__(
        self,
        jobs: int,
        root: Path,
        make: Callable[[int, str], Pool] = WarmPool,
        needs: Callable[[RunSpec], int | None] = memory_bytes,
        force: bool = False,
    ) -> None:
        self.jobs = jobs
        self._make, self._needs, self._given = make, needs, (str(root), force)
        self._pools: dict[str, Pool] = {}
        self._free_bytes: dict[str, int | None] = {}
        self._seats: dict[Future[Any], _Seat] = {}

    def expect(self, job: Job) -> None:
        """Start the CPU's processes for a run that needs no GPU: they import its libraries meanwhile."""
        if trains_on_cpu(job.spec, job.device):
            self._pool("")

    def submit(self, job: Job) -> Future[Outcome] | None:
        """As `Executor.submit`; a device that is not here is a `BadValue`."""
        cpu = on_cpu(job.spec, job.device)
        full = len(self._seats) >= self.jobs
        seat = None if full else _Seat("", 0) if cpu else self._seat(job)
        if seat is None:
            return None
        run = job.spec.model_dump(mode="json"), own_modules(job.spec), job.key, "cpu" if cpu else "cuda"
        future = self._pool(seat.gpu).submit(work, *run, *self._given)
        self._seats[future] = seat
        return future

    def over(self, future: Future[Outcome]) -> None:
        self._seats.pop(future)

    def broken(self, future: Future[Outcome] | None) -> list[Future[Outcome]]:
        """As `Executor.broken`; from now on runs go one at a time."""
        self.jobs = 1
        gpus = set(self._pools) if future is None else {self._seats[future].gpu}
        lost = [other for other, seat in self._seats.items() if seat.gpu in gpus]
        for other in lost:
            self.over(other)
        for gpu in gpus & set(self._pools):
            self._pools.pop(gpu).close()
        return lost

    def close(self) -> None:
        """End the processes, at once."""
        while self._pools:
            self._pools.popitem()[1].close()

    def _pool(self, gpu: str) -> Pool:
        """The processes of a GPU, or of the CPU (""); started if they are not."""
        if gpu not in self._pools:
            self._pools[gpu] = self._make(self.jobs, gpu)
        return self._pools[gpu]

    def _seat(self, job: Job) -> _Seat | None:
        """On the GPU with the most room that is enough."""
        names, number = visible_gpus(), wanted_device(job.spec, job.device).partition(":")[2]
        taken = {gpu: sum(s.share for s in self._seats.values() if s.gpu == gpu) for gpu in names}
        for gpu in sorted([names[int(number)]] if number else names, key=lambda gpu: taken[gpu]):
            share = share_of_gpu(self._needs(job.spec), self._room(gpu))
            thousandths = _WHOLE if job.alone else round(_WHOLE * share)
            if taken[gpu] + thousandths <= _WHOLE:
                return _Seat(gpu, thousandths)
        return None

    def _room(self, gpu: str) -> int | None:
        if gpu not in self._free_bytes:
            try:
                self._free_bytes[gpu] = int(self._pool(gpu).submit(free_bytes).result(_PROBE_SECONDS))
            except (FedloraError, RuntimeError, TimeoutError) as error:  # the runs themselves will say it
                log.debug("GPU %s does not say how much memory is free: %s", gpu, error)
                self._free_bytes[gpu] = None
        return self._free_bytes[gpu]
