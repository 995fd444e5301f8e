"""``fedlora doctor``: is this machine ready? Each check gives a verdict and, unless it is fine, a remedy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fedlora_kit import paths
from fedlora_kit.devices import describe_gpu, gpu_count, gpu_hidden, resolve_device, why_no_gpu
from fedlora_kit.errors import FedloraError
from fedlora_kit.numerals import fixed, size

_GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the examination; ``verdict`` is "ok", "warn" or "fail"."""

    check: str
    verdict: str
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks, in order. A check that itself breaks is a failure, not a traceback."""
    checks = []
    for function in (python, packages, kernel, device, mirror, hub, disk, store):
        try:
            checks.append(function())
        except Exception as error:
            remedy = (
                error.remedy if isinstance(error, FedloraError) else "repair the installation: make reproduce"
            )
            problem = error.problem if isinstance(error, FedloraError) else f"{type(error).__name__}: {error}"
            checks.append(Check(function.__name__, "fail", problem, remedy))
    return checks


def python() -> Check:
    """Python 3.11 or later."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036 (a package can be run without pip's check)
        return Check("python", "fail", found, "install Python 3.11 or later")
    return Check("python", "ok", found)


def packages(installed: Callable[[str], str] = metadata.version) -> Check:
    """The installed packages against the versions this package asks for."""
    from packaging.requirements import Requirement

    missing, other, count = [], [], 0
    for line in _required():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = installed(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(str(requirement))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            other.append(f"{requirement.name} {version} (wanted {requirement.specifier})")
    remedy = "install from the lock file: make reproduce, or python -m pip install -e ."
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", remedy)
    if other:
        return Check("packages", "warn", f"other versions than tested: {', '.join(other)}", remedy)
    return Check("packages", "ok", f"{count} packages as required")


def _required() -> list[str]:
    try:
        return metadata.requires("fedlora-kit") or []
    except metadata.PackageNotFoundError:  # run from the source tree, not installed
        file = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not file.is_file():
            raise FedloraError("fedlora-kit is not installed", "python -m pip install -e .") from None
        return list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"])


def kernel() -> Check:
    """A notebook kernel, really started."""
    from fedlora_kit.batch.kernel import start_and_ask

    return Check("kernel", "ok", f"starts, and is {start_and_ask()}")


def device() -> Check:
    """What will compute."""
    import joblib

    cores = joblib.cpu_count()
    if count := gpu_count():
        return _gpus([_try_gpu(index) for index in range(count)], cores)
    problem, remedy = why_no_gpu()
    found = (
        f"{problem}; {cores} CPU cores: enough for smoke; small takes hours, paper needs GPUs "
        "(fedlora plan --profile small estimates)"
    )
    return Check("device", "warn", found, remedy) if gpu_hidden() else Check("device", "ok", found)


@dataclass(frozen=True)
class _Gpu:
    found: str
    bf16: bool = True
    problem: str = ""


def _try_gpu(index: int) -> _Gpu:
    """One product on a GPU, and what it is."""
    import torch

    try:
        where = resolve_device(f"cuda:{index}")
        ones = torch.ones(256, 256, device=where)
        if float((ones @ ones).sum()) != 256**3:
            return _Gpu(f"cuda:{index}", problem=f"cuda:{index} computes a wrong product")
        known = describe_gpu(where)
    except (FedloraError, RuntimeError) as error:
        problem = error.problem if isinstance(error, FedloraError) else f"cuda:{index}: {error}"
        return _Gpu(f"cuda:{index}", problem=problem)
    memory, capability = fixed(known["memory_bytes"] / _GIB, 0), known["capability"]
    found = f"cuda:{index} {known['name']}, {memory} GiB, capability {capability}, driver {known['driver']}"
    return _Gpu(found, bf16=float(capability) >= 8.0)


def _gpus(gpus: list[_Gpu], cores: int) -> Check:
    mode, four_bit = _compute_modes(), _version("bitsandbytes")
    parts = [gpu.found for gpu in gpus]
    parts += [f"compute mode {mode}"] if mode else []
    parts += [f"bitsandbytes {four_bit or 'is not installed: no 4-bit weights'}", f"{cores} CPU cores"]
    found, problems = "; ".join(parts), [gpu.problem for gpu in gpus if gpu.problem]
    if problems:
        good = [str(index) for index, gpu in enumerate(gpus) if not gpu.problem]
        remedy = f"use the others: CUDA_VISIBLE_DEVICES={','.join(good)}" if good else "compare nvidia-smi"
        return Check("device", "fail", "; ".join([*problems, found]), remedy)
    if not all(gpu.bf16 for gpu in gpus):
        return Check("device", "warn", found, "bf16 needs capability 8.0: choose runs in fp32 on older GPUs")
    if "Exclusive" in mode:
        return Check("device", "warn", found, f"one process a GPU at a time: set FEDLORA_JOBS={len(gpus)}")
    return Check("device", "ok", found)


def _compute_modes() -> str:
    """Of all GPUs, as nvidia-smi names them; empty where it does not say."""
    ask = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(sorted({line.strip() for line in said.splitlines() if line.strip()}))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def mirror() -> Check:
    """The local mirror of data and models, if one is named."""
    folder = paths.hub_dir()
    if folder is None:
        offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no", "off")
        if offline:
            return Check(
                "mirror",
                "warn",
                "no mirror, and HF_HUB_OFFLINE is set",
                "small and paper need data: name a mirror with FEDLORA_HUB, or unset HF_HUB_OFFLINE",
            )
        return Check("mirror", "ok", "none (FEDLORA_HUB is unset): small and paper download from the Hub")
    data = sum(1 for _ in (folder / "datasets").rglob("*.parquet")) + sum(
        1 for _ in (folder / "datasets").rglob("tasks/*.json")
    )
    models = sum(1 for _ in (folder / "models").rglob("config.json"))
    found = f"{folder}: {data} data files, {models} models"
    if data == 0 and models == 0:
        return Check(
            "mirror", "fail", found, "it holds neither datasets/ nor models/: correct or unset FEDLORA_HUB"
        )
    return Check("mirror", "ok", found)


def hub() -> Check:
    """Whether the Hub answers (one request), and whether requests carry a token."""
    from huggingface_hub import HfApi, constants

    from fedlora_kit.hub import TIMEOUT
    from fedlora_kit.hub_errors import has_token, in_words
    from fedlora_kit.models.names import backbone

    if paths.hub_dir() is not None:
        return Check("hub", "ok", "not asked, as there is a mirror")
    if constants.HF_HUB_OFFLINE:
        return Check("hub", "ok", "not asked, as HF_HUB_OFFLINE is set")
    known = backbone("FacebookAI/roberta-base")
    try:
        HfApi().repo_info(known.name, revision=known.revision, timeout=TIMEOUT)
    except Exception as error:
        otherwise = "name a mirror with FEDLORA_HUB (smoke needs neither)"
        told = in_words(error, constants.ENDPOINT, otherwise=otherwise)
        return Check("hub", "warn", told.problem, told.remedy)
    token = "a token is there" if has_token() else "no token: Llama 2 asks for one (hf auth login)"
    return Check("hub", "ok", f"{constants.ENDPOINT} answers; {token}")


def disk() -> Check:
    """Free space where the store of runs lies."""
    folder = paths.runs_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{size(free)} free for the store of runs"
    if free < 0.5 * _GIB:
        return Check("disk", "fail", found, "free some space, or name another disk with FEDLORA_RUNS")
    if free < 5 * _GIB:
        return Check(
            "disk", "warn", found, "enough for smoke; free some, or set FEDLORA_RUNS, before small or paper"
        )
    return Check("disk", "ok", found)


def store() -> Check:
    """The store of runs: writable, and what lies in it."""
    from fedlora_kit.experiments import atomic
    from fedlora_kit.experiments.store import Store

    runs = Store()
    probe = runs.root / ".doctor"
    atomic.write_text(probe, "")
    probe.unlink()
    finished = sum(1 for _ in runs.entries())
    states = [run.status for run in runs.unfinished()]
    damaged = sum(1 for _ in (runs.root / ".damaged").glob("*")) if (runs.root / ".damaged").is_dir() else 0
    counts = {"finished": finished, **{s: states.count(s) for s in ("running", "interrupted", "failed")}}
    found = f"runs: {', '.join(f'{number} {state}' for state, number in counts.items())}"
    if damaged:
        return Check(
            "store",
            "warn",
            f"{found}, {damaged} damaged and set aside",
            f"they are trained again when needed; look at, then delete {runs.root / '.damaged'}",
        )
    return Check("store", "ok", found)
