"""Exclusive: only the clients that can train the whole adapter take part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlora_kit.errors import BadValue
from fedlora_kit.methods.base import register
from fedlora_kit.methods.defects import EQUAL_WEIGHTS
from fedlora_kit.methods.layerwise import LayerMethod
from fedlora_kit.methods.resources import Resources


@register
class Exclusive(LayerMethod):
    """Clients that cannot train every layer send nothing; the cohort is drawn from all clients all the same.

    In a round without a single able client the global adapter stays as it is (3 or 4 of 500 in the official
    logs).

    Raises:
        BadValue: impossible resources, or no group can train every layer.
    """

    name = "exclusive"
    title = "Exclusive"
    source = "Fed-HeLLo (arXiv 2506.12213), baseline; released settings 0-0-12"

    possible_defects = (EQUAL_WEIGHTS,)  # a client that trains everything freezes nothing

    def __init__(
        self, resources: Resources | Mapping[str, Any] | None = None, defects: Sequence[str] = ()
    ) -> None:
        super().__init__(resources, defects)
        if max(self.resources.layers) < 1:
            raise BadValue(
                "method 'exclusive' has no client that can train every layer",
                "let at least one group have layers = 1.0",
            )

    def layers(self, client: int, round_index: int) -> frozenset[int]:
        able = self.num_layers(client) == self.context.depth
        return frozenset(range(self.context.depth)) if able else frozenset()
