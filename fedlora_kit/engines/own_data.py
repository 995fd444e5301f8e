"""The user's own data, looked at before anything is trained on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fedlora_kit.data.tasks import TASKS, is_own

if TYPE_CHECKING:
    from fedlora_kit.experiments.spec import RunSpec


def doubts_beforehand(profile: str, parameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is doubtful about tasks of the user's own under the models of items' runs: a sentence each.

    Args:
        parameters: item -> its notebook's parameters, typed.

    Raises:
        FedloraError: examples that cannot be used.
    """
    if not any(map(is_own, TASKS)):
        return []
    from fedlora_kit.engines.stages import plan_item
    from fedlora_kit.experiments.setup import load_data
    from fedlora_kit.papers.runs_of import has_runs

    wanted: dict[tuple[str, str], RunSpec] = {}
    for item in filter(has_runs, parameters):
        with suppress(Exception):  # a setting that the item refuses: its notebook says so
            specs = plan_item(item, profile, parameters[item]).runs.specs()
            own = [spec for spec in specs if is_own(spec.data.task)]
            wanted |= {(spec.data.model_dump_json(), spec.model.backbone): spec for spec in own}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for spec in wanted.values():
            load_data(spec.data, spec.model.backbone)
    return list(dict.fromkeys(str(one.message) for one in caught if one.category is UserWarning))
