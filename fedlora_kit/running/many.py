"""Many runs at once: the finished ones from the store, the others trained in parallel processes."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fedlora_kit.devices import hide_gpus
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.placing import on_cpu, out_of_memory
from fedlora_kit.experiments.run import RunFailed, run
from fedlora_kit.experiments.setup import check_splits
from fedlora_kit.experiments.spec import RunSpec, external
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.running.places import Places, default_jobs, jobs_on_gpus

log = logging.getLogger(__name__)
#: a run's key and, if it failed, the record
_Done = tuple[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Finished:
    """One of the runs asked for: its entry, or the record of its failure (``entry`` is None then)."""

    spec: RunSpec
    key: str
    entry: Entry | None
    failure: dict[str, Any] | None = None


def run_all(
    specs: Sequence[RunSpec],
    *,
    device: str = "auto",
    jobs: int | None = None,
    store: Store | None = None,
    force: bool = False,
    label: str = "runs",
) -> list[Finished]:
    """Every run in the order asked for; each is trained at most once, however often it is listed.

    On a CPU each process computes with one thread and several runs go side by side: small models gain
    more from that than from threads. GPUs hold as many processes each as their memory allows (`places`).
    Splits are tried first: one that cannot be made stops all before anything is trained. A run that diverges
    does not stop the others; any other error does, and what has been trained by then stays in the store.
    Runs that name a task, method or partitioner registered outside the package are trained in this process.

    Args:
        jobs: processes; None for `places.default_jobs`; 1: this process trains, one run after the other.
        label: name on the progress bar.
    """
    store = store or Store()
    keys = [spec.key() for spec in specs]
    todo = {
        key: spec
        for key, spec in zip(keys, specs, strict=True)
        if store.status(key) != "finished" or store.load(key) is None
    }
    log.info("%s: %d from the store %s, %d to train", label, len({*keys}) - len(todo), store.root, len(todo))
    for key in dict.fromkeys(keys):
        log.debug("%s: run %s %s", label, key, "to train" if key in todo else "from the store")
    failures = _train(list(todo.values()), device, jobs, store, force, label) if todo else {}
    for key, failure in failures.items():
        warnings.warn(f"run {key} failed: {failure.get('error')}", stacklevel=2)
    return [
        Finished(spec, key, None if key in failures else store.load(key), failures.get(key))
        for spec, key in zip(specs, keys, strict=True)
    ]


def _train(
    specs: Sequence[RunSpec], device: str, jobs: int | None, store: Store, force: bool, label: str
) -> dict[str, dict[str, Any]]:
    """Train the runs that the store lacks; returns the records of those that failed, by key."""
    from tqdm.auto import tqdm

    if len(specs) > 1:
        check_splits(specs)
    small = [spec for spec in specs if on_cpu(spec, device)]
    large = [spec for spec in specs if not on_cpu(spec, device)]
    at_once = min(len(specs), jobs or (jobs_on_gpus() if large else default_jobs()))
    if any(external(spec) for spec in specs):
        at_once = 1  # what only this process knows cannot be named in another one
    root = str(store.root)
    log.info("%s: %d on the CPU, %d on GPUs, %d at a time", label, len(small), len(large), at_once)
    if at_once == 1:
        done: Iterator[_Done] = (_one(spec, device, root, force) for spec in specs)
    else:
        done = chain(_on_cores(small, root, force, at_once), _on_gpus(large, device, root, force, at_once))
    quiet = bool(os.environ.get("TQDM_DISABLE"))  # the headless runner sets it; notebook bars overlook it
    bar = tqdm(done, total=len(specs), desc=label, disable=quiet, file=sys.stderr, mininterval=1.0)
    try:
        return {key: failure for key, failure in bar if failure is not None}
    except BrokenProcessPool as error:
        raise FedloraError(
            "a training process was killed while it worked (out of memory, most likely)",
            "run fewer at a time (FEDLORA_JOBS=1 or jobs=1); what has finished is in the store, and the "
            "others go on from their last round",
        ) from error


def _on_cores(specs: Sequence[RunSpec], root: str, force: bool, jobs: int) -> Iterator[_Done]:
    """Side by side on the CPU, in processes that see no GPU."""
    from joblib import Parallel, delayed

    tasks = (delayed(_one)(spec, "cpu", root, force, hidden=True) for spec in specs)
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)


def _on_gpus(specs: Sequence[RunSpec], device: str, root: str, force: bool, jobs: int) -> Iterator[_Done]:
    """Side by side on the GPUs, by memory; a run that finds too little memory is tried again alone on one."""
    waiting = [(spec, False) for spec in specs]
    running: dict[Future[_Done], tuple[RunSpec, bool]] = {}
    places = Places(jobs, _Workers)
    try:
        while waiting or running:
            while waiting:
                spec, alone = waiting[0]
                future = places.send(
                    spec,
                    device,
                    lambda pool, there, spec=spec: pool.submit(_one, spec, there, root, force),  # type: ignore[misc]
                    alone=alone,
                )
                if future is None:
                    break
                running[future] = waiting.pop(0)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spec, alone = running.pop(future)
                places.over(future)
                error = future.exception()
                if error is None:
                    yield future.result()
                elif out_of_memory(error) and not alone:
                    waiting.append((spec, True))
                else:
                    raise error
    finally:
        places.close()


class _Workers:
    """Processes that see one GPU (see `places.Pool`)."""

    def __init__(self, processes: int, gpu: str) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self._executor = ProcessPoolExecutor(processes, env={"CUDA_VISIBLE_DEVICES": gpu})

    def submit(self, work: Callable[..., Any], /, *given: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(work, *given)
        return future

    def close(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)


def _one(spec: RunSpec, device: str, root: str, force: bool, hidden: bool = False) -> _Done:
    """Train one run, in a worker process or in this one; returns its key and, if it failed, the record."""
    import torch

    if hidden:
        hide_gpus()
    key, threads = spec.key(), torch.get_num_threads()
    if on_cpu(spec, device):
        torch.set_num_threads(1)
    try:
        run(spec, device=device, store=Store(Path(root)), force=force)
    except RunFailed as error:
        return key, error.record
    finally:
        torch.set_num_threads(threads)
    return key, None
