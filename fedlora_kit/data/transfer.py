"""From the host's arrays to tensors on a device: one copy for all of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

#: bytes at which an array begins in the packed copy: every number format can be read from there
_STEP = 16


def to_device(arrays: Mapping[str, npt.NDArray[Any]], device: torch.device) -> dict[str, torch.Tensor]:
    """The arrays as tensors of the same shapes and types.

    On the CPU they share the arrays' memory. For a GPU they are packed side by side into memory that the
    device reads by itself, and go over in one copy that the host does not wait for.

    >>> to_device({"a": np.arange(3)}, torch.device("cpu"))["a"]
    tensor([0, 1, 2])
    """
    if device.type == "cpu":
        return {name: torch.from_numpy(a) for name, a in arrays.items()}
    places, end = {}, 0
    for name, a in arrays.items():
        places[name] = end
        end += -(-a.nbytes // _STEP) * _STEP
    packed = _page_locked(end)
    bytes_ = packed.numpy()
    for name, a in arrays.items():
        bytes_[places[name] : places[name] + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    there = packed.to(device, non_blocking=True)
    return {
        name: there[places[name] : places[name] + a.nbytes].view(_type(a)).view(a.shape)
        for name, a in arrays.items()
    }


def _type(array: npt.NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def _page_locked(size: int) -> torch.Tensor:
    """So many bytes that the device can read without the host; plain memory where that is refused."""
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:  # a limit on locked memory: the copy then waits, and gives the same
        return torch.empty(size, dtype=torch.uint8)
