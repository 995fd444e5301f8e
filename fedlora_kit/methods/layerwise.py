"""What the methods share in which clients train some of the layers only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from fedlora_kit.adapter import State
from fedlora_kit.errors import BadValue
from fedlora_kit.methods.base import ClientUpdate, Context, Method
from fedlora_kit.methods.defects import (
    EQUAL_WEIGHTS,
    FREEZE_BY_SUBSTRING,
    checked_defects,
    frozen_by_substring,
)
from fedlora_kit.methods.resources import Resources
from fedlora_kit.models.targets import layer_index


class LayerMethod(Method):
    """A method that allocates layers to clients; a layer is averaged over the clients that trained it.

    Args:
        resources: groups and the layers that each can train, as `Resources` or its fields; without it,
            every client trains everything, and the method equals FedIT.
        defects: of the released code, to be switched on (see `defects`); none by default.

    Raises:
        BadValue: impossible resources, or unequal ranks.
        UnknownName: no such defect.
    """

    possible_defects: ClassVar[tuple[str, ...]] = (FREEZE_BY_SUBSTRING, EQUAL_WEIGHTS)

    def __init__(
        self, resources: Resources | Mapping[str, Any] | None = None, defects: Sequence[str] = ()
    ) -> None:
        self.resources = Resources.of(resources).only("layers", self.name)
        self.defects = checked_defects(defects, self.possible_defects)

    def bind(self, context: Context) -> None:
        super().bind(context)
        if context.depth == 0 and not self.resources.equal:
            raise BadValue(
                f"method {self.name!r} allocates layers, and this model's are not in one list of equals",
                "choose another model (Swin's layers come in stages), or a method that trains all layers",
            )

    @abstractmethod
    def layers(self, client: int, round_index: int) -> frozenset[int]:
        """Layers that a client trains in a round; empty if it takes no part."""

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        layer = layer_index(tensor)  # an integer: layers 1 and 10 are never confused
        if layer is None or self.resources.equal:
            return True
        allocated = self.layers(client, round_index)
        return layer in allocated and layer not in self._frozen(allocated)

    def sends_untrained(self, tensor: str, client: int, round_index: int) -> bool:
        if FREEZE_BY_SUBSTRING not in self.defects or self.resources.equal:
            return False
        return layer_index(tensor) in self._frozen(self.layers(client, round_index))

    def _frozen(self, allocated: Collection[int]) -> tuple[int, ...]:
        if FREEZE_BY_SUBSTRING not in self.defects:
            return ()
        return frozen_by_substring(allocated, self.context.depth)

    def takes_part(self, client: int, round_index: int) -> bool:
        return self.resources.equal or bool(self.layers(client, round_index))

    def aggregate(self, global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        if EQUAL_WEIGHTS in self.defects:
            updates = [replace(update, num_examples=1) for update in updates]
        return super().aggregate(global_state, updates)

    def num_layers(self, client: int) -> int:
        """Layers that the client can train."""
        group = self.resources.group(client, self.context.num_clients)
        return self.resources.num_layers(group, self.context.depth)

    def group_layers(self) -> list[int]:
        """Layers that a client of each group can train."""
        return [self.resources.num_layers(g, self.context.depth) for g in range(len(self.resources.groups))]
