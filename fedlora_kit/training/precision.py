"""The number format of a model's passes, as a declared part of a run.

fp32: IEEE float32 throughout. tf32: products of float32 matrices may round their factors to TF32 (10 bits of
mantissa) on a GPU that has it; a CPU computes them as fp32. bf16: the forward pass runs under autocast, the
frozen weights' products in bfloat16; the adapter, its gradients and the optimiser stay float32.

Only the model's passes round. Losses are taken from float32 logits, and what comes after a backward pass
(norms, clipping, sums, noise, the optimiser, the server) is IEEE float32 in every run: a product in TF32
would let a clipped gradient exceed its norm by 2^-11.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Products of float32 matrices, and convolutions, in TF32 (``"tf32"``) or IEEE float32 (all else).

    Both are set, whatever the process had before: PyTorch's own defaults differ between the two. They hold
    for the forward and the backward passes that run inside, and are put back at the end.
    """
    wanted = "tf32" if precision == "tf32" else "ieee"
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [flag.fp32_precision for flag in flags]
    _set(flags, [wanted] * len(flags))
    try:
        yield
    finally:
        _set(flags, before)


def _set(flags: Any, values: list[str]) -> None:
    for flag, value in zip(flags, values, strict=True):
        flag.fp32_precision = value


def forward(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Around a model's call: autocast to bfloat16, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
