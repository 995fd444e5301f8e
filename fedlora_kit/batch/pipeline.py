"""``fedlora reproduce`` from top to bottom: plan, train, run the notebooks, write the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedlora_kit import paths
from fedlora_kit.batch import forked
from fedlora_kit.batch.folders import exclusive
from fedlora_kit.batch.order import Cluster, Order, Todo, plan
from fedlora_kit.batch.pool import run
from fedlora_kit.batch.progress import Reporter
from fedlora_kit.batch.status import Status
from fedlora_kit.engines.own_data import doubts_beforehand
from fedlora_kit.engines.without_gpu import slow_without_gpu
from fedlora_kit.reporting.page import write_page

Say = Callable[[str], object]


@dataclass(frozen=True)
class Reproduced:
    """How the items ended, in the order asked for, and the report page."""

    statuses: list[Status]
    page: Path


def reproduce(
    order: Order, reporter: Reporter | None = None, note: Say = lambda _: None, warn: Say | None = None
) -> Reproduced:
    """Run the items' notebooks, and write the report page.

    An item whose outputs are current and intact is not run and comes back as ``unchanged``; an item without
    a notebook as ``planned``. Ctrl-C stops every process, then raises; finished items stay, and are on the
    page.

    Args:
        reporter: is told of the progress.
        note: is told what the training has left to the notebooks.
        warn: is told beforehand of what is doubtful about own data, and of the time that it takes without a
            GPU; None: neither is looked at.

    Raises:
        UnknownName, BadValue: an unknown parameter, a wrong value; nothing has run then.
        FedloraError: another process writes to the same folder, or it cannot be written; a cluster could not
            train a run.
    """
    reporter = reporter or Reporter()
    notebooks = order.checked()
    try:
        with exclusive(order.profile, order.place):
            todo = plan(order, notebooks)
            if todo.run:
                forked.context()  # it imports meanwhile, for what trains as well
            side_by_side = train(todo, reporter, note, warn)
            ended = run(todo, side_by_side, reporter)
    except KeyboardInterrupt:
        write_page(order.place, order.profile)
        raise
    finally:
        reporter.close()
    statuses = {status.item: status for status in [*todo.planned, *todo.unchanged, *ended]}
    page = write_page(order.place, order.profile)
    return Reproduced([statuses[item.id] for item in order.items], page)


def train(todo: Todo, reporter: Reporter, note: Say, warn: Say | None) -> bool:
    """Train the runs that several notebooks need; whether these may go side by side now."""
    order, items = todo.order, todo.parameters
    if not items:
        return False
    if warn is not None:
        for doubt in doubts_beforehand(order.profile, items):
            warn(doubt)
    if isinstance(order.engine, Cluster):
        from fedlora_kit.engines import ray_cluster, ray_engine

        cluster = ray_cluster.RayCluster(order.engine.address)
        try:
            ray_engine.train_items(items, order.profile, cluster, url=order.engine.store, say=note)
        finally:
            cluster.close()
        return True
    if warn and (sentence := slow_without_gpu(order.profile, items)):
        warn(sentence)
    if order.engine is None or len(items) < 2:
        return False
    from fedlora_kit.engines import local_engine

    log = paths.home() / order.place / order.profile / "training.log"
    log.unlink(missing_ok=True)
    done = local_engine.train_items(items, order.profile, log=log, tell=reporter.training)
    for item, reason in done.unplanned.items():
        note(f"{item} trains its runs itself: {reason}")
    for key, reason in list(done.left.items())[:1]:
        note(f"{len(done.left)} runs are left to their notebooks; {key}: {reason} (see {log})")
    return done.side_by_side
