"""``fedlora doctor``: is this machine ready? Each check gives a verdict and, unless it is fine, a remedy."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from fedlora_kit import __version__, paths
from fedlora_kit.cli.init import laid_by
from fedlora_kit.devices import describe_gpu, gpu_count, gpu_hidden, resolve_device, why_no_gpu
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.libraries import installed
from fedlora_kit.numerals import fixed, size

_GIB = 2**30
_LOCKED = "install from the lock file: make install, or python -m pip install -e ."


class Check(NamedTuple):
    """One line of the examination; ``verdict`` is "ok", "warn" or "fail"."""

    verdict: str
    found: str
    remedy: str = ""


def examine() -> dict[str, Check]:
    """All checks by name, in order. A check that itself breaks is a failure, not a traceback."""
    checks = {}
    for check in (python, packages, folder, kernel, device, mirror, hub, disk, store):
        try:
            checks[check.__name__] = check()
        except FedloraError as error:
            checks[check.__name__] = Check("fail", error.problem, error.remedy)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            checks[check.__name__] = Check("fail", found, "repair the installation: install the kit anew")
    return checks


def python() -> Check:
    """Which Python this is."""
    return Check("ok", f"{platform.python_version()} at {sys.executable}")


def packages(version_of: Callable[[str], str | None] = installed) -> Check:
    """The installed packages against the versions this package asks for."""
    from packaging.requirements import Requirement

    missing, other, required = [], [], [Requirement(line) for line in _required()]
    required = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in required:
        version = version_of(requirement.name)
        if version is None:
            missing.append(str(requirement))
        elif not requirement.specifier.contains(version, prereleases=True):
            other.append(f"{requirement.name} {version} (wanted {requirement.specifier})")
    names = " ".join(f"'{requirement}'" for requirement in required)
    remedy = f"python -m pip install {names}" if paths.checkout() is None else _LOCKED
    if missing:
        return Check("fail", f"missing: {', '.join(missing)}", remedy)
    if other:
        return Check("warn", f"other versions than tested: {', '.join(other)}", remedy)
    return Check("ok", f"{len(required)} packages as required")


def _required() -> list[str]:
    try:
        return metadata.requires("fedlora-kit") or []
    except metadata.PackageNotFoundError:  # run from the source tree, not installed
        file = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not file.is_file():
            raise FedloraError("fedlora-kit is not installed", "python -m pip install -e .") from None
        return list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"])


def folder() -> Check:
    """Where notebooks and data are: a working folder, of this version of the kit, or the checkout."""
    home = paths.home()
    laid = laid_by(home)
    if laid is None:
        return Check("ok", f"{home}, {'the checkout' if home == paths.checkout() else 'by FEDLORA_HOME'}")
    found = f"{home}, a working folder laid by fedlora-kit {laid}"
    if laid != __version__:
        return Check("warn", f"{found}; this is {__version__}", f"fedlora init {home} (keeps what is yours)")
    return Check("ok", found)


def kernel() -> Check:
    """A notebook kernel, really started."""
    from fedlora_kit.batch.kernel import start_and_ask

    return Check("ok", f"starts, and is {start_and_ask()}")


def device() -> Check:
    """What will compute."""
    from fedlora_kit.running.places import cores

    if count := gpu_count():
        return _gpus([_try_gpu(index) for index in range(count)], cores())
    problem, remedy = why_no_gpu()
    found = (
        f"{problem}; {cores()} CPU cores: enough for smoke; small takes hours, paper needs GPUs "
        "(fedlora plan --profile small estimates)"
    )
    return Check("warn", found, remedy) if gpu_hidden() else Check("ok", found)


class _Gpu(NamedTuple):
    found: str
    bf16: bool = True
    problem: str = ""


def _try_gpu(index: int) -> _Gpu:
    """One product on a GPU, and what it is."""
    import torch

    name = f"cuda:{index}"
    try:
        where = resolve_device(name)
        ones = torch.ones(256, 256, device=where)
        if float((ones @ ones).sum()) != 256**3:
            return _Gpu(name, problem=f"{name} computes a wrong product")
        known = describe_gpu(where)
    except (FedloraError, RuntimeError) as error:
        return _Gpu(name, problem=error.problem if isinstance(error, FedloraError) else f"{name}: {error}")
    memory, capability = fixed(known["memory_bytes"] / _GIB, 0), known["capability"]
    found = f"{name} {known['name']}, {memory} GiB, capability {capability}, driver {known['driver']}"
    return _Gpu(found, bf16=float(capability) >= 8.0)


def _gpus(gpus: list[_Gpu], cores: int) -> Check:
    four_bit = installed("bitsandbytes") or "is not installed: no 4-bit weights"
    mode, parts = _compute_modes(), [gpu.found for gpu in gpus]
    parts += [f"compute mode {mode}"] if mode else []
    found = "; ".join([*parts, f"bitsandbytes {four_bit}", f"{cores} CPU cores"])
    problems, good = [gpu.problem for gpu in gpus if gpu.problem], [not gpu.problem for gpu in gpus]
    if problems:
        rest = ",".join(str(index) for index, works in enumerate(good) if works)
        remedy = f"use the others: CUDA_VISIBLE_DEVICES={rest}" if rest else "compare nvidia-smi"
        return Check("fail", "; ".join([*problems, found]), remedy)
    if not all(gpu.bf16 for gpu in gpus):
        return Check("warn", found, "bf16 needs capability 8.0: choose runs in fp32 on older GPUs")
    if "Exclusive" in mode:
        return Check("warn", found, f"one process a GPU at a time: set FEDLORA_JOBS={len(gpus)}")
    return Check("ok", found)


def _compute_modes() -> str:
    """Of all GPUs, as nvidia-smi names them; empty where it does not say."""
    ask = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(sorted({line.strip() for line in said.splitlines() if line.strip()}))


def mirror() -> Check:
    """The local mirror of data and models, if one is named."""
    from huggingface_hub import constants

    folder = paths.hub_dir()
    if folder is None and constants.HF_HUB_OFFLINE:
        remedy = "small and paper need data: name a mirror with FEDLORA_HUB, or unset HF_HUB_OFFLINE"
        return Check("warn", "no mirror, and HF_HUB_OFFLINE is set", remedy)
    if folder is None:
        return Check("ok", "none (FEDLORA_HUB is unset): small and paper download from the Hub")
    data = folder / "datasets"
    files = [*data.rglob("*.parquet"), *data.rglob("tasks/*.json")]
    models = sum(1 for _ in (folder / "models").rglob("config.json"))
    found = f"{folder}: {len(files)} data files, {models} models"
    if not files and not models:
        return Check("fail", found, "it holds neither datasets/ nor models/: correct or unset FEDLORA_HUB")
    return Check("ok", found)


def hub() -> Check:
    """Whether the Hub answers (one request), and whether requests carry a token."""
    from huggingface_hub import HfApi, constants

    from fedlora_kit.hub import TIMEOUT
    from fedlora_kit.hub_errors import has_token, in_words
    from fedlora_kit.models.names import backbone

    if paths.hub_dir() is not None:
        return Check("ok", "not asked, as there is a mirror")
    if constants.HF_HUB_OFFLINE:
        return Check("ok", "not asked, as HF_HUB_OFFLINE is set")
    known = backbone("FacebookAI/roberta-base")
    try:
        HfApi().repo_info(known.name, revision=known.revision, timeout=TIMEOUT)
    except Exception as error:
        otherwise = "name a mirror with FEDLORA_HUB (smoke needs neither)"
        told = in_words(error, constants.ENDPOINT, otherwise=otherwise)
        return Check("warn", told.problem, told.remedy)
    token = "a token is there" if has_token() else "no token: Llama 2 asks for one (hf auth login)"
    return Check("ok", f"{constants.ENDPOINT} answers; {token}")


def disk() -> Check:
    """Free space where the store of runs lies."""
    folder = paths.runs_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{size(free)} free for the store of runs"
    if free < 0.5 * _GIB:
        return Check("fail", found, "free some space, or name another disk with FEDLORA_RUNS")
    if free < 5 * _GIB:
        return Check("warn", found, "enough for smoke; free some, or set FEDLORA_RUNS, before small or paper")
    return Check("ok", found)


def store() -> Check:
    """The store of runs: writable, and what lies in it."""
    from fedlora_kit.experiments import atomic
    from fedlora_kit.experiments.store import Store

    runs = Store()
    probe = runs.root / ".doctor"
    atomic.write_text(probe, "")
    probe.unlink()
    states = ["finished" for _ in runs.entries()] + [run.status for run in runs.unfinished()]
    counts = [f"{states.count(s)} {s}" for s in ("finished", "running", "interrupted", "failed")]
    found, damaged = f"runs: {', '.join(counts)}", list((runs.root / ".damaged").glob("*"))
    if damaged:
        remedy = f"they are trained again when needed; look at, then delete {damaged[0].parent}"
        return Check("warn", f"{found}, {len(damaged)} damaged and set aside", remedy)
    return Check("ok", found)
