"""Many runs at once: the finished ones from the store, the others trained in parallel processes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fedlora_kit.devices import hide_gpus
from fedlora_kit.errors import FedloraError, Interrupted
from fedlora_kit.experiments import own_code
from fedlora_kit.experiments.placing import on_cpu, out_of_memory
from fedlora_kit.experiments.run import RunFailed, run
from fedlora_kit.experiments.setup import check_splits
from fedlora_kit.experiments.spec import RunSpec, external, own_modules
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.running.places import Places, default_jobs, jobs_on_gpus

log = logging.getLogger(__name__)
#: a run's key and, if it failed, the record
_Done = tuple[str, dict[str, Any] | None]
#: in place of that record, from a process that has no such run: what names it was registered here alone
_UNKNOWN: dict[str, Any] = {"error": "only the process that asks for it knows it"}


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
    The processes import what is named to them of the user's own (`own_code`); runs of what only this process
    knows, such as a method that a notebook's cell defines, are trained here, after the others.

    Args:
        jobs: processes; None for `places.default_jobs`; 1: this process trains, one run after the other.
        label: name on the progress bar.

    Raises:
        Interrupted: by Ctrl-C, or the notebook's stop button; says what is kept.
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
    try:
        failures = _train(todo, device, jobs, store, force, label) if todo else {}
    except KeyboardInterrupt:
        kept = sum(store.status(key) == "finished" for key in {*keys})
        raise Interrupted(f"{kept} of {len({*keys})} runs are finished and kept") from None
    for key, failure in failures.items():
        warnings.warn(f"run {key} failed: {failure.get('error')}", stacklevel=2)
    return [
        Finished(spec, key, None if key in failures else store.load(key), failures.get(key))
        for spec, key in zip(specs, keys, strict=True)
    ]


def _train(
    todo: Mapping[str, RunSpec], device: str, jobs: int | None, store: Store, force: bool, label: str
) -> dict[str, dict[str, Any]]:
    """Train the runs that the store lacks; returns the records of those that failed, by key."""
    from tqdm.auto import tqdm

    if len(todo) > 1:
        check_splits(list(todo.values()))
    small = {key: spec for key, spec in todo.items() if on_cpu(spec, device)}
    large = {key: spec for key, spec in todo.items() if key not in small}
    at_once = min(len(todo), jobs or (jobs_on_gpus() if large else default_jobs()))
    here = {key: spec for key, spec in todo.items() if at_once == 1 or external(spec)}
    root = str(store.root)
    log.info("%s: %d on the CPU, %d on GPUs, %d at a time", label, len(small), len(large), at_once)

    def all_of_them() -> Iterator[_Done]:
        cores = _on_cores(_without(small, here), root, force, at_once)
        for key, failure in chain(cores, _on_gpus(_without(large, here), device, root, force, at_once)):
            if failure == _UNKNOWN:
                here[key] = todo[key]
            else:
                yield key, failure
        yield from (_one(spec, key, device, root, force) for key, spec in here.items())

    quiet = bool(os.environ.get("TQDM_DISABLE"))  # the headless runner sets it; notebook bars overlook it
    bar = tqdm(all_of_them(), total=len(todo), desc=label, disable=quiet, file=sys.stderr, mininterval=1.0)
    try:
        return {key: failure for key, failure in bar if failure is not None}
    except BrokenProcessPool as error:
        raise FedloraError(
            "a training process was killed while it worked (out of memory, most likely)",
            "run fewer at a time (FEDLORA_JOBS=1 or jobs=1); what has finished is in the store, and the "
            "others go on from their last round",
        ) from error


def _without(runs: Mapping[str, RunSpec], others: Mapping[str, RunSpec]) -> dict[str, RunSpec]:
    return {key: spec for key, spec in runs.items() if key not in others}


def _on_cores(runs: Mapping[str, RunSpec], root: str, force: bool, jobs: int) -> Iterator[_Done]:
    """Side by side on the CPU, in processes that see no GPU."""
    from joblib import Parallel, delayed

    if not runs:
        return
    own = own_code.files()
    tasks = (
        delayed(_sent)(own, own_modules(spec), spec, key, "cpu", root, force, hidden=True)
        for key, spec in runs.items()
    )
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)


def _on_gpus(runs: Mapping[str, RunSpec], device: str, root: str, force: bool, jobs: int) -> Iterator[_Done]:
    """Side by side on the GPUs, by memory; a run that finds too little memory is tried again alone on one."""
    waiting = [(key, spec, False) for key, spec in runs.items()]
    running: dict[Future[_Done], tuple[str, RunSpec, bool]] = {}
    places = Places(jobs, _Workers)
    try:
        while waiting or running:
            while waiting:
                key, spec, alone = waiting[0]
                given = (own_code.files(), own_modules(spec), spec, key)
                future = places.send(
                    spec,
                    device,
                    lambda pool, there, given=given: pool.submit(_sent, *given, there, root, force),  # type: ignore[misc]
                    alone=alone,
                )
                if future is None:
                    break
                running[future] = waiting.pop(0)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key, spec, alone = running.pop(future)
                places.over(future)
                error = future.exception()
                if error is None:
                    yield future.result()
                elif out_of_memory(error) and not alone:
                    waiting.append((key, spec, True))
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


def _sent(
    own: Sequence[Path], modules: Sequence[str], spec: RunSpec, key: str, *given: Any, **how: Any
) -> _Done:
    """`_one` in another process, which first imports what is the user's own."""
    try:
        own_code.name_files(own)
        for name in modules:
            importlib.import_module(name)
        known = spec.key() == key
    except Exception:  # the process that asks meets it in its turn, and says so
        known = False
    return _one(spec, key, *given, **how) if known else (key, _UNKNOWN)


def _one(spec: RunSpec, key: str, device: str, root: str, force: bool, hidden: bool = False) -> _Done:
    """Train one run, in a worker process or in this one; returns its key and, if it failed, the record."""
    import torch

    if hidden:
        hide_gpus()
    threads = torch.get_num_threads()
    if on_cpu(spec, device):
        torch.set_num_threads(1)
    try:
        run(spec, device=device, store=Store(Path(root)), force=force)
    except RunFailed as error:
        return key, error.record
    finally:
        torch.set_num_threads(threads)
    return key, None
