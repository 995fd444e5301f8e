"""The processes of one machine that train runs side by side: some for the CPU, and some for each GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fedlora_kit.devices import free_bytes, gpu_count, visible_gpus
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.placing import on_cpu, wanted_device
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.running.shares import memory_bytes, share_of_gpu

log = logging.getLogger(__name__)
_PROBE_SECONDS = 180.0
_WHOLE = 1000  # of a GPU, in thousandths


class Pool(Protocol):
    """Processes that work; `engines.warm.WarmPool` is one."""

    def submit(self, work: Callable[..., Any], /, *given: Any) -> Future[Any]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class _Seat:
    gpu: str  # its name for CUDA_VISIBLE_DEVICES; "" is the CPU
    share: int  # of the GPU's memory, in thousandths


P = TypeVar("P", bound=Pool)


def default_jobs() -> int:
    """Runs at a time: ``FEDLORA_JOBS``, or the number of usable cores."""
    named = os.environ.get("FEDLORA_JOBS")
    if named and named.isdigit() and int(named) > 0:
        return int(named)
    from joblib import cpu_count

    return int(cpu_count())  # what this process may use (affinity, containers), not what there is


def jobs_on_gpus() -> int:
    """Runs at a time where GPUs train: ``FEDLORA_JOBS``, or a core each, but one for each GPU at least."""
    return default_jobs() if os.environ.get("FEDLORA_JOBS") else max(default_jobs(), gpu_count())


class Places(Generic[P]):
    """Takes runs as long as there is room: ``jobs`` at a time, and on a GPU as many as its memory holds.

    Each GPU has processes of its own, which see no other GPU (``CUDA_VISIBLE_DEVICES``); those of the CPU see
    none. What is free on a GPU is asked of its first process, once.

    Args:
        make: (processes, ``CUDA_VISIBLE_DEVICES``) -> the pool.
        needs: bytes of GPU memory that a run takes; None: unknown, it gets a GPU of its own.
    """

    def __init__(
        self,
        jobs: int,
        make: Callable[[int, str], P],
        needs: Callable[[RunSpec], int | None] = memory_bytes,
    ) -> None:
        self.jobs = jobs
        self._make, self._needs = make, needs
        self._pools: dict[str, P] = {}
        self._free_bytes: dict[str, int | None] = {}
        self._seats: dict[Future[Any], _Seat] = {}

    @property
    def full(self) -> bool:
        """Whether no run is taken before another one ends."""
        return len(self._seats) >= self.jobs

    def send(
        self, spec: RunSpec, asked: str, start: Callable[[P, str], Future[Any]], *, alone: bool = False
    ) -> Future[Any] | None:
        """Start a run if there is room for it.

        Args:
            asked: the device, as the user named it.
            start: submits the run to the pool that it is given, with the device as that pool's processes
                name it.
            alone: with a GPU of its own.

        Raises:
            BadValue: the device is not here.
            BrokenExecutor: see `broken`, of a pool that nothing is under way in.
        """
        cpu = on_cpu(spec, asked)
        seat = None if self.full else _Seat("", 0) if cpu else self._seat(spec, asked, alone)
        if seat is None:
            return None
        future = start(self.pool(seat.gpu), "cpu" if cpu else "cuda")
        self._seats[future] = seat
        return future

    def pool(self, gpu: str = "") -> P:
        """The processes of a GPU, or of the CPU; started if they are not."""
        if gpu not in self._pools:
            self._pools[gpu] = self._make(self.jobs, gpu)
        return self._pools[gpu]

    def over(self, future: Future[Any]) -> None:
        """A run has ended: its place is free."""
        self._seats.pop(future)

    def broken(self, future: Future[Any] | None) -> list[Future[Any]]:
        """End the pool of a run whose process was killed (all pools, if none is named); what ran in it."""
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

    def _seat(self, spec: RunSpec, asked: str, alone: bool) -> _Seat | None:
        """On the GPU with the most room that is enough."""
        names, number = visible_gpus(), wanted_device(spec, asked).partition(":")[2]
        taken = {gpu: sum(s.share for s in self._seats.values() if s.gpu == gpu) for gpu in names}
        for gpu in sorted([names[int(number)]] if number else names, key=lambda gpu: taken[gpu]):
            share = _WHOLE if alone else round(_WHOLE * share_of_gpu(self._needs(spec), self._room(gpu)))
            if taken[gpu] + share <= _WHOLE:
                return _Seat(gpu, share)
        return None

    def _room(self, gpu: str) -> int | None:
        if gpu not in self._free_bytes:
            try:
                self._free_bytes[gpu] = int(self.pool(gpu).submit(free_bytes).result(_PROBE_SECONDS))
            except (FedloraError, RuntimeError, TimeoutError) as error:  # the runs themselves will say it
                log.debug("GPU %s does not say how much memory is free: %s", gpu, error)
                self._free_bytes[gpu] = None
        return self._free_bytes[gpu]
