"""Many runs at once: the finished ones from the store, the others trained in parallel processes."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.run import RunFailed, run
from fedlora_kit.experiments.setup import check_splits, resolve_device
from fedlora_kit.experiments.spec import RunSpec, external
from fedlora_kit.experiments.store import Entry, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """One of the runs asked for: its entry, or the record of its failure (``entry`` is None then)."""

    spec: RunSpec
    key: str
    entry: Entry | None
    failure: dict[str, Any] | None = None


def default_jobs() -> int:
    """Runs at a time: ``FEDLORA_JOBS``, or the number of usable cores."""
    named = os.environ.get("FEDLORA_JOBS")
    if named and named.isdigit() and int(named) > 0:
        return int(named)
    from joblib import cpu_count

    return int(cpu_count())  # what this process may use (affinity, containers), not what there is


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
    more from that than from threads.
    Splits are tried first: one that cannot be made stops all before anything is trained. A run that diverges
    does not stop the others; any other error does, and what has been trained by then stays in the store.
    Runs that name a task, method or partitioner registered outside the package are trained in this process.

    Args:
        jobs: processes; None for `default_jobs` on a CPU, 1 on a GPU.
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
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    if len(specs) > 1:
        check_splits(specs)
    jobs = min(len(specs), jobs or (default_jobs() if resolve_device(device).type == "cpu" else 1))
    if any(external(spec) for spec in specs):
        jobs = 1  # what only this process knows cannot be named in another one
    log.info("%s: device %s, %d at a time", label, resolve_device(device), jobs)
    if jobs == 1:
        done = (_one(spec, device, str(store.root), force) for spec in specs)
    else:
        tasks = (delayed(_one)(spec, device, str(store.root), force) for spec in specs)
        done = Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
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


def _one(spec: RunSpec, device: str, root: str, force: bool) -> tuple[str, dict[str, Any] | None]:
    """Train one run in a worker process; returns its key and, if it failed, the record."""
    import torch

    key, threads = spec.key(), torch.get_num_threads()
    if resolve_device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        run(spec, device=device, store=Store(Path(root)), force=force)
    except RunFailed as error:
        return key, error.record
    finally:
        torch.set_num_threads(threads)
    return key, None
