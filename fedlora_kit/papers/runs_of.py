"""Which training runs an item needs, named without training.

Plans, shards and remote engines train runs; the notebook then finds all of them in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.rooms import rooms
from fedlora_kit.study.planned import Runs


def runs_of(item: str, profile: str, /, *, store: Store | None = None, **parameters: Any) -> list[RunSpec]:
    """The runs of an item that can be named now, each once, in the notebook's order.

    For an item that chooses from a grid these are the grid's runs, and also the chosen ones once the whole
    grid is in the store: train what this gives, and ask again until all that it gives is finished.

    Args:
        store: where finished runs lie; the usual store if None.
        parameters: of the item's notebook, typed; ``device`` and ``output_dir`` change no run.

    Raises:
        UnknownName: no such item, profile or parameter.
        BadValue: a parameter's value that the item refuses.
    """
    planned = planned_runs(item, profile, **parameters)
    return [*planned.specs(), *(planned.chosen(store or Store()) or [])]


def planned_runs(item: str, profile: str, /, **parameters: Any) -> Runs:
    """The runs of an item, in their stages: what ``runs`` of the item's own module says.

    Raises:
        UnknownName, BadValue: see `runs_of`; a user's paper whose module has no ``runs``.
    """
    known = {one.id: (room, one) for room in rooms() for one in room.items}
    if item not in known:
        raise UnknownName("item", item, known)
    room, found = known[item]
    module = import_module(room.module_of(found))
    if not hasattr(module, "runs"):
        raise BadValue(
            f"{module.__file__} names no runs of {item}",
            "write there runs(profile, **parameters), which gives a study.planned.Runs",
        )
    given = {name: value for name, value in parameters.items() if name not in {"device", "output_dir"}}
    planned: Runs = module.runs(profile, **{**given, **found.parameters})
    return planned


def planned_items(profile: str, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Runs]:
    """The runs of items, in their stages.

    Args:
        parameters: item -> its notebook's parameters, typed; which items, in this order.

    Raises:
        UnknownName, BadValue: see `runs_of`.
    """
    return {item: planned_runs(item, profile, **given) for item, given in parameters.items()}


def has_runs(item: str) -> bool:
    """Whether an item's runs can be named without running its notebook."""
    return any(item == one.id for room in rooms() for one in room.items)
