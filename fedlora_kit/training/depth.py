"""A model with some of its transformer layers left out for a while (FedRA)."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

from torch import nn

from fedlora_kit.errors import BadValue
from fedlora_kit.models.targets import layer_stack


@contextmanager
def only_layers(model: nn.Module, present: Set[int] | None) -> Iterator[None]:
    """Within the block, ``model`` passes through the layers in ``present`` only, in their order.

    No tensor is touched; after the block, also after an error, the model is whole again. None changes
    nothing.

    Raises:
        BadValue: a layer that the model does not have.
    """
    if present is None:
        yield
        return
    owner, name, whole = layer_stack(model)
    unknown = sorted(layer for layer in present if not 0 <= layer < len(whole))
    if unknown:
        raise BadValue(f"the model has no layer {unknown[0]}", f"layers run from 0 to {len(whole) - 1}")
    setattr(owner, name, nn.ModuleList(whole[i] for i in sorted(present)))
    config: Any = getattr(owner, "config", None)
    kinds = getattr(config, "layer_types", None)
    if kinds:  # Gemma's: a layer's attention and positions are looked up by its place in the list
        config.layer_types = [kinds[i] for i in sorted(present)]
    try:
        yield
    finally:
        setattr(owner, name, whole)
        if kinds:
            config.layer_types = kinds
