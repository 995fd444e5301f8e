"""Where a run is trained: on which kind of device."""

from __future__ import annotations

import torch

from fedlora_kit.devices import OutOfMemory, kind_of, resolve_device
from fedlora_kit.experiments.spec import RunSpec


def wanted_device(spec: RunSpec, asked: str) -> str:
    """The device that a run asks for where its user, notebook or command asks for ``asked``.

    "auto" is the CPU for a run of one of the kit's own backbones: they are so small that a GPU is not faster
    than one core, and cores train several side by side. Whoever asks for a GPU gets it.
    """
    return _wanted(asked, tiny=spec.model.backbone.startswith("kit/"))


def tiny_device(asked: str) -> torch.device:
    """The device for one of the kit's own backbones, ready to compute: see `wanted_device`.

    Raises:
        BadValue, FedloraError: see `devices.resolve_device`.
    """
    return resolve_device(_wanted(asked, tiny=True))


def _wanted(asked: str, *, tiny: bool) -> str:
    return "cpu" if tiny and asked.strip() == "auto" else asked.strip()


def on_cpu(spec: RunSpec, asked: str) -> bool:
    """Whether a run is trained on this machine's CPU. Starts nothing.

    Raises:
        BadValue: see `devices.check_device`.
    """
    return kind_of(wanted_device(spec, asked)) == "cpu"


def device_for(spec: RunSpec, asked: str) -> torch.device:
    """The device that trains a run in this process, ready to compute.

    Raises:
        BadValue, FedloraError: see `devices.resolve_device`.
    """
    return resolve_device(wanted_device(spec, asked))


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was too small: such a run may be tried again with a GPU of its own."""
    return isinstance(error, (OutOfMemory, torch.OutOfMemoryError))
