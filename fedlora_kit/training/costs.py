"""What each client's share of the adapter costs it: parameters, traffic, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedlora_kit.adapter import AdapterSlot, count, size_bytes
from fedlora_kit.methods.ranks import pairs, without_padding
from fedlora_kit.models.residual import RESIDUAL
from fedlora_kit.models.targets import layer_index
from fedlora_kit.training.federation import Federation, cohort_of, is_sent, trained_names


@dataclass(frozen=True)
class ClientCost:
    """One client's cost in one round.

    Attributes:
        trained_parameters: scalars that train.
        upload_bytes: bytes that it sends, padding left out.
        download_bytes: bytes that it gets before it trains: the directions of its rank in all modules that
            stay in its model, and the head if it is aggregated; under FLoRA the stack of the last cohort, or
            the dense update where that is smaller.
        training_bytes: bytes of the trained parameters, their gradients and the optimiser's state. Backbone
            and activations are not in it: they depend on model, batch and implementation.
    """

    trained_parameters: int
    upload_bytes: int
    download_bytes: int
    training_bytes: int


def client_costs(
    fed: Federation, round_index: int = 0, cohort: Sequence[int] | None = None
) -> list[ClientCost]:
    """The cost of every client if it is drawn in a round, by client id; zeros if it cannot take part.

    Args:
        cohort: clients of the round before, for methods that send down what they sent up; the round's own
            cohort if not given.

    Raises:
        FedloraError: the model has no adapter.
    """
    slot = AdapterSlot(fed.model)
    last = cohort_of(fed, round_index) if cohort is None else cohort
    costs = []
    for k in range(len(fed.clients)):
        if not fed.method.takes_part(k, round_index):
            costs.append(ClientCost(0, 0, 0, 0))
            continue
        tensors: Mapping[str, torch.Tensor] = {
            name: slot.parameters[name].detach() for name in trained_names(fed, slot, k, round_index)
        }
        trained = without_padding(tensors, fed.method.rank(k))
        sent = {name: t for name, t in trained.items() if is_sent(fed, name)}
        sent |= slot.read(n for n in slot.names if fed.method.sends_untrained(n, k, round_index))
        received = _received_bytes(fed, slot, k, round_index, last)
        held = 2 + fed.local.optimizer_states  # value, gradient, state
        costs.append(ClientCost(count(trained), size_bytes(sent), received, held * size_bytes(trained)))
    return costs


def _received_bytes(
    fed: Federation, slot: AdapterSlot, client: int, round_index: int, cohort: Sequence[int]
) -> int:
    """Bytes that go down to a client, see `ClientCost`."""
    present = fed.method.present_layers(client, round_index)
    rank = fed.method.received_rank(client, cohort)
    tensors = {n: p.detach() for n, p in slot.parameters.items() if RESIDUAL not in n}
    total = size_bytes({n: t for n, t in tensors.items() if ".lora_" not in n and fed.head == "aggregated"})
    for a, b in pairs(tensors):
        if present is not None and layer_index(a) not in present:
            continue
        (full, inner), outer = tensors[a].shape, tensors[b].shape[0]
        numbers = (full if rank is None else rank) * (inner + outer)
        if fed.method.merges:
            numbers = min(numbers, inner * outer)
        total += numbers * tensors[a].element_size()
    return total
