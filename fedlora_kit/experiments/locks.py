"""An exclusive lock on one key, which the system itself frees when its owner dies."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedlora_kit.errors import FedloraError

_live: dict[Path, KeyLock] = {}  # locks that this process holds


class KeyLock:
    """``flock`` on a file that holds the owner's process id; the file goes when the lock is given back.

    A file left by a killed owner is not locked, so it hinders nobody. Not re-entrant: one thread that
    asks twice gets an error instead of waiting for itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._thread = 0

    def acquire(self, say: Callable[[str], None]) -> None:
        """Take the lock; if somebody has it, ``say`` once who, and wait."""
        owner = _live.get(self.path)
        if owner is not None and owner._thread == threading.get_ident():
            raise FedloraError(
                f"{self.path.stem} is already being worked on here", "leave the outer `with` first"
            )
        for attempt in range(5):  # a reader of the status touches the lock for an instant
            if self._try(fcntl.LOCK_EX | fcntl.LOCK_NB):
                return
            time.sleep(0.02 * (attempt > 0))
        pid = holder(self.path)
        say(f"run {self.path.stem}: waiting for process {pid or 'unknown'}, which is working on it")
        while not self._try(fcntl.LOCK_EX):
            pass

    def try_acquire(self) -> bool:
        """Take the lock if it is free; never waits."""
        return self._try(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Give the lock back. Does nothing if it is not held, as in a forked child."""
        if self._handle is None:
            return
        self.path.unlink(missing_ok=True)  # while still locked: see _try
        _live.pop(self.path, None)
        os.close(self._handle)
        self._handle = None

    def _try(self, operation: int) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, operation)
            # The owner before may have removed this very file: then the lock is on nothing.
            if not _same_file(handle, self.path):
                os.close(handle)
                return False
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._handle, self._thread = handle, threading.get_ident()
        _live[self.path] = self
        return True


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock at ``path`` now."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def holder(path: Path) -> int | None:
    """The process id that the lock file names, if any."""
    try:
        return int(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """In a forked child: close the copies, or a child that outlives its parent would keep the locks."""
    for lock in _live.values():
        if lock._handle is not None:
            os.close(lock._handle)
            lock._handle = None
    _live.clear()


os.register_at_fork(after_in_child=_forget)
