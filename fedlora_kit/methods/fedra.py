"""FedRA: random layers, and the layers that were not drawn leave the client's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlora_kit.methods.base import register
from fedlora_kit.methods.resources import Resources
from fedlora_kit.methods.rgd_hla import RGDHLA


@register
class FedRA(RGDHLA):
    """FedRA (Su et al., ECCV 2024): each client trains a sub-model of randomly chosen layers.

    The other layers are not in the client's forward pass: its hidden states skip them. That saves memory and
    time beyond the adapter's own. Layers are drawn uniformly, for each (round, client) on its own. (The
    released "FedRA" of Fed-HeLLo looks like RGD-HLA with uniform probabilities; whether layers left its
    models cannot be seen in the logs.)

    Args:
        resources: see `LayerMethod`.
    """

    name = "fedra"
    title = "FedRA"
    source = "FedRA (ECCV 2024); Fed-HeLLo (arXiv 2506.12213), baseline"

    def __init__(self, resources: Resources | Mapping[str, Any] | None = None) -> None:
        super().__init__(resources, "uniform")

    def present_layers(self, client: int, round_index: int) -> frozenset[int] | None:
        return None if self.resources.equal else self.layers(client, round_index)
