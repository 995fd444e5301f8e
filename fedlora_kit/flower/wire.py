"""What travels: named numpy arrays (plain values, no objects), and what they must look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.errors import FedloraError

#: number formats that travel: torch's type -> numpy's name
_FORMATS = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16"}
_HEADER_BYTES = 4096  # more than the header of a .npy file of few dimensions

#: name -> (shape, type) of a tensor
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


class BadReply(FedloraError):
    """A message that is not what it must be; nothing of it is used."""


def layout(slot: AdapterSlot) -> Layout:
    """Shapes and types of a whole adapter."""
    return {name: (tuple(p.shape), p.dtype) for name, p in slot.parameters.items()}


def cut(whole: Layout, rank: int | None) -> Layout:
    """The layout of what travels at a rank: rows of A and columns of B below it (`methods.ranks`)."""

    def shape(name: str, full: tuple[int, ...]) -> tuple[int, ...]:
        if rank is not None and ".lora_A" in name:
            return (min(rank, full[0]), *full[1:])
        if rank is not None and ".lora_B" in name:
            return (full[0], min(rank, full[1]), *full[2:])
        return full

    return {name: (shape(name, full), dtype) for name, (full, dtype) in whole.items()}


def padded(state: Mapping[str, torch.Tensor], whole: Layout) -> State:
    """Tensors of a lower rank in their full shape, with zeros beyond it."""
    result: State = {}
    for name, tensor in state.items():
        full = torch.zeros(whole[name][0], dtype=tensor.dtype, device=tensor.device)
        full[tuple(slice(n) for n in tensor.shape)] = tensor
        result[name] = full
    return result


def pack(state: Mapping[str, torch.Tensor]) -> Any:
    """Tensors as a Flower ``ArrayRecord``.

    Raises:
        FedloraError: a number format that numpy does not have.
    """
    for name, tensor in state.items():
        if tensor.dtype not in _FORMATS:
            raise FedloraError(f"{name} is {tensor.dtype}, which does not travel", "keep adapters in float32")
    return ArrayRecord({name: Array(t.detach().cpu().numpy()) for name, t in state.items()})


def unpack(record: Any, expected: Layout, who: str, device: torch.device) -> State:
    """The tensors of an ``ArrayRecord``, after every check.

    Args:
        expected: names, shapes and types that must be there, and no others.
        who: the sender, for the message of an error.

    Raises:
        BadReply: a name is missing or left over, a shape or type differs, an array holds other bytes than it
            says, or a value is NaN or infinite.
    """
    if record.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - record.keys()), sorted(record.keys() - expected.keys())
        raise BadReply(
            f"{who} sent {len(record)} tensors: {len(missing)} missing {missing[:1]}, "
            f"{len(extra)} that nobody asked for {extra[:1]}",
            "all machines must run the same version of the kit",
        )
    state: State = {}
    for name, (shape, dtype) in expected.items():
        values = _values(record[name], shape, _FORMATS[dtype], f"{who}: {name}")
        if not np.isfinite(values).all():
            raise BadReply(f"{who}: {name} holds a NaN or an infinity", "lower the learning rate")
        state[name] = torch.from_numpy(np.array(values)).to(device)
    return state


def _values(array: Any, shape: tuple[int, ...], kind: str, what: str) -> np.ndarray[Any, Any]:
    said = (array.stype, array.dtype, tuple(array.shape))
    if said != ("numpy.ndarray", kind, shape):
        raise BadReply(
            f"{what} is {said[1]} of shape {said[2]} ({said[0]}), not {kind} of shape {shape}",
            "all machines must run the same description with the same version of the kit",
        )
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    if not size <= len(array.data) <= size + _HEADER_BYTES:  # before anything is decoded
        raise BadReply(f"{what} has {len(array.data)} bytes for {size} of values", "the message is damaged")
    try:
        values: np.ndarray[Any, Any] = array.numpy()  # np.load, which takes no objects here
    except (ValueError, EOFError) as error:
        raise BadReply(f"{what} cannot be read: {error}", "the message is damaged") from error
    if values.shape != shape or str(values.dtype) != kind:
        raise BadReply(
            f"{what} holds {values.dtype} of shape {values.shape}, and says otherwise", "damaged message"
        )
    return values
