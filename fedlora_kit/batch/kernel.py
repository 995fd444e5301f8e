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
from contextlib import contextmanager
from pathlib import Path

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import own_code
from fedlora_kit.surroundings import environment, in_front, python_path

KERNEL_NAME = "python3"


@contextmanager
def private_kernel() -> Iterator[Path]:
    """Inside the block the kernel name ``python3`` means ``sys.executable``; yields the spec's folder.

    The kernel imports the same ``fedlora_kit`` as this process, no IPython start-up files of the user's, and
    the files that `own_code` names.
    """
    with tempfile.TemporaryDirectory(prefix="fedlora-kernel-") as folder:
        spec = Path(folder) / "kernels" / KERNEL_NAME
        spec.mkdir(parents=True)
        content = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3",
            "language": "python",
        }
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
        with environment(changes):
            yield spec


def start_and_ask(seconds: float = 60.0) -> str:
    """Start a kernel, let it say which Python it is, and stop it; for ``fedlora doctor``.

    Raises:
        FedloraError: it does not start, or it is another Python.
    """
    remedy = "install the kernel into this environment: python -m pip install ipykernel"
    try:
        from jupyter_client.manager import start_new_kernel
    except ImportError:
        raise FedloraError("jupyter_client is not installed", remedy) from None
    with private_kernel():
        try:
            manager, client = start_new_kernel(
                startup_timeout=seconds, kernel_name=KERNEL_NAME, stderr=subprocess.DEVNULL
            )
        except Exception as error:
            raise FedloraError(f"a notebook kernel does not start: {error}", remedy) from None
        try:
            lines: list[str] = []

            def collect(message: dict[str, dict[str, str]]) -> None:
                lines.append(message["content"].get("text", ""))

            client.execute_interactive(
                "import sys, fedlora_kit; print(sys.executable)", timeout=seconds, output_hook=collect
            )
        except Exception as error:
            raise FedloraError(f"a notebook kernel starts but does not answer: {error}", remedy) from None
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    answer = "".join(lines).strip()
    if answer != sys.executable:
        raise FedloraError(f"the notebook kernel is another Python: {answer or 'no answer'}", remedy)
    return answer
