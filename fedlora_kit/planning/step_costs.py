"""What one training step of an image model computes and keeps, counted without computing anything.

On PyTorch's meta device a model has shapes and no weights. Its forward and backward pass run all the same,
and autograd decides, as in a real step, what is kept and which layers need a backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class StepCost:
    """Cost of one step on one batch.

    Attributes:
        activation_bytes: bytes of the tensors kept for the backward pass, each storage once, weights not
            counted.
        forward_flops, backward_flops: floating-point operations of the matrix products (attention's too); a
            multiplication and an addition count as two.
    """

    activation_bytes: float
    forward_flops: float
    backward_flops: float


def step_cost(model: nn.Module, images: torch.Tensor) -> StepCost:
    """The cost of one step of ``model`` as it is: its mode, and the parameters that train now.

    Args:
        model: takes ``pixel_values``, gives ``logits``; on any device (on "meta" nothing is computed).
        images: (n, channels, height, width), on the model's device.
    """
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds on to the storages, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        _Flops() as forward,  # type: ignore[no-untyped-call]
    ):
        loss = model(pixel_values=images).logits.sum()
    with _Flops() as backward:  # type: ignore[no-untyped-call]
        loss.backward()
    for parameter in model.parameters():
        parameter.grad = None
    total = sum(storage.nbytes() for storage in kept.values())
    return StepCost(total, forward.total, backward.total)


class _Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up PyTorch's own counts of every matrix product within the block (its FlopCounterMode also tells
    the modules apart, at several times the cost)."""

    total = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out
