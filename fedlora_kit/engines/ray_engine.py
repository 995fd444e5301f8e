"""Training runs of items on a cluster, and their way into the local store, where the notebooks find them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from fedlora_kit import paths
from fedlora_kit.engines.batch import Batch
from fedlora_kit.engines.ray_worker import job_text, read_reply
from fedlora_kit.engines.stages import plan_item
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.placing import wanted_device
from fedlora_kit.experiments.remote import RemoteStore
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.running.scheduler import Executor
from fedlora_kit.running.shares import memory_bytes
from fedlora_kit.running.training import Job, Outcome

Memory = Callable[[RunSpec], int | None]


class Cluster(Protocol):
    """What is asked of a cluster; `ray_cluster.RayCluster` is one."""

    nodes: int
    gpus: float

    def device(self, asked: str) -> str: ...
    def submit(self, text: str, needed: int | None, *, alone: bool = False) -> Future[str]: ...


def train_items(
    items: Mapping[str, Mapping[str, Any]],
    profile: str,
    cluster: Cluster,
    *,
    url: str | None = None,
    store: Store | None = None,
    memory: Memory = memory_bytes,
    checkpoint_seconds: float = 60.0,
    say: Callable[[str], object] = print,
) -> None:
    """Train on the cluster what the items' notebooks will ask for, and bring it into the local store.

    First the runs that are known at once; as soon as an item's grid is finished, those that it chooses. A run
    that diverges is recorded as failed, as a local one would be, and not sent again. Any other error lets the
    other runs finish, and is raised at the end.

    Args:
        items: item -> its notebook's parameters, typed.
        url: of the store that all machines reach; None is enough for a cluster of one machine.
        store: where the notebooks look; the usual store if None.
        memory: what a run takes.

    Raises:
        BadValue: a parameter that an item refuses, or no ``url`` for several machines.
        FedloraError: runs could not be trained; what was finished is kept.
    """
    if url is None and cluster.nodes > 1:
        raise BadValue(
            f"the cluster has {cluster.nodes} machines and no store that all of them reach",
            "name a shared folder or an object store: --store /shared/runs, --store s3://bucket/runs",
        )
    planned = {item: plan_item(item, profile, given) for item, given in items.items()}
    for one in planned.values():
        for spec in one.runs.specs():
            spec.key()  # data or a backbone that is not here stops the command now
    remote = RemoteStore(url or str(paths.runs_dir() / ".published"))
    workers = Workers(cluster, remote, memory, checkpoint_seconds)
    batch = ClusterBatch(store or Store(), workers, say)
    batch.train(planned)
    batch.raise_errors()


class Workers(Executor):
    """The workers of a cluster, which queues what it has no room for, and sends again what was lost.

    Attributes:
        remote: where they publish finished runs.
    """

    def __init__(self, cluster: Cluster, remote: RemoteStore, memory: Memory, every: float) -> None:
        self.remote = remote
        self._cluster, self._memory, self._every = cluster, memory, every

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a run."""
        where = self._cluster.device(wanted_device(job.spec, job.device))
        text = job_text(job.spec, job.key, self.remote.url, where, self._every)
        outcome: Future[Outcome] = Future()
        reply = self._cluster.submit(text, self._memory(job.spec), alone=job.alone)
        reply.add_done_callback(partial(_pass_on, outcome))
        return outcome


def _pass_on(outcome: Future[Outcome], reply: Future[str]) -> None:
    error = reply.exception()
    if error is None:
        outcome.set_result(read_reply(reply.result()))
    else:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        outcome.set_result(Outcome("error", error=f"its worker was lost: {lines[0]}"))


class ClusterBatch(Batch):
    """Runs on their way through a cluster, whose results are fetched into the local store."""

    ONLY_HERE = "a notebook's cell defines what it names: put that into a file, and name it by --with"

    def __init__(self, store: Store, workers: Workers, say: Callable[[str], object]) -> None:
        super().__init__(store, workers)
        self._remote, self._say = workers.remote, say
        self._published: set[str] = set()

    def add(self, specs: Sequence[RunSpec], device: str = "auto", *, chooses: bool = False) -> None:
        """As `Batch.add`; what others have published is brought here and not sent."""
        keys, ended = len(self.keys), len(self.ended)
        self._published = set(self._remote.keys(spec.key() for spec in specs))
        super().add(specs, device, chooses=chooses)
        if new := len(self.keys) - keys:
            here = len(self.ended) - ended
            self._say(f"{new} runs: {here} here, {self.open} on the cluster")

    def raise_errors(self) -> None:
        """Raises FedloraError if a run could be neither finished nor recorded as failed."""
        if self.left:
            lines = "".join(f"\n  run {key}: {error}" for key, error in list(self.left.items())[:5])
            more = f"\n  and {len(self.left) - 5} more" if len(self.left) > 5 else ""
            raise FedloraError(
                f"{len(self.left)} of {len(self.keys)} runs could not be trained:{lines}{more}",
                "what is finished is kept; remove the cause, and the same command goes on from there",
            )

    def _is_here(self, key: str, spec: RunSpec) -> bool:
        return super()._is_here(key, spec) or (key in self._published and self._fetch(key, spec))

    def _end(self, job: Job, outcome: Outcome) -> None:
        note = ""
        if outcome.status == "finished":
            note = "" if outcome.resumed is None else f" (went on after round {outcome.resumed + 1})"
            if not self._fetch(job.key, job.spec):
                error = f"it was finished, but {self._remote.shown} does not show it here: is it a folder "
                outcome = Outcome("error", error=f"{error}that all machines share?")
        elif outcome.status == "failed":
            note = f": {outcome.error}"
            with self.store.work(job.key, job.spec.model_dump(mode="json")) as work:
                if work.entry is None:
                    work.fail(outcome.failure or {})
        elif outcome.status == "sent again":
            note = "; sent again with a GPU of its own"
        super()._end(job, outcome)
        words = {"sent again": "out of memory", "out of memory": "error"}.get(outcome.status, outcome.status)
        self._say(f"[{len(self.ended)}/{len(self.keys)}] run {job.key}: {words}{note}")

    def _fetch(self, key: str, spec: RunSpec) -> bool:
        return self._remote.fetch(key, self.store, spec.model_dump(mode="json")) is not None
