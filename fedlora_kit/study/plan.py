"""What items need: their runs, which of them the store has, and what the others will cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedlora_kit import paths
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.models.names import backbone
from fedlora_kit.planning.amounts import PUBLISHED
from fedlora_kit.planning.architectures import architecture, weights_bytes
from fedlora_kit.planning.estimate import Estimate, estimate
from fedlora_kit.planning.rate import Rate
from fedlora_kit.study.planned import Runs

Stage = Literal["first", "chosen", "to be chosen"]
RateOf = Callable[[RunSpec], Rate]


@dataclass(frozen=True)
class PlannedRun:
    """One run of an item.

    Attributes:
        spec: the run; for a run "to be chosen" a stand-in that costs the same.
        stage: "first"; or "chosen", by what the finished first ones scored; or "to be chosen", while one of
            those is missing.
        key: of the run in the store; None where it cannot be known yet: a run to be chosen, or one whose data
        or
            backbone does not lie on this machine.
        status: where the run stands in the store (see `Store.status`); "absent" without a key.
        cost: what it takes; None where it is finished, or where it cannot be estimated.
        seconds: on one device, alone; None as ``cost``.
        problem: why it cannot be estimated; may be empty.
    """

    spec: RunSpec
    stage: Stage
    key: str | None
    status: str
    cost: Estimate | None
    seconds: float | None
    problem: str = ""

    @property
    def missing(self) -> bool:
        """Whether it is still to be trained; a run that failed fails again at once."""
        return self.status not in ("finished", "failed")


@dataclass(frozen=True)
class Totals:
    """Sums over runs that are still to be trained.

    Attributes:
        runs, finished, failed, missing: numbers of runs.
        to_be_chosen: of the missing, those that an unfinished grid chooses.
        unknown: of the missing, those that could not be estimated; they are in no sum.
        flops, device_hours: operations; hours of one device.
        memory_bytes: of the largest run.
        bytes_up, bytes_down: traffic of all clients.
        store_bytes: what will be written to the store.
    """

    runs: int = 0
    finished: int = 0
    failed: int = 0
    missing: int = 0
    to_be_chosen: int = 0
    unknown: int = 0
    flops: float = 0.0
    device_hours: float = 0.0
    memory_bytes: float = 0.0
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    store_bytes: float = 0.0


@dataclass(frozen=True)
class ItemPlan:
    """An item's runs, and a sentence about them (see `planned.Runs.note`)."""

    item: str
    note: str
    runs: tuple[PlannedRun, ...]

    @property
    def totals(self) -> Totals:
        """Sums over this item's runs; other items may share them."""
        return totals(self.runs)


@dataclass(frozen=True)
class Plan:
    """The plan of several items.

    Attributes:
        downloads: Hub id -> bytes, about, of what is not on this machine; None where that is not known.
    """

    profile: str
    items: tuple[ItemPlan, ...]
    downloads: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def totals(self) -> Totals:
        """Sums over all items; a run that several items ask for counts once."""
        every = [run for one in self.items for run in one.runs]
        runs = {(run.spec.canonical(), run.stage == "to be chosen"): run for run in every}
        return totals(list(runs.values()))


def plan(
    profile: str,
    planned: Mapping[str, Runs],
    rate_of: RateOf,
    store: Store | None = None,
) -> Plan:
    """The plan of items; nothing is trained and nothing is downloaded.

    Args:
        planned: item -> its runs (`papers.runs_of.planned_items`).
        rate_of: the speed of the device that will train a run.
        store: where finished runs lie; the usual store if None.
    """
    store = store or Store()
    paths.hub_dir()  # a mirror that cannot be one is an error at once
    made = [ItemPlan(item, runs.note, tuple(_runs(runs, store, rate_of))) for item, runs in planned.items()]
    missing = [run.spec for one in made for run in one.runs if run.missing]
    return Plan(profile, tuple(made), downloads(missing))


def _runs(planned: Runs, store: Store, rate_of: RateOf) -> list[PlannedRun]:
    first = [_one(spec, "first", store, rate_of) for spec in planned.specs()]
    chosen = planned.chosen(store) if not any(run.missing for run in first) else None
    if chosen is not None:
        return [*first, *(_one(spec, "chosen", store, rate_of) for spec in chosen)]
    return [*first, *(_one(spec, "to be chosen", store, rate_of) for spec in planned.like_chosen())]


def _one(spec: RunSpec, stage: Stage, store: Store, rate_of: RateOf) -> PlannedRun:
    key, status = None, "absent"
    if stage != "to be chosen":
        try:
            key = spec.key()
            status = store.status(key)
        except FedloraError:  # its data or its backbone are not here
            key = None
    if status in ("finished", "failed"):
        return PlannedRun(spec, stage, key, status, None, None)
    try:
        rate = rate_of(spec)
        cost = estimate(spec, gpu=rate.gpu)
        return PlannedRun(spec, stage, key, status, cost, rate.seconds(cost))
    except FedloraError as error:
        return PlannedRun(spec, stage, key, status, None, None, str(error))


def totals(runs: Sequence[PlannedRun]) -> Totals:
    """Sums over runs."""
    missing = [run for run in runs if run.missing]
    costs = [run.cost for run in missing if run.cost is not None]
    return Totals(
        runs=len(runs),
        finished=sum(run.status == "finished" for run in runs),
        failed=sum(run.status == "failed" for run in runs),
        missing=len(missing),
        to_be_chosen=sum(run.stage == "to be chosen" for run in missing),
        unknown=len(missing) - len(costs),
        flops=sum(cost.flops for cost in costs),
        device_hours=sum(run.seconds or 0.0 for run in missing) / 3600,
        memory_bytes=max((cost.memory_bytes for cost in costs), default=0.0),
        bytes_up=sum(cost.bytes_up for cost in costs),
        bytes_down=sum(cost.bytes_down for cost in costs),
        store_bytes=sum(cost.store_bytes for cost in costs),
    )


def downloads(specs: Sequence[RunSpec]) -> dict[str, float | None]:
    """What of the runs' models and data comes from the Hub: id -> bytes, about; None where not known.

    With a mirror nothing is downloaded; what it lacks is an error at training time.
    """
    if paths.hub_dir() is not None:
        return {}
    found: dict[str, float | None] = {}
    for spec in specs:
        name = spec.model.backbone
        if not (name.startswith("kit/") or backbone(name).is_folder or name in found):
            found[name] = model_bytes(name)
        for task in map(get_task, spec.tasks()):
            if task.hub_id:
                found[f"{task.hub_id}/{task.config}".rstrip("/")] = task_bytes(task.name)
    return found


def model_bytes(name: str) -> float | None:
    """Bytes of a model's weights on the Hub, about: in 16 bits for causal models, in 32 for the others."""
    try:
        shape = architecture(name)
        return float(weights_bytes(shape, 2, "bf16" if shape.kind == "causal" else "fp32"))
    except FedloraError:
        return None


def task_bytes(name: str) -> float | None:
    """Bytes of a task's files on the Hub, about."""
    size = PUBLISHED[name].megabytes if name in PUBLISHED else None
    return None if size is None else size * 1e6
