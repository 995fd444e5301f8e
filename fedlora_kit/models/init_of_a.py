"""Where A starts: Kaiming, orthogonal, or the leading right singular vectors of W0 (FFA-LoRA, appendix A.8).

FFA-LoRA never moves A, so its start decides which r directions of the input the adapter can see. The paper
names the three starts; how it scaled them is not known. Here the orthogonal rows and the singular vectors
are scaled by 1 / sqrt(3): the squared norm of A is then r / 3, the mean of Kaiming's, so that the starts
differ in direction and a learning rate means the same for each.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from fedlora_kit.errors import BadValue
from fedlora_kit.models.targets import matrix

InitOfA = Literal["kaiming", "orthogonal", "svd"]
SCALE = 3**-0.5


def draw_a(model: nn.Module, init: InitOfA, seed: int) -> None:
    """Replace the start of every ``lora_A`` of a PEFT model, in place; B stays zero.

    Args:
        init: "kaiming" (uniform, entries within +-1 / sqrt(in); PEFT's default), "orthogonal" (r orthonormal
            rows, uniformly distributed), "svd" (the r leading right singular vectors of the layer's W0, each
            with its largest entry positive; no seed enters).
        seed: of the random starts; layers draw one after the other, in model order.

    Raises:
        BadValue: more rows are wanted than W0 has directions.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        layer: Any = module
        if not (hasattr(layer, "lora_A") and hasattr(layer, "base_layer")):
            continue
        for a in layer.lora_A.values():
            rank, width = a.weight.shape  # (r, in)
            w0 = matrix(layer.base_layer)
            directions = width if init != "svd" else min(w0.shape)
            if init != "kaiming" and rank > directions:
                raise BadValue(
                    f"rank {rank} with init={init!r}: {name} has {directions} directions",
                    "lower the rank, or use init=kaiming",
                )
            with torch.no_grad():
                a.weight.copy_(_start(w0, rank, init, generator).to(a.weight))


def _start(w0: torch.Tensor, rank: int, init: InitOfA, generator: torch.Generator) -> torch.Tensor:
    """A of shape (r, in) for a frozen W0 of shape (out, in)."""
    width = w0.shape[1]
    start: torch.Tensor
    if init == "kaiming":
        start = (torch.rand(rank, width, generator=generator) * 2 - 1) / width**0.5
    elif init == "orthogonal":
        q, r = torch.linalg.qr(torch.randn(width, rank, generator=generator, dtype=torch.float64))
        start = SCALE * (q * r.diagonal().sign()).T  # the signs make the distribution uniform
    else:
        rows = torch.linalg.svd(w0.detach().double().cpu(), full_matrices=False)[2][:rank]
        largest = rows.abs().argmax(1, keepdim=True)
        start = SCALE * rows * rows.gather(1, largest).sign()
    return start
