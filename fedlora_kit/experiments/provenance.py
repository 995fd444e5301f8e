"""Where a run's numbers come from: versions, commit, machine, time and memory."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedlora_kit.devices import describe_gpu, peak_bytes
from fedlora_kit.experiments.libraries import installed

PACKAGES = (
    "fedlora-kit",
    "torch",
    "transformers",
    "peft",
    "opacus",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "pandas",
    "scikit-learn",
)

_PACKAGE = Path(__file__).resolve().parent.parent


def collect(device: str, seconds: float, **facts: Any) -> dict[str, Any]:
    """A run's provenance as JSON values; call it at the run's end.

    Holds no user name, host name or absolute path: of a path among ``facts`` only the last part is kept.

    Args:
        device: as given to torch: "cpu", "cuda:1".
        seconds: wall time of the training, until now.
        facts: more to keep beside it, such as ``data=``, ``model=`` or ``seeds=``; JSON values.

    Returns:
        ``versions`` (package -> version, or ``None`` if absent; torch's with its build, as "2.13.0+cpu"),
        ``git`` (see :func:`git_state`),
        ``platform``, ``cpu_count``, ``torch_threads``, ``device`` ({type, name}; for a GPU see
        `devices.describe_gpu`), ``peak_memory_bytes`` ({process: largest resident set since the process
        began, and those of `devices.peak_bytes`}), ``started_utc`` (ISO 8601), ``wall_seconds``, ``facts``.
    """
    import torch

    started = datetime.now(UTC) - timedelta(seconds=seconds)
    where = torch.device(device)
    about = platform.uname()
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: installed(name) for name in PACKAGES},
            "torch": str(torch.__version__),
        },
        "git": git_state(),
        "platform": {"system": about.system, "release": about.release, "machine": about.machine},
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": describe_gpu(where) if where.type == "cuda" else {"type": "cpu", "name": _cpu_name()},
        "peak_memory_bytes": {"process": _peak_resident(), **peak_bytes(where)},
        "started_utc": started.isoformat(timespec="seconds"),
        "wall_seconds": float(seconds),
        **{name: _without_paths(value) for name, value in facts.items()},
    }


def git_state(package: Path = _PACKAGE) -> dict[str, Any] | None:
    """{"commit": 40 hex digits, "dirty": bool} of the repository that tracks ``package``, or ``None``.

    An installed package says what its wheel was built of (``tools/wheel_commit.py``).

    Dirty: a tracked file differs from the commit, or the package holds a file that git neither tracks nor
    ignores.
    A package installed inside somebody else's repository (its ``.venv``) is not tracked there: ``None``.
    """
    with suppress(FileNotFoundError):
        built: dict[str, Any] = json.loads((package / "_commit.json").read_text("utf-8"))
        return built
    if _git(package, "ls-files", "--error-unmatch", "--", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    tracked = _git(package, "status", "--porcelain", "--untracked-files=no")
    own = _git(package, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    if commit is None or tracked is None or own is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(tracked.strip() or own.strip())}


def _git(folder: Path, *arguments: str) -> str | None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables["GIT_OPTIONAL_LOCKS"] = "0"  # inside a hook the others point to another repository
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    if isinstance(value, str | Path) and Path(value).is_absolute():
        return Path(value).name
    return value
