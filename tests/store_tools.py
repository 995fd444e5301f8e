"""What the tests of the store share: a small entry, and processes that may be killed."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.store import Store

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
SPEC = {"method": "fedit", "rounds": 4, "lr": 0.1}
FILES = {
    "history.jsonl": [{"round": 0, "loss": 0.5}, {"round": 1, "loss": float("nan")}],
    "results.json": {"final": 81.25, "best": 82.5},
    "provenance.json": {"wall_seconds": 1.5},
    "privacy.json": {"epsilon": 6.0},
    "adapter": lambda path: (
        path.mkdir(),
        (path / "adapter_model.safetensors").write_bytes(bytes(range(256))),
    ),
}


def finish(store: Store, key: str = KEY, **changes) -> None:
    with store.work(key, SPEC) as work:
        work.finish({**FILES, **changes})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@contextmanager
def child(body: Callable[[], None]) -> Iterator[int]:
    """A forked process that runs ``body``; killed at the block's end if it still lives."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            warnings.simplefilter("ignore")
            body()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


CALLS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "open")


def killing(count: int) -> Callable[[], None]:
    """Make this process kill itself at its ``count``-th call that touches the disk."""
    left = [count]

    def wrap(function):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))


def killed_again_and_again(train: Callable[[], object], root: Path, times: int = 3) -> list[int]:
    """Train one run in processes that are killed at random moments, a few rounds after they began to save.

    Returns:
        The round that each of them has reached.
    """
    rng, save, reached = random.Random(0), CheckpointFolder.save, []
    for _ in range(times):
        ours, theirs = os.pipe()

        def body(theirs: int = theirs) -> None:
            def told(self, *what):
                os.write(theirs, b".")
                return save(self, *what)

            CheckpointFolder.save = told
            train()

        with child(body):
            os.close(theirs)
            for _ in range(rng.randint(2, 9)):
                assert os.read(ours, 1), "it ended too early"
            time.sleep(rng.uniform(0, 0.03))
        os.close(ours)
        (left,) = Store(root).unfinished()
        assert left.status == "interrupted"
        reached.append(left.round_index)
    return reached


def killed(*_) -> None:
    """What a process does that the system ends for its memory."""
    os.kill(os.getpid(), signal.SIGKILL)
