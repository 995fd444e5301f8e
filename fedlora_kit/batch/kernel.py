"""A kernel that is this very Python, whatever other kernels the machine knows.

A "python3" kernel spec of another environment anywhere on ``JUPYTER_PATH`` wins over the environment's own;
the notebook then runs with other packages. A private spec in front of the path takes the name for the time
of a run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fedlora_kit.batch import provisioner
from fedlora_kit.batch.forked import Kernel
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import own_code
from fedlora_kit.surroundings import environment, in_front, python_path

KERNEL_NAME = "python3"


@contextmanager
def private_kernel(kernel: Kernel | None = None) -> Iterator[Path]:
    """Inside the block the kernel name ``python3`` means ``sys.executable``, or a process that waits to be a
    kernel; yields the spec's folder.

    The kernel imports the same ``fedlora_kit`` as this process, no IPython start-up files of the user's, and
    the files that `own_code` names.
    """
    with tempfile.TemporaryDirectory(prefix="fedlora-kernel-") as folder:
        spec = Path(folder) / "kernels" / KERNEL_NAME
        spec.mkdir(parents=True)
        content: dict[str, object] = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3",
            "language": "python",
        }
        if kernel is not None:
            content["metadata"] = {"kernel_provisioner": {"provisioner_name": provisioner.NAME}}
        (spec / "kernel.json").write_text(json.dumps(content), encoding="utf-8")
        if own_code.files():
            start_up = Path(folder) / "ipython" / "profile_default" / "startup"
            start_up.mkdir(parents=True)
            (start_up / "00-own.py").write_text(own_code.START_UP, encoding="utf-8")
        changes = {
            "JUPYTER_PATH": in_front(folder, "JUPYTER_PATH"),
            "PYTHONPATH": python_path(),
            "IPYTHONDIR": str(Path(folder) / "ipython"),
        }
        with environment(changes), nullcontext() if kernel is None else provisioner.waiting(kernel):
            yield spec


def start_and_ask(seconds: int = 60) -> str:
    """Start a kernel, let it say which Python it is, and stop it; for ``fedlora doctor``.

    Raises:
        FedloraError: it does not start, or it is another Python.
    """
    remedy = "install the kernel into this environment: python -m pip install ipykernel"
    try:
        from nbclient import NotebookClient
        from nbformat.v4 import new_code_cell, new_notebook

        ask = new_notebook(cells=[new_code_cell("import sys, fedlora_kit; print(sys.executable)")])
        with private_kernel():
            client = NotebookClient(ask, timeout=seconds, startup_timeout=seconds, kernel_name=KERNEL_NAME)
            client.execute(stderr=subprocess.DEVNULL)
    except Exception as error:
        raise FedloraError(f"a notebook kernel does not start: {error}", remedy) from None
    answer = "".join(output.get("text", "") for output in ask.cells[0].outputs).strip()
    if answer != sys.executable:
        raise FedloraError(f"the notebook kernel is another Python: {answer or 'no answer'}", remedy)
    return answer
