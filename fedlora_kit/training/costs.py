"""What each client's share of the adapter costs it: parameters, traffic, memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fedlora_kit.adapter import AdapterSlot, count, size_bytes
from fedlora_kit.methods.ranks import without_padding
from fedlora_kit.training.federation import Federation, is_sent, trained_names


@dataclass(frozen=True)
class ClientCost:
    """One client's cost in one round.

    Attributes:
        trained_parameters: scalars that train.
        upload_bytes: bytes that it sends, padding left out.
        training_bytes: bytes of the trained parameters, their gradients and the optimiser's state. Backbone
            and activations are not in it: they depend on model, batch and implementation.
    """

    trained_parameters: int
    upload_bytes: int
    training_bytes: int


def client_costs(fed: Federation, round_index: int = 0) -> list[ClientCost]:
    """The cost of every client if it is drawn in a round, by client id; zeros if it cannot take part.

    Raises:
        FedloraError: the model has no adapter.
    """
    slot = AdapterSlot(fed.model)
    costs = []
    for k in range(len(fed.clients)):
        if not fed.method.takes_part(k, round_index):
            costs.append(ClientCost(0, 0, 0))
            continue
        tensors: Mapping[str, torch.Tensor] = {
            name: slot.parameters[name].detach() for name in trained_names(fed, slot, k, round_index)
        }
        trained = without_padding(tensors, fed.method.rank(k))
        sent = {name: t for name, t in trained.items() if is_sent(fed, name)}
        sent |= slot.read(n for n in slot.names if fed.method.sends_untrained(n, k, round_index))
        held = 2 + fed.local.optimizer_states  # value, gradient, state
        costs.append(ClientCost(count(trained), size_bytes(sent), held * size_bytes(trained)))
    return costs
