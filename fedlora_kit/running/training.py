"""One run, trained in this process or in a worker of any kind, and what became of it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import own_code
from fedlora_kit.experiments.placing import on_cpu, out_of_memory
from fedlora_kit.experiments.run import RunFailed, run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store


@dataclass(frozen=True, order=True)
class Job:
    """A run that is to be trained.

    Attributes:
        order: the smallest goes first.
        device: as its user names it: "auto", "cpu", "cuda", "cuda:<n>".
        seconds: what it takes, estimated.
        alone: on its GPU.
    """

    order: tuple[float, ...]
    key: str = field(compare=False)
    spec: RunSpec = field(compare=False)
    device: str = field(compare=False, default="auto")
    seconds: float = field(compare=False, default=1.0)
    alone: bool = field(compare=False, default=False)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        status: "finished" and "failed" (it diverged) are in the worker's store; "out of memory" (of a GPU),
            "error" and "killed" (its process): it could not be trained; "unknown": it was not found by its
            description; "sent again": see `Scheduler`.
        seconds: wall time.
        error: what went wrong, else empty; cause: the same as an error to be raised.
        failure: the record of a run that diverged.
        resumed: the round after which a finished one went on, if it did.
    """

    status: Literal["finished", "failed", "out of memory", "error", "killed", "unknown", "sent again"]
    seconds: float = 0.0
    error: str = ""
    failure: dict[str, Any] | None = None
    resumed: int | None = None
    cause: FedloraError | None = None


def train(spec: RunSpec, device: str, store: Store, force: bool = False) -> Entry:
    """`run`, on a CPU with one thread: runs side by side gain more from a core each, and the number of
    threads may change the last bits.
    """
    threads = torch.get_num_threads()
    if on_cpu(spec, device):
        torch.set_num_threads(1)
    try:
        return run(spec, device=device, store=store, force=force)
    finally:
        torch.set_num_threads(threads)


def attempt(do: Callable[[], Entry]) -> Outcome:
    """What becomes of a run that ``do`` trains; raises nothing that a run can do wrong."""
    begun = time.perf_counter()
    try:
        entry = do()
    except RunFailed as error:
        said = str(error.record.get("error", "unknown"))
        return Outcome("failed", time.perf_counter() - begun, said, error.record)
    except Exception as error:
        return refused(error, time.perf_counter() - begun)
    resumed = entry.provenance.get("resumed_after_round")
    return Outcome("finished", time.perf_counter() - begun, resumed=resumed)


def refused(error: BaseException, seconds: float = 0.0) -> Outcome:
    """A run that could not be trained. Only errors of the kit travel between processes as they are."""
    if isinstance(error, FedloraError):
        cause = error
    else:
        traceback.print_exception(error, file=sys.stderr)
        cause = FedloraError(f"{type(error).__name__}: {error}")
        cause.add_note("".join(traceback.format_exception(error)))
    return Outcome("out of memory" if out_of_memory(error) else "error", seconds, str(cause), cause=cause)


def work(
    description: Mapping[str, Any], modules: Sequence[str], key: str, device: str, root: str, force: bool
) -> Outcome:
    """Train a run into the store at ``root``: what the processes of this machine do.

    Args:
        modules: of the user's own that define what the run names; imported beside what `own_code` names.
        key: the run's, as the asking process has it. A process that does not know such a run, or another one
            by it, trains nothing.
    """
    try:
        own_code.modules()
        for name in modules:
            import_module(name)
        spec = RunSpec.parse(dict(description))
        if spec.key() != key:
            raise FedloraError(
                f"a training process would train run {spec.key()} and not {key}",
                "it found other code or other backbones than the command did",
            )
    except Exception as error:
        return replace(refused(error), status="unknown")
    return attempt(lambda: train(spec, device, Store(Path(root)), force))
