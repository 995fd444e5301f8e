"""What a batch does with training runs, as log records: which the store has, which are trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fedlora_kit.batch.order import Order
from fedlora_kit.batch.parameters import resolve
from fedlora_kit.batch.progress import PlainLines, Running, Say
from fedlora_kit.batch.status import UNCHANGED, Status
from fedlora_kit.devices import gpu_count, kind_of
from fedlora_kit.engines.stages import Training
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import runs_of

log = logging.getLogger(__name__)


class RunLog(PlainLines):
    """Plain lines, and each item's runs logged before and after its notebook.

    The runs are named from the item's setting, and looked up in the store; the notebook is not asked. An item
    that chooses from a grid names its chosen runs only after it. One that is not among the kit's items, or
    whose data is not here, is passed over.

    Args:
        here: whether this machine trains.
        store: the usual store if None.

    Raises:
        UnknownName, BadValue: see `parameters.resolve`.
    """

    def __init__(
        self, order: Order, say: Say = print, *, here: bool = True, store: Store | None = None
    ) -> None:
        super().__init__(say)
        self._profile, self._store = order.profile, store or Store()
        self._parameters = {item.id: resolve(item, order.settings) for item in order.items if item.notebook}
        self._device = str(order.settings.get("device", "auto")) if here else None
        self._had: dict[str, set[str]] = {}

    def training(self, now: Training) -> None:
        if not self._had:  # the runs are trained before their notebooks: this is the time to look
            for item in self._parameters:
                self._look(item)
        super().training(now)

    def begin(self, total: int) -> None:
        log.info("%d notebooks at profile %s", total, self._profile)
        if self._device is not None:
            log.info("device: %s", device_text(self._device))
        super().begin(total)

    def start(self, running: Running) -> None:
        super().start(running)
        if running.item not in self._had:
            self._look(running.item)

    def _look(self, item: str) -> None:
        """Which of an item's runs the store has, before they or its notebook are begun."""
        runs = self._runs(item)
        if runs is None:
            return
        had = self._had[item] = {key for key in runs if self._store.status(key) == "finished"}
        log.info(
            "%s: %d runs come from the store, %d are to be trained", item, len(had), len(runs) - len(had)
        )
        for key, spec in runs.items():
            where = "from the store" if key in had else "to be trained"
            log.debug("%s: run %s (%s) %s", item, key, summary(spec), where)

    def end(self, status: Status) -> None:
        super().end(status)
        if status.status == UNCHANGED:
            log.info("%s: unchanged, its notebook is not run", status.item)
            return
        runs = self._runs(status.item) if status.item in self._had else None
        if runs is None:
            return
        states = {key: self._store.status(key) for key in runs if key not in self._had[status.item]}
        trained = [key for key, state in states.items() if state == "finished"]
        log.info("%s: %d runs were trained, %d were in the store", status.item, len(trained),
                 len(self._had[status.item]))  # fmt: skip
        for key, state in states.items():
            log.debug("%s: run %s (%s) %s", status.item, key, summary(runs[key]),
                      "trained" if state == "finished" else state)  # fmt: skip

    def _runs(self, item: str) -> dict[str, RunSpec] | None:
        """Key -> run, of those that can be named now."""
        try:
            specs: Sequence[RunSpec] = runs_of(
                item, self._profile, store=self._store, **self._parameters.get(item, {})
            )
            return {spec.key(): spec for spec in specs}
        except (FedloraError, TypeError) as error:  # TypeError: a parameter that only the notebook knows
            why = error.problem if isinstance(error, FedloraError) else str(error)
            log.info("%s: its runs cannot be named beforehand: %s", item, why)
            return None


def summary(spec: RunSpec) -> str:
    """A run in a few words."""
    epsilon = f", ε {spec.privacy.epsilon:g}" if spec.privacy and spec.privacy.epsilon is not None else ""
    return f"{spec.method.name} on {spec.data.task}, {spec.model.backbone}{epsilon}, seed {spec.seed}"


def device_text(name: str) -> str:
    """A device in words; starts nothing.

    Raises:
        BadValue: it is not there.
    """
    from fedlora_kit.running.places import default_jobs

    cpu = f"{default_jobs()} runs at a time"
    if kind_of(name) == "cpu":
        return f"cpu, {cpu}"
    if name.strip() != "auto":
        return f"{name.strip()} of {gpu_count()} GPUs"
    return f"{gpu_count()} GPUs; for the kit's own backbones the cpu, {cpu}"
