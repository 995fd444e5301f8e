"""Notebook kernels that start at once: forked from a server that has imported what notebooks import.

The kernel is IPython's own and spoken to as always; its process only comes another way than by `Popen`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from fedlora_kit.batch.order import Todo
from fedlora_kit.batch.runner import run_notebook
from fedlora_kit.batch.status import Status
from fedlora_kit.running.pools import PRELOAD
from fedlora_kit.surroundings import environment

IMPORTED = [*PRELOAD, "fedlora_kit.notebook", "ipykernel.kernelapp"]


class Forked:
    """A process in the shape of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self.poll()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def server() -> ForkServerContext:
    """The server, which is also that of `running.pools`: what it imports is said before it starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with environment({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}):  # as IPython's kernel says
        forkserver.ensure_running()
    return context


def _launch(command: list[str], *, env: dict[str, str], cwd: str | None = None, **_: Any) -> Forked:
    context = server()
    ours, theirs = context.Pipe()
    process = context.Process(target=_kernel, args=(theirs, command[3:], env, cwd or os.getcwd()))
    process.start()
    ours.recv()  # it has a session of its own: a signal to its group reaches nobody else
    return Forked(process)


def _kernel(told: Connection, words: list[str], variables: dict[str, str], folder: str) -> None:
    os.setsid()
    told.send(None)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=[*words, f"--IPKernelApp.parent_handle={os.getppid()}"])


@contextmanager
def warm_kernels() -> Iterator[list[str]]:
    """Within the block kernels are forked, and `reproduce` runs notebooks from this process, one after the
    other; their items."""
    ran: list[str] = []

    def run(todo: Todo, side_by_side: bool, reporter: object) -> list[Status]:
        ran.extend(item.id for item, _ in todo.run)
        given = todo.order.place, todo.order.timeout
        return [run_notebook(item, begun, *given) for item, begun in todo.run]

    logging.getLogger("papermill").setLevel(logging.ERROR)  # as in a notebook's own process
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jupyter_client.provisioning.local_provisioner.launch_kernel", _launch)
        patch.setattr("fedlora_kit.batch.pipeline.run", run)
        yield ran
