"""What the methods share in which clients train some of the layers only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from fedlora_kit.methods.base import Method
from fedlora_kit.methods.resources import Resources
from fedlora_kit.models.targets import layer_index


class LayerMethod(Method):
    """A method that allocates layers to clients; a layer is averaged over the clients that trained it.

    Args:
        resources: groups and the layers that each can train, as `Resources` or its fields; without it,
            every client trains everything, and the method equals FedIT.

    Raises:
        BadValue: impossible resources.
    """

    def __init__(self, resources: Resources | Mapping[str, Any] | None = None) -> None:
        self.resources = Resources.of(resources)

    @abstractmethod
    def layers(self, client: int, round_index: int) -> frozenset[int]:
        """Layers that a client trains in a round; empty if it takes no part."""

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        layer = layer_index(tensor)  # an integer: layers 1 and 10 are never confused
        if layer is None or self.resources.equal:
            return True
        return layer in self.layers(client, round_index)

    def takes_part(self, client: int, round_index: int) -> bool:
        return self.resources.equal or bool(self.layers(client, round_index))

    def num_layers(self, client: int) -> int:
        """Layers that the client can train."""
        group = self.resources.group(client, self.context.num_clients)
        return self.resources.num_layers(group, self.context.depth)

    def group_layers(self) -> list[int]:
        """Layers that a client of each group can train."""
        return [self.resources.num_layers(g, self.context.depth) for g in range(len(self.resources.groups))]
