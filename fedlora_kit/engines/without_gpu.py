"""A warning where a GPU is needed, and there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlora_kit.study.plan import RateOf

_SMOKE = "smoke"
_log = logging.getLogger(__name__)


def slow_without_gpu(
    profile: str,
    parameters: Mapping[str, Mapping[str, Any]],
    rate_of: RateOf | None = None,
    share: int = 1,
) -> str | None:
    """One sentence about the time that a profile made for GPUs takes here; None where there is no need.

    There is none for smoke, with a GPU, for items whose runs are all in the store, where the CPU was asked
    for, and where planning fails: a warning stops no command. The time is the plan's
    (`fedlora plan`), of the runs that are still to be trained.

    Args:
        parameters: item -> its notebook's parameters, typed.
        rate_of: the device's speed; measured now if None.
        share: of how many machines this is one.
    """
    from fedlora_kit.papers.runs_of import has_runs, planned_items

    planned = {k: v for k, v in parameters.items() if has_runs(k) and v.get("device", "auto") == "auto"}
    if profile == _SMOKE or not planned:
        return None
    import torch

    if torch.cuda.is_available():
        return None
    from fedlora_kit.numerals import duration
    from fedlora_kit.running.places import default_jobs
    from fedlora_kit.study.plan import plan
    from fedlora_kit.study.rates import rates

    try:
        total = plan(profile, planned_items(profile, planned), rate_of or rates(None, "auto")).totals
        jobs = default_jobs()
    except Exception:  # such as a setting that an item refuses: its own error says it better, and stops
        _log.debug("the time without a GPU cannot be planned", exc_info=True)
        return None
    if not total.missing:
        return None
    of = f", 1 of {share} shares here" if share > 1 else ""
    known = total.missing - total.unknown
    time = (
        f"about {duration(3600 * total.device_hours / share)}" if known else "a time that cannot be estimated"
    )
    rest = f" ({total.unknown} of them could not be estimated)" if known and total.unknown else ""
    return (
        f"no GPU here: profile {profile} has {total.missing} runs to train{of}, {time} on this machine's CPU "
        f"one after the other, {jobs} go at a time{rest}; `fedlora plan` has the parts, and "
        "--set device=cpu leaves this warning out"
    )
