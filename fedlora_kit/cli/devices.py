"""A GPU that is not there: an error where it is asked for, a warning where it is needed."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlora_kit.errors import BadValue

if TYPE_CHECKING:
    from fedlora_kit.planning.plan import RateOf

_SMOKE = "smoke"
_log = logging.getLogger(__name__)


def check_device(name: str) -> None:
    """Refuse a device that is not here, before anything has begun. Says nothing about "auto".

    Raises:
        BadValue: an unknown device, or a GPU that is not here; with the reason as far as it can be told.
    """
    text = name.strip()
    if text in ("auto", "cpu"):
        return
    number = re.fullmatch(r"cuda(?::([0-9]+))?", text)
    if number is None:
        from fedlora_kit.experiments.setup import resolve_device

        resolve_device(text)
        return
    import torch

    if not torch.cuda.is_available():
        problem, remedy = why_no_gpu()
        raise BadValue(f"device={text}, but {problem}", f"device=auto or device=cpu trains without; {remedy}")
    if number[1] is not None and int(number[1]) >= (count := torch.cuda.device_count()):
        raise BadValue(f"device={text}, but there are {count} GPUs here", f"cuda:0 to cuda:{count - 1}")


def gpu_hidden() -> bool:
    """Whether a GPU's driver is here although PyTorch uses none."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def why_no_gpu() -> tuple[str, str]:
    """Why PyTorch has no GPU, and what would help."""
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU", "unset it to use them"
    if torch.version.cuda is None and torch.version.hip is None:
        there = "there is a GPU, but PyTorch here is the build for CPUs"
        remedy = "for a GPU install PyTorch's CUDA build (https://pytorch.org/get-started/locally)"
        return (there if gpu_hidden() else "there is no GPU, and PyTorch here is the build for CPUs"), remedy
    if gpu_hidden():
        return "PyTorch cannot use the GPU", "compare the driver (nvidia-smi) with PyTorch's CUDA version"
    return "no GPU is found here", "run it on a machine with one"


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
    from fedlora_kit.cli.plan import rates, time_text
    from fedlora_kit.experiments.many import default_jobs
    from fedlora_kit.planning.plan import plan

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
        f"about {time_text(3600 * total.device_hours / share)}"
        if known
        else "a time that cannot be estimated"
    )
    rest = f" ({total.unknown} of them could not be estimated)" if known and total.unknown else ""
    return (
        f"no GPU here: profile {profile} has {total.missing} runs to train{of}, {time} on this machine's CPU "
        f"one after the other, {jobs} go at a time{rest}; `fedlora plan` has the parts, and "
        "--set device=cpu leaves this warning out"
    )
