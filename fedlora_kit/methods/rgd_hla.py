"""RGD-HLA: every client draws its layers anew in each round, with a geometric pattern's probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fedlora_kit.methods.allocation import (
    Probabilities,
    checked_pattern,
    draw_layers,
    pattern_probabilities,
)
from fedlora_kit.methods.base import register
from fedlora_kit.methods.layerwise import LayerMethod
from fedlora_kit.methods.resources import Resources
from fedlora_kit.randomness import Streams


@register
class RGDHLA(LayerMethod):
    """Randomised GD-HLA (Fed-HeLLo's RGD-HLA).

    Each (round, client) has a random stream of its own, so a client's layers do not depend on who else was
    drawn. (The released code draws for all clients from one stream.)

    Args:
        resources, defects: see `LayerMethod`.
        pattern: "bottleneck", "triangle", "inverted_triangle" or "uniform" (see `allocation`).

    Raises:
        UnknownName: no such pattern or defect.
        BadValue: impossible resources.
    """

    name = "rgd-hla"
    title = "RGD-HLA"
    source = "Fed-HeLLo (arXiv 2506.12213); released engine `depthffm`"

    def __init__(
        self,
        resources: Resources | Mapping[str, Any] | None = None,
        pattern: str = "bottleneck",
        defects: Sequence[str] = (),
    ) -> None:
        super().__init__(resources, defects)
        self.pattern = checked_pattern(pattern)

    def probabilities(self, round_index: int) -> Probabilities:
        """(depth,) probability of each layer to be drawn first."""
        return pattern_probabilities(self.pattern, self.group_layers(), self.context.depth)

    def layers(self, client: int, round_index: int) -> frozenset[int]:
        chances = tuple(self.probabilities(round_index).tolist())
        return _drawn(self.context.streams, chances, self.num_layers(client), client, round_index)


@lru_cache(maxsize=1024)  # a round asks for each tensor
def _drawn(
    streams: Streams, chances: tuple[float, ...], count: int, client: int, round_index: int
) -> frozenset[int]:
    rng = streams.generator("allocation", round_index, client)
    return frozenset(draw_layers(np.array(chances), count, rng))
