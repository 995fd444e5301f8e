"""Training runs of items on a cluster, and their way into the local store, where the notebooks find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from fedlora_kit import paths
from fedlora_kit.engines.ray_worker import job
from fedlora_kit.engines.stages import Wanted, is_stored, plan_item, train_stages
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.placing import wanted_device
from fedlora_kit.experiments.remote import RemoteStore
from fedlora_kit.experiments.spec import RunSpec, external
from fedlora_kit.experiments.store import Store
from fedlora_kit.running.shares import memory_bytes

Memory = Callable[[RunSpec], int | None]


class Cluster(Protocol):
    """What is asked of a cluster; `ray_cluster.RayCluster` is one."""

    nodes: int
    gpus: float

    def device(self, asked: str) -> str: ...
    def submit(self, text: str, needed: int | None, *, alone: bool = False) -> Any: ...
    def next(self, pending: Iterable[Any]) -> tuple[Any, dict[str, Any]]: ...


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
    remote = RemoteStore(url or str(paths.runs_dir() / ".published"))
    batch = Batch(cluster, remote, store or Store(), memory, checkpoint_seconds, say)
    train_stages(planned, batch)
    batch.raise_errors()


class Batch:
    """Runs on their way through a cluster.

    Attributes:
        store: the local store.
    """

    def __init__(
        self,
        cluster: Cluster,
        remote: RemoteStore,
        store: Store,
        memory: Memory,
        checkpoint_seconds: float,
        say: Callable[[str], object],
    ) -> None:
        self._cluster, self._remote, self.store = cluster, remote, store
        self._memory, self._every, self._say = memory, checkpoint_seconds, say
        self._specs: dict[str, RunSpec] = {}
        self._over: set[str] = set()
        self._errors: dict[str, str] = {}
        self._pending: dict[Any, tuple[str, str, bool]] = {}  # reference -> key, job, alone on its GPU

    def add(self, runs: Sequence[Wanted], chosen_by: str | None = None) -> None:
        """Take up runs with the device asked for, each once; what a store has already is not sent."""
        new = {key: run for run in runs if (key := run.spec.key()) not in self._specs}
        self._specs |= {key: run.spec for key, run in new.items()}
        missing = [key for key in new if not is_stored(self.store, key)]
        self._over |= new.keys() - set(missing)
        published = set(self._remote.keys(missing))
        for key in missing:
            spec, device = new[key].spec, new[key].device
            if key in published and self._fetch(key):
                self._over.add(key)
            elif external(spec):
                self._errors[key] = (
                    "a notebook's cell defines what it names: put that into a file, and name it by --with"
                )
            else:
                where = self._cluster.device(wanted_device(spec, device))
                text = job(spec, key, self._remote.url, where, self._every)
                self._submit(key, text, alone=False)
        if new:
            self._say(f"{len(new)} runs: {len(new) - len(missing)} here, {len(self._pending)} on the cluster")

    def over(self, spec: RunSpec) -> bool:
        """Whether a run is finished or failed."""
        return spec.key() in self._over

    def step(self) -> bool:
        """Wait for one run and put its outcome into the local store; False if none is on its way."""
        if not self._pending:
            return False
        reference, reply = self._cluster.next(self._pending)
        key, text, alone = self._pending.pop(reference)
        status, outcome = reply["status"], ""
        if status == "finished":
            after = reply.get("resumed_after_round")
            outcome = "" if after is None else f" (went on after round {after + 1})"
            if self._fetch(key):
                self._over.add(key)
            else:
                self._errors[key] = f"it was finished, but {self._remote.shown} does not show it here: is it "
                self._errors[key] += "a folder that all machines share?"
        elif status == "failed":
            outcome = f": {reply['failure'].get('error')}"
            with self.store.work(key, self._specs[key].model_dump(mode="json")) as work:
                if work.entry is None:
                    work.fail(reply["failure"])
            self._over.add(key)
        elif status == "out of memory" and not alone and self._cluster.gpus:
            outcome = "; sent again with a GPU of its own"
            self._submit(key, text, alone=True)
        else:
            self._errors[key] = str(reply["error"])
        status = "error" if key in self._errors else status
        self._say(f"[{len(self._over)}/{len(self._specs)}] run {key}: {status}{outcome}")
        return True

    def raise_errors(self) -> None:
        """Raises FedloraError if a run could be neither finished nor recorded as failed."""
        if self._errors:
            lines = "".join(f"\n  run {key}: {error}" for key, error in list(self._errors.items())[:5])
            more = f"\n  and {len(self._errors) - 5} more" if len(self._errors) > 5 else ""
            raise FedloraError(
                f"{len(self._errors)} of {len(self._specs)} runs could not be trained:{lines}{more}",
                "what is finished is kept; remove the cause, and the same command goes on from there",
            )

    def _submit(self, key: str, text: str, *, alone: bool) -> None:
        reference = self._cluster.submit(text, self._memory(self._specs[key]), alone=alone)
        self._pending[reference] = (key, text, alone)

    def _fetch(self, key: str) -> bool:
        return self._remote.fetch(key, self.store, self._specs[key].model_dump(mode="json")) is not None
