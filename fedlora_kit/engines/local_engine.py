"""Training runs of items in one pool of warm processes on this machine, before the notebooks ask for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedlora_kit.engines.batch import Batch
from fedlora_kit.engines.stages import Planned, Training, plan_item
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import has_runs
from fedlora_kit.running.places import Places, Pool, default_jobs, jobs_on_gpus, trains_on_cpu
from fedlora_kit.running.pools import WarmPool

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What was done before the notebooks.

    Attributes:
        finished, failed: runs trained now that are in the store, and that diverged.
        left: of the items' runs, those that are left to the notebooks: what stopped them, by key.
        unplanned: items whose runs could not be named, and why.
        on_cpu: whether what trains is a CPU, for all runs.
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
    pool: Callable[[int, str], Pool] | None = None,
) -> Trained:
    """Train what items need and the store lacks: grids first, and the longest first.

    Several runs go side by side: a core each, and on GPUs as many as their memory holds (`places`). One that
    finds too little memory on a GPU is sent again, with a GPU of its own. No process is started where nothing
    is to be trained. Whatever cannot be planned or trained is left to the item's notebook, which meets the
    error itself; a run that diverges is recorded as failed.

    Args:
        items: item -> its notebook's parameters, typed.
        store: where the notebooks look; the usual store if None.
        log: the file for what the processes print.
        tell: is told of the progress, about every second.
        pool: (processes, the GPU that they see, "" for none) -> the pool.
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
    no_gpu = all(trains_on_cpu(spec, one.device) for one in planned.values() for spec in one.runs.specs())
    store = store or Store()
    jobs = default_jobs() if no_gpu else jobs_on_gpus()
    places = Places(jobs, store.root, pool or partial(WarmPool, log=log))
    batch = Batch(store, places, tell)
    try:
        batch.train(planned)
    finally:
        places.close()
    _log.info("%d runs trained, %d failed, %d left", batch.finished, batch.failed, len(batch.left))
    return Trained(batch.finished, batch.failed, batch.left, unplanned, no_gpu)
