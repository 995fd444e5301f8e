"""The processes of a notebook, forked from a server that has imported what notebooks import.

The server also forks those that train (`running.pools`). A notebook's own process (`worker`) comes from it,
and at once, while it has neither threads nor sockets, forks the process that will be its kernel. That one
waits to be told the command that Jupyter would start, and is IPython's own kernel from then on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext

from fedlora_kit.devices import gpu_count
from fedlora_kit.running.pools import PRELOAD, fork_server
from fedlora_kit.surroundings import environment

_IMPORTED = (
    *PRELOAD,
    "fedlora_kit.notebook",
    "fedlora_kit.papers.items",
    "fedlora_kit.batch.pinned",
    "fedlora_kit.batch.runner",
    "papermill",
    "jupyter_client.provisioning",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipywidgets",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "matplotlib_inline.backend_inline",
    "fontTools.subset",  # what a PDF's fonts go through
    "seaborn",
    "tabulate",
)
_INLINE = "module://matplotlib_inline.backend_inline"  # as IPython's kernel says before anything is imported


def context() -> ForkServerContext | SpawnContext:
    """What starts notebooks' processes; its server begins to import now, if it has not yet.

    With GPUs it is a fresh Python for each: should a library start CUDA early, forks of it could not use it.
    """
    if gpu_count():
        return multiprocessing.get_context("spawn")
    with environment({"MPLBACKEND": os.environ.get("MPLBACKEND") or _INLINE}):
        return fork_server(_IMPORTED)


class Kernel:
    """A kernel's process, in the shape of `subprocess.Popen` as far as Jupyter needs it."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        self._tell, theirs = fork.Pipe()
        self._process = fork.Process(target=_wait, args=(theirs, self._tell))
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0

    def start(self, command: Sequence[str], variables: Mapping[str, str], folder: str) -> None:
        """Be the kernel of a command line, ``python -m ipykernel_launcher ...``; once."""
        self._tell.send((command[3:], dict(variables), folder))

    def poll(self) -> int | None:
        """As of Popen, and so on."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _wait(told: Connection, other: Connection) -> None:
    """The life of a kernel's process."""
    other.close()
    os.setsid()  # a signal to its group reaches nobody else
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        words, variables, folder = told.recv()
    except EOFError:  # the notebook needs none, or its process is gone
        return
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    import torch
    from ipykernel.kernelapp import launch_new_instance
    from joblib import cpu_count

    named = variables.get("OMP_NUM_THREADS", "")
    threads = int(named) if named.isdigit() else cpu_count(only_physical_cores=True)
    torch.set_num_threads(threads)  # as PyTorch itself does; the server has one
    # pyplot was imported before there was a shell: pictures are shown once the shell is told to
    inline = [] if variables.get("MPLBACKEND", _INLINE) != _INLINE else ["--matplotlib=inline"]
    launch_new_instance(argv=[*words, *inline, f"--IPKernelApp.parent_handle={os.getppid()}"])
