"""``--more-seeds``: an item's last results once more, with seeds added to theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlora_kit.batch.folders import EARLIER
from fedlora_kit.batch.parameters import notebook_path, read_parameters
from fedlora_kit.batch.status import OK, Status, read_status
from fedlora_kit.errors import BadValue
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.reporting.outputs import item_folder
from fedlora_kit.study.item import Item


def with_more_seeds(
    items: Sequence[Item], more: int, profile: str, settings: Mapping[str, Any], place: str | Path
) -> dict[str, dict[str, Any]]:
    """Item -> its settings: those of its last good results, ``settings`` above them, and ``more`` seeds than
    its claims were judged at. An item whose claims have no seeds stays at its last settings.

    Raises:
        BadValue: ``more`` is below 1; ``settings`` holds seeds; an item has no results yet; none of the items
            has seeds to add to; more seeds than there are.
    """
    if more < 1:
        raise BadValue(f"--more-seeds {more}", "say how many to add: 1 or more")
    if "seeds" in settings:
        raise BadValue("--more-seeds and --set seeds", "leave one out")
    found, grown = {}, False
    for item in items:
        last, seeds = _last(item, profile, place)
        values = {k: v for k, v in last.parameters.items() if k not in {"profile", "output_dir"}}
        values = {k: v for k, v in values.items() if k not in item.parameters} | dict(settings)
        declared = read_parameters(notebook_path(item)).get("seeds")
        if seeds and declared is not None and declared.base == "int":
            values["seeds"] = len(checked_seeds(max(seeds) + 1 + more))
            grown = True
        found[item.id] = values
    if not grown:
        raise BadValue(
            f"no claim of {', '.join(found)} is judged over seeds, so there is nothing to add to",
            "leave --more-seeds out",
        )
    return found


def _last(item: Item, profile: str, place: str | Path) -> tuple[Status, list[int]]:
    """The status of the last run that ended well, and the seeds of its claims."""
    folder = item_folder(item.id, profile, place)
    for one in (folder, folder / EARLIER):
        status, claims = read_status(one), one / "claims.json"
        if status is not None and status.status == OK:
            records = json.loads(claims.read_bytes()) if claims.is_file() else []
            if all("seeds" in record for record in records):  # an earlier version's have none
                return status, [seed for record in records for seed in record["seeds"]]
    raise BadValue(
        f"{item.id} has no results at profile {profile} that seeds could be added to",
        f"make them first: fedlora reproduce {item.id} --profile {profile}",
    )
