"""Straggler: everybody trains what the weakest client can."""

from __future__ import annotations

from fedlora_kit.methods.allocation import pattern_layers
from fedlora_kit.methods.base import register
from fedlora_kit.methods.layerwise import LayerMethod


@register
class Straggler(LayerMethod):
    """All clients train the same layers, as many as the weakest group can, evenly spread.

    With 6 of 12 layers: 0, 2, 4, 6, 8, 10, as released (where a defect stopped layer 10, see `defects`).
    """

    name = "straggler"
    title = "Straggler"
    source = "Fed-HeLLo (arXiv 2506.12213), baseline; released settings 6-6-6"

    def layers(self, client: int, round_index: int) -> frozenset[int]:
        return frozenset(pattern_layers("uniform", min(self.group_layers()), self.context.depth))
