"""Warm processes for runs: the libraries are imported once, by a server that forks the workers.

The server (`multiprocessing`'s forkserver) only imports: no thread computes and no GPU is in use where it
forks. A worker ends with the process that asked for it, whatever ends that one: each waits on
a pipe whose other end only that process holds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

from fedlora_kit.surroundings import QUIET, environment, python_path

P = ParamSpec("P")
T = TypeVar("T")

#: what a run imports, also what it imports only when it needs it
PRELOAD = (
    "fedlora_kit.running.training",
    "peft",
    "opacus",
    "datasets",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "sklearn.datasets",
)
#: what bounds the threads of NumPy's and SciPy's matrix products, too
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LONG = 60  # bytes of a temporary folder's path


def fork_server(preload: Sequence[str] = PRELOAD) -> ForkServerContext:
    """What forks from this process's server; if there is none yet, one begins to import ``preload``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    threads = {name: os.environ.get(name, "1") for name in _ONE_THREAD}
    same_code = {"PYTHONSAFEPATH": "1", "PYTHONPATH": python_path()}  # wherever this process was started
    _place_sockets()
    with environment({**QUIET, **threads, **same_code}), _no_interrupts():
        forkserver.ensure_running()  # takes the environment as it is now
    return context


def _place_sockets() -> None:
    """The server listens at a socket in the temporary folder, and a socket's path has at most some hundred
    bytes: where that folder's is too long for it, the socket lies in /tmp."""
    own = tempfile.gettempdir()
    if len(os.fsencode(own)) > _LONG and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"
        try:
            util.get_temp_dir()  # is made once a process, and kept
        finally:
            tempfile.tempdir = own


class WarmPool:
    """Processes that stay for many runs; started as work comes. Each computes with one thread on the CPU,
    unless the user's own variables say otherwise.

    Args:
        processes: at most so many.
        gpu: the GPU that they see (for ``CUDA_VISIBLE_DEVICES``); "": none.
        log: the file that takes what they print; None: where this process prints.
        preload: modules that the server imports.
    """

    def __init__(
        self,
        processes: int,
        gpu: str = "",
        log: Path | None = None,
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        context = fork_server(preload)
        ours, self._lifeline = context.Pipe(duplex=False)
        self._ours = ours  # open until every worker has its copy
        variables = {**os.environ, **QUIET, "CUDA_VISIBLE_DEVICES": gpu}
        self._executor = ProcessPoolExecutor(
            processes,
            mp_context=context,
            initializer=_begin,
            initargs=(ours, variables, log),
        )

    def submit(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> Future[T]:
        """Have a function called by a process. One that dies breaks the pool: see BrokenProcessPool."""
        with without_script():
            return self._executor.submit(work, *given, **named)

    def close(self) -> None:
        """End all processes at once. What they were training goes on from its last checkpoint, next time."""
        self._lifeline.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._ours.close()


def _begin(lifeline: Connection, variables: Mapping[str, str], log: Path | None) -> None:
    """A worker's first steps."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    settle(variables, log)
    follow_parent(lifeline, lambda: os._exit(1))  # the store is made for being killed at any moment


def settle(variables: Mapping[str, str], log: str | Path | None) -> None:
    """In a process that was forked: take this environment, and print into this file (None: to stderr)."""
    os.environ.clear()  # of what was set when the server began, and is not now
    os.environ.update(variables)
    with suppress(OSError):
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) if log is not None else 2
        os.dup2(handle, 1)
        os.dup2(handle, 2)


def follow_parent(lifeline: Connection, end: Callable[[], object]) -> None:
    """From now on ``end`` is called, in a thread of its own, when the parent ends or closes its end."""

    def wait() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv()  # nothing is ever sent: it returns when the other end is closed
        end()

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def without_script() -> Iterator[None]:
    """A process started inside does not run the script that asks: what it is sent lies in the package."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """A process started inside ignores Ctrl-C, from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
