"""What is to be reproduced, and what of it is to be done: the first stage of `pipeline.reproduce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedlora_kit import paths
from fedlora_kit.batch import cache
from fedlora_kit.batch.folders import Staging
from fedlora_kit.batch.more_seeds import with_more_seeds
from fedlora_kit.batch.parameters import notebook_path, parse_settings, resolve
from fedlora_kit.batch.status import FAILED, PLANNED, UNCHANGED, Status
from fedlora_kit.errors import BadValue
from fedlora_kit.papers.items import find, with_runs
from fedlora_kit.study.item import Item, check_profile


@dataclass(frozen=True)
class Local:
    """This machine trains the runs, before several notebooks start."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster trains the runs: at which address, and where its machines put finished runs."""

    address: str | None = None
    store: str | None = None


@dataclass(frozen=True)
class Order:
    """What is to be reproduced, and how.

    Attributes:
        items: each once; those without a notebook are only counted.
        settings: notebook parameters by name, text or typed values; every notebook must declare them all.
        place: the top folder of the outputs, as for `reporting.outputs.ItemOutputs`.
        jobs: notebooks at a time. None: one; where their runs are trained before them as many as there are
            cores, but no more than 4, and than fit into memory.
        force: run even what is unchanged.
        timeout: seconds that one cell may take; None: no limit.
        engine: what trains the runs before the notebooks; None: each notebook trains its own.
        more_seeds: how many to add to those of the items' last results (`more_seeds.with_more_seeds`).

    Raises:
        UnknownName, BadValue: an unknown profile, an impossible value, an item named twice.
    """

    items: Sequence[Item]
    profile: str = "smoke"
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: str | Path = "figures"
    jobs: int | None = None
    force: bool = False
    timeout: float | None = None
    engine: Local | Cluster | None = None
    more_seeds: int | None = None

    def __post_init__(self) -> None:
        check_profile(self.profile)
        if self.jobs is not None and self.jobs < 1:
            raise BadValue(f"jobs={self.jobs}", "at least one notebook runs at a time: 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise BadValue(f"timeout={self.timeout}", "seconds that a cell may take: over 0")
        ids = [item.id for item in self.items]
        if doubled := sorted({name for name in ids if ids.count(name) > 1}):
            raise BadValue(f"items named twice: {', '.join(doubled)}", "name each once")

    def checked(self) -> list[tuple[Item, dict[str, Any]]]:
        """The items that have a notebook, each with the parameters that it is given.

        Raises:
            UnknownName, BadValue: see `values_for` and `with_more_seeds`.
        """
        items = [item for item in self.items if item.notebook is not None]
        settings = {item.id: dict(self.settings) for item in items}
        if self.more_seeds is not None:
            settings = with_more_seeds(items, self.more_seeds, self.profile, self.settings, self.place)
        return [(item, values_for(item, self.profile, settings[item.id], self.place)) for item in items]


@dataclass(frozen=True)
class Todo:
    """What an order comes to.

    Attributes:
        run: the notebooks to be run; each with its status as it is if its process dies: parameters, key.
        unchanged: of those that are not run, as their outputs are current and intact.
        planned: of the items without a notebook.
    """

    order: Order
    run: Sequence[tuple[Item, Status]]
    unchanged: Sequence[Status]
    planned: Sequence[Status]

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Item -> what its runs are named by, beside the profile; of the notebooks to be run."""
        return {
            item.id: {name: value for name, value in status.parameters.items() if name != "profile"}
            for item, status in self.run
        }


def values_for(
    item: Item, profile: str, settings: Mapping[str, Any], output_dir: str | Path = "figures"
) -> dict[str, Any]:
    """All parameters of one run: ``settings`` checked against the notebook, with ``profile`` and
    ``output_dir``.

    Raises:
        UnknownName, BadValue: as `parameters.resolve`.
    """
    place = Path(output_dir).expanduser()
    if place.is_absolute() and place.resolve().is_relative_to(paths.home()):
        place = place.resolve().relative_to(paths.home())  # no path of this machine in the executed notebook
    return resolve(item, settings, profile=profile, output_dir=place.as_posix())


def asked(names: Sequence[str] | None, settings: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """What a command line names: item -> parameters of its notebook, of the items that have one.

    Args:
        names: as for `papers.items.find`; none: the items of all papers.
        settings: ``name=value``.

    Raises:
        UnknownName, BadValue: as `find`, `parse_settings` and `resolve`.
    """
    given = parse_settings(settings or [])
    found = find(names) if names else with_runs()
    return {item.id: resolve(item, given) for item in found if item.notebook is not None}


def plan(order: Order, notebooks: Sequence[tuple[Item, dict[str, Any]]]) -> Todo:
    """Which notebooks are to be run (see `cache.cache_key`); all keys are taken now, so that what is edited
    while the batch runs is run again next time.

    Args:
        notebooks: `Order.checked`.
    """
    run: list[tuple[Item, Status]] = []
    unchanged: list[Status] = []
    for item, values in notebooks:
        key = cache.cache_key(notebook_path(item), order.profile, values)
        folder = Staging(item.id, order.profile, order.place, "-").final
        if not order.force and (current := cache.unchanged(folder, key)) is not None:
            unchanged.append(replace(current, status=UNCHANGED))
            continue
        versions = cache.versions()
        crashed = Status(item.id, FAILED, order.profile, parameters=values, cache_key=key, versions=versions)
        run.append((item, crashed))
    planned = [Status(item.id, PLANNED, order.profile) for item in order.items if item.notebook is None]
    return Todo(order, run, unchanged, planned)
