"""Which device computes: named, checked, and made ready in this one place.

CUDA is started by `resolve_device` and by nothing else of the package: what plans, reads or trains on the CPU
leaves the GPUs alone.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedlora_kit.errors import BadValue, FedloraError

if TYPE_CHECKING:
    import torch

#: set to 0: no deterministic algorithms on CUDA
DETERMINISTIC = "FEDLORA_DETERMINISTIC"
#: where PyTorch looks for the settings of its allocator; a user's own stay
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_DRIVER = Path("/proc/driver/nvidia/version")


class OutOfMemory(FedloraError):
    """A GPU's memory was too small."""


def check_device(name: str) -> str:
    """Refuse a device that is not here; starts nothing.

    Args:
        name: "auto", "cpu", "cuda" (the first GPU) or "cuda:<n>".

    Returns:
        The name, without blanks.

    Raises:
        BadValue: an unknown device, or a GPU that is not here; with the reason as far as it can be told.
    """
    text = name.strip()
    if text in ("auto", "cpu"):
        return text
    number = re.fullmatch(r"cuda(?::([0-9]+))?", text)
    if number is None:
        raise BadValue(f"unknown device {name!r}", "use auto, cpu, cuda or cuda:<n>")
    count = gpu_count()
    if not count:
        problem, remedy = why_no_gpu()
        raise BadValue(f"device={text}, but {problem}", f"device=auto or device=cpu trains without; {remedy}")
    if number[1] is not None and int(number[1]) >= count:
        there = "is 1 GPU here" if count == 1 else f"are {count} GPUs here"
        raise BadValue(f"device={text}, but there {there}", f"cuda:0 to cuda:{count - 1}")
    return text


def kind_of(name: str) -> Literal["cpu", "cuda"]:
    """The kind of device that a name means here: "auto" is a GPU if there is one. Starts nothing.

    Raises:
        BadValue: see `check_device`.
    """
    text = check_device(name)
    if text == "auto":
        return "cuda" if gpu_count() else "cpu"
    return "cpu" if text == "cpu" else "cuda"


def resolve_device(name: str) -> torch.device:
    """The device of a name, ready to compute.

    A GPU has an index, CUDA is started on it, and it is the current one. "cuda" is the first.

    On a GPU, deterministic algorithms are on from here on, so that a run that is resumed ends as one that was
    not; ``FEDLORA_DETERMINISTIC=0`` leaves them as they are. The allocator grows its segments
    (``expandable_segments``), unless the user has set it up: batches of many widths would leave fragments.

    Raises:
        BadValue: see `check_device`.
        FedloraError: the GPU cannot be used.
    """
    import torch

    if kind_of(name) == "cpu":
        return torch.device("cpu")
    text = check_device(name)
    device = torch.device(text if ":" in text else "cuda:0")
    if not any(variable in os.environ for variable in _ALLOCATOR):
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    if os.environ.get(DETERMINISTIC, "1") != "0":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.set_device(device)
        torch.zeros((), device=device)  # the context, and so the driver's answer, comes with the first memory
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FedloraError(
            f"{device} cannot be used: {reason}", "fedlora doctor tries each GPU; device=cpu trains without"
        ) from error
    return device


def gpu_count() -> int:
    """GPUs that PyTorch can use; starts nothing."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` must be for a process that shall see the first, second, ... GPU alone."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = gpu_count()
    names = [part.strip() for part in named.split(",")] if named is not None else []
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def hide_gpus() -> None:
    """Let this process, which computes on the CPU, see no GPU: libraries start CUDA where they see one."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


#: the method of optimizers that asks about captured streams: by its name, and by its name in older releases
_ASKS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Training on a CPU does not start CUDA inside the block, although there are GPUs.

    AdamW asks in every step whether a GPU's stream is being captured, and so starts CUDA for parameters on
    the CPU, too. On a GPU, too little memory and an operation without a deterministic algorithm are
    clear errors.

    Raises:
        OutOfMemory, FedloraError: see above.
    """
    import torch

    if device.type == "cpu":
        optimizer: Any = torch.optim.Optimizer
        name = next(name for name in _ASKS if hasattr(optimizer, name))
        asks = getattr(optimizer, name)
        setattr(optimizer, name, lambda self: None)
        try:
            yield
        finally:
            setattr(optimizer, name, asks)
        return
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the memory of {device} is too small: {str(error).splitlines()[0]}",
            "run fewer at a time (FEDLORA_JOBS=1), or make the run smaller: docs/gpu.md, Too little memory",
        ) from error
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise FedloraError(
            str(error).partition(",")[0],
            f"set {DETERMINISTIC}=0: as good a run, but one that is resumed may end with other last bits",
        ) from error


def reset_peak(device: torch.device) -> None:
    """Count the largest memory of a GPU from here on."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> dict[str, int | None]:
    """The largest memory of a GPU since `reset_peak`, in bytes; None each for a CPU.

    Returns:
        cuda: held by tensors. cuda_reserved: taken from the GPU, what the allocator keeps included.
    """
    import torch

    if device.type != "cuda":
        return {"cuda": None, "cuda_reserved": None}
    return {
        "cuda": int(torch.cuda.max_memory_allocated(device)),
        "cuda_reserved": int(torch.cuda.max_memory_reserved(device)),
    }


def gpu_name(device: torch.device) -> str:
    """What the maker calls a GPU."""
    import torch

    return str(torch.cuda.get_device_name(device))


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """What a GPU is and how it computes, as JSON values.

    Returns:
        type, name, index (as this process counts), visible (``CUDA_VISIBLE_DEVICES``), uuid, memory_bytes,
        capability ("9.0"), driver, cuda, cudnn (versions), deterministic (whether deterministic
        algorithms are on).
    """
    import torch

    properties = torch.cuda.get_device_properties(device)
    uuid = getattr(properties, "uuid", None)
    return {
        "type": "cuda",
        "name": gpu_name(device),
        "index": device.index,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "uuid": None if uuid is None else str(uuid),
        "memory_bytes": int(properties.total_memory),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver_version(),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def free_bytes() -> int:
    """Memory that is free on the first GPU that this process sees. Starts CUDA."""
    import torch

    return int(torch.cuda.mem_get_info(resolve_device("cuda"))[0])


def release() -> None:
    """Give memory of a GPU that is held by nothing back to the other processes on it."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def driver_version(file: Path = _DRIVER) -> str | None:
    """The version of NVIDIA's driver, such as "550.54.15"; None where it cannot be read."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)", file.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def gpu_hidden() -> bool:
    """Whether a GPU's driver is here although PyTorch uses none."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def why_no_gpu() -> tuple[str, str]:
    """Why PyTorch has no GPU, and what would help."""
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU", "unset it to use them"
    if torch.version.cuda is None and torch.version.hip is None:
        there = "there is a GPU, but PyTorch here is the build for CPUs"
        remedy = "for a GPU install PyTorch's CUDA build (https://pytorch.org/get-started/locally)"
        return (there if gpu_hidden() else "there is no GPU, and PyTorch here is the build for CPUs"), remedy
    if gpu_hidden():
        return "PyTorch cannot use the GPU", "compare the driver (nvidia-smi) with PyTorch's CUDA version"
    return "no GPU is found here", "run it on a machine with one"
