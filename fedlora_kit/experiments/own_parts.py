"""What of the user's own a run names, and whether another process can import it."""

from __future__ import annotations

import sys

from fedlora_kit.data.tasks import get_task
from fedlora_kit.experiments import reach
from fedlora_kit.experiments.spec import RunSpec


def external(spec: RunSpec) -> bool:
    """Whether the run names a task, method or partitioner that a notebook's cell defines: no other process
    can import it."""
    return any(reach.home(*one) == "cell" for one in _definitions(spec))


def own_modules(spec: RunSpec) -> list[str]:
    """The user's own modules that define what the run names; another process imports them first."""
    return [name for name, file in _definitions(spec) if reach.home(name, file) == "own"]


def _definitions(spec: RunSpec) -> set[tuple[str, str | None]]:
    """Modules of what a run names, each with its file."""
    named = [*spec.named_classes(), *filter(None, [get_task(spec.data.task).loader])]
    modules = {str(getattr(one, "__module__", "__main__")) for one in named}
    return {(name, getattr(sys.modules.get(name), "__file__", None)) for name in modules}
