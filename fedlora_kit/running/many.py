"""Many runs at once: the finished ones from the store, the others trained in parallel processes."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlora_kit.errors import FedloraError, Interrupted
from fedlora_kit.experiments.own_parts import external
from fedlora_kit.experiments.placing import on_cpu
from fedlora_kit.experiments.run import RunFailed
from fedlora_kit.experiments.setup import check_splits
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.running.places import Places, default_jobs, jobs_on_gpus
from fedlora_kit.running.scheduler import Scheduler
from fedlora_kit.running.training import Job, Outcome, train

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
    large = sum(not on_cpu(spec, device) for spec in todo.values())
    at_once = min(len(todo), jobs or (jobs_on_gpus() if large else default_jobs()))
    here = {key: spec for key, spec in todo.items() if at_once == 1 or external(spec)}
    log.info("%s: %d on the CPU, %d on GPUs, %d at a time", label, len(todo) - large, large, at_once)

    def all_of_them() -> Iterator[_Done]:
        beside = {key: spec for key, spec in todo.items() if key not in here}
        for key, outcome in _beside(beside, device, Places(at_once, store.root, force=force)):
            if outcome.status == "unknown":
                here[key] = todo[key]
            else:
                yield key, outcome.failure
        for key, spec in here.items():
            try:
                train(spec, device, store, force)
                yield key, None
            except RunFailed as error:
                yield key, error.record

    quiet = bool(os.environ.get("TQDM_DISABLE"))  # the headless runner sets it; notebook bars overlook it
    bar = tqdm(all_of_them(), total=len(todo), desc=label, disable=quiet, file=sys.stderr, mininterval=1.0)
    return {key: failure for key, failure in bar if failure is not None}


def _beside(runs: Mapping[str, RunSpec], device: str, places: Places) -> Iterator[tuple[str, Outcome]]:
    """Side by side, in processes of their own."""
    scheduler = Scheduler(places)
    for number, (key, spec) in enumerate(runs.items()):
        scheduler.add(Job((number,), key, spec, device))
    try:
        while (ended := scheduler.step()) is not None:
            for job, outcome in ended:
                if outcome.status == "killed":
                    raise FedloraError(
                        "a training process was killed while it worked (out of memory, most likely)",
                        "run fewer at a time (FEDLORA_JOBS=1 or jobs=1); what has finished is in the store, "
                        "and the others go on from their last round",
                    )
                if outcome.status in ("finished", "failed", "unknown"):
                    yield job.key, outcome
                elif outcome.cause is not None and outcome.status != "sent again":
                    raise outcome.cause
    finally:
        places.close()
