"""Many runs at once: the finished ones from the store, the others trained in parallel processes."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.placing import on_cpu
from fedlora_kit.experiments.run import RunFailed
from fedlora_kit.experiments.setup import check_splits
from fedlora_kit.experiments.spec import RunSpec, external
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.running.places import Places, default_jobs, jobs_on_gpus
from fedlora_kit.running.scheduler import Scheduler
from fedlora_kit.running.training import Job, train

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
    large = sum(not on_cpu(spec, device) for spec in specs)
    at_once = min(len(specs), jobs or (jobs_on_gpus() if large else default_jobs()))
    if any(external(spec) for spec in specs):
        at_once = 1  # what only this process knows cannot be named in another one
    log.info("%s: %d on the CPU, %d on GPUs, %d at a time", label, len(specs) - large, large, at_once)
    places = Places(at_once, store.root, force=force)
    done = _here(specs, device, store, force) if at_once == 1 else _beside(specs, device, places)
    quiet = bool(os.environ.get("TQDM_DISABLE"))  # the headless runner sets it; notebook bars overlook it
    bar = tqdm(done, total=len(specs), desc=label, disable=quiet, file=sys.stderr, mininterval=1.0)
    return {key: failure for key, failure in bar if failure is not None}


def _here(specs: Sequence[RunSpec], device: str, store: Store, force: bool) -> Iterator[_Done]:
    """One after the other, in this process."""
    for spec in specs:
        try:
            yield train(spec, device, store, force).key, None
        except RunFailed as error:
            yield error.key, error.record


def _beside(specs: Sequence[RunSpec], device: str, places: Places) -> Iterator[_Done]:
    """Side by side, in processes of their own."""
    scheduler = Scheduler(places)
    for number, spec in enumerate(specs):
        scheduler.add(Job((number,), spec.key(), spec, device))
    try:
        while (ended := scheduler.step()) is not None:
            for job, outcome in ended:
                if outcome.status == "killed":
                    raise FedloraError(
                        "a training process was killed while it worked (out of memory, most likely)",
                        "run fewer at a time (FEDLORA_JOBS=1 or jobs=1); what has finished is in the store, "
                        "and the others go on from their last round",
                    )
                if outcome.status in ("finished", "failed"):
                    yield job.key, outcome.failure
                elif outcome.cause is not None and outcome.status != "sent again":
                    raise outcome.cause
    finally:
        places.close()
