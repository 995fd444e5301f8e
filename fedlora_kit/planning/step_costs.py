"""What one training step computes and keeps, counted without computing anything.

On PyTorch's meta device a model has shapes and no weights. Its forward and backward pass run all the same,
and autograd decides, as in a real step, what is kept and which layers need a backward pass.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Additive:
    """Numbers that add up, field by field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(operator.add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: Self) -> Self:
        return self + other * -1

    def __mul__(self, times: float) -> Self:
        return type(self)(*(value * times for value in vars(self).values()))


@dataclass(frozen=True)
class StepCost(Additive):
    """Cost of one step on one batch.

    Attributes:
        activation_bytes: bytes of the tensors kept for the backward pass, each storage once, weights not
            counted.
        forward_flops, backward_flops: floating-point operations of the matrix products (attention's too); a
            multiplication and an addition count as two.
    """

    activation_bytes: float = 0.0
    forward_flops: float = 0.0
    backward_flops: float = 0.0


def step_cost(model: nn.Module, images: torch.Tensor) -> StepCost:
    """The cost of one step of ``model`` as it is: its mode, and the parameters that train now.

    Args:
        model: takes ``pixel_values``, gives ``logits``; on any device (on "meta" nothing is computed).
        images: (n, channels, height, width), on the model's device.
    """
    return cost_of(model, lambda: model(pixel_values=images).logits)


def cost_of(model: nn.Module, logits: Callable[[], torch.Tensor]) -> StepCost:
    """The cost of a forward pass of ``model`` that gives ``logits``, and of its backward pass.

    No backward pass if nothing trains. Attention is computed as its formula stands: its weights are kept.
    """
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds on to the storages, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    backward = flops = _Flops()  # type: ignore[no-untyped-call]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), flops:
        loss = logits().sum()
    if loss.requires_grad:
        with (backward := _Flops()):  # type: ignore[no-untyped-call]
            loss.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.grad = None
    total = sum(storage.nbytes() for storage in kept.values())
    return StepCost(total, flops.total, 0.0 if backward is flops else backward.total)


class FusedAttention(TorchFunctionMode):
    """Within the block attention keeps what fused kernels keep: queries, keys, values and its output, and not
    its weights. Its numbers are not computed, and its products not counted: for shapes on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            return _Fused.apply(*args[:3])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


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
