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
    flags = _flags()
    before = [flag.fp32_precision for flag in flags]
    for flag in flags:
        flag.fp32_precision = wanted
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.fp32_precision = value


def _flags() -> tuple[Any, Any]:
    return torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]


def passes_of(precision: str, dtype: str) -> dict[str, str]:
    """A run's number formats, for its provenance: JSON values.

    PyTorch's settings are read as they are during the passes; a process has others before and after. Its
    older questions (``torch.get_float32_matmul_precision``, ``allow_tf32``) may raise while they are set.

    Args:
        precision, dtype: of the run: its passes, and its frozen weights.

    Returns:
        passes, weights: as given. matmul, conv: of fp32 products and convolutions on a GPU, "ieee" or "tf32".
    """
    with products(precision):
        matmul, conv = (str(flag.fp32_precision) for flag in _flags())
    return {"passes": precision, "weights": dtype, "matmul": matmul, "conv": conv}


def forward(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Around a model's call: autocast to bfloat16, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def check_rows(dtype: str, dropout: float, checkpointing: bool, stack: str) -> None:
    """Refuse bf16 under DP where per-example gradients cannot come as rows of a stack, in float32.

    Raises:
        ValueError: Opacus' hooks would give them, and clip by norms in bfloat16.
    """
    reasons = {
        f"model.dtype={dtype}": dtype != "fp32",
        f"model.lora.dropout={dropout:g}": dropout > 0,
        "model.gradient_checkpointing": checkpointing,
        "local.stack=never": stack == "never",
    }
    problem = next((reason for reason, holds in reasons.items() if holds), None)
    if problem is not None:
        raise ValueError(
            f"precision=bf16 cannot be used under DP with {problem}: Opacus' hooks would clip by norms in "
            "bfloat16; use tf32 or fp32"
        )
