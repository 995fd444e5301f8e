"""Which training runs an item needs, named without training.

Plans, shards and remote engines train runs; the notebook then finds all of them in the store.
"""

from __future__ import annotations

from typing import Any

from fedlora_kit.errors import UnknownName
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.item_runs import RUNS
from fedlora_kit.study.planned import Runs


def runs_of(item: str, profile: str, *, store: Store | None = None, **parameters: Any) -> list[RunSpec]:
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


def planned_runs(item: str, profile: str, **parameters: Any) -> Runs:
    """The runs of an item, in their stages.

    Raises:
        UnknownName, BadValue: see `runs_of`.
    """
    if item not in RUNS:
        raise UnknownName("item", item, RUNS)
    relevant = {name: value for name, value in parameters.items() if name not in {"device", "output_dir"}}
    return RUNS[item](profile, **relevant)
