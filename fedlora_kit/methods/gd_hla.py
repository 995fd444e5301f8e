"""GD-HLA: every client trains a fixed list of layers, by its group and a geometric pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlora_kit.methods.allocation import checked_pattern, pattern_layers
from fedlora_kit.methods.base import register
from fedlora_kit.methods.layerwise import LayerMethod
from fedlora_kit.methods.resources import Resources


@register
class GDHLA(LayerMethod):
    """Geometrically defined heterogeneous layer allocation (Fed-HeLLo's GD-HLA).

    Args:
        resources, defects: see `LayerMethod`.
        pattern: "bottleneck", "triangle", "inverted_triangle" or "uniform" (see `allocation`).

    Raises:
        UnknownName: no such pattern or defect.
        BadValue: impossible resources.
    """

    name = "gd-hla"
    title = "GD-HLA"
    source = "Fed-HeLLo (arXiv 2506.12213); released engine `depthfl`"

    def __init__(
        self,
        resources: Resources | Mapping[str, Any] | None = None,
        pattern: str = "bottleneck",
        defects: Sequence[str] = (),
    ) -> None:
        super().__init__(resources, defects)
        self.pattern = checked_pattern(pattern)

    def layers(self, client: int, round_index: int) -> frozenset[int]:
        return frozenset(pattern_layers(self.pattern, self.num_layers(client), self.context.depth))
