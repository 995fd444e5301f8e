"""A model with some of its transformer layers left out for a while (FedRA)."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager

from torch import nn

from fedlora_kit.errors import BadValue, FedloraError


def layer_stack(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """Where the transformer layers are: the owner, its attribute ("layer" or "layers"), the list.

    Raises:
        FedloraError: the model has none, or more than one.
    """
    found = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if name in ("layer", "layers") and isinstance(child, nn.ModuleList)
    ]
    if len(found) != 1:
        raise FedloraError(
            f"this model has {len(found)} lists of layers; layers can be left out of exactly one",
            "use a method that keeps all layers, such as rgd-hla",
        )
    return found[0]


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
    try:
        yield
    finally:
        setattr(owner, name, whole)
