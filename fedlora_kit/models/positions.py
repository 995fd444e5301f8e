"""Image models for images of another size than their own: their position embeddings, interpolated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import BadValue


def resize_positions(model: nn.Module, side: int) -> None:
    """Let a ViT and its like read images of ``side`` × ``side`` pixels, in place.

    The embeddings are those of transformers' own (bicubic) interpolation, computed once and not at every
    batch: the model is from then on one of this size.

    Raises:
        BadValue: it has no position embeddings that can be interpolated (Swin: its windows have one size).
    """
    inside: Any
    for inside in model.modules():
        own: Any = getattr(inside, "position_embeddings", None)
        if isinstance(own, nn.Parameter) and hasattr(inside, "interpolate_pos_encoding"):
            break
    else:
        raise BadValue(
            f"images of {side} pixels: {type(model).__name__} has no position embeddings to interpolate",
            "leave data.image_size out, and have preprocessor_config.json name the side that config.json has",
        )
    other = own.new_empty(1, own.shape[1] + 1, own.shape[2])  # read for its shape: not that of the own size
    with torch.no_grad():
        inside.position_embeddings = nn.Parameter(inside.interpolate_pos_encoding(other, side, side))
    for checked in (inside, inside.patch_embeddings):
        if hasattr(checked, "image_size"):
            checked.image_size = (side, side)
    model.config.image_size = side  # type: ignore[union-attr]
