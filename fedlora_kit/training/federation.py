"""A federated run in memory: what it needs, its state between rounds, what it leaves."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.methods.base import Context, Method
from fedlora_kit.models.lora import HeadPolicy
from fedlora_kit.models.residual import add_residuals
from fedlora_kit.models.targets import layer_index
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.precision import Precision
from fedlora_kit.training.settings import FederationSettings, LocalSettings


@dataclass(frozen=True)
class Federation:
    """Everything a federated run needs, in memory.

    Attributes:
        model: the PEFT model, on its device; it serves all clients in turn.
        method: the federated-LoRA method.
        clients: each client's data.
        evals: scored name -> data.
        head: what happens to the classification head.
        streams: the run's random streams.
        precision: of the model's passes (see `training.precision`).
        proxy: examples set aside for methods that score layers (`Method.proxy_examples`).
        server: examples at the server, for methods that train there (`Method.server_stage`).
        held_out: each client's own examples that it does not train on, None for a client without any; empty
            for no such evaluation.
    """

    model: nn.Module
    method: Method
    clients: Sequence[EncodedData]
    evals: Mapping[str, EncodedData]
    rounds: FederationSettings
    local: LocalSettings
    streams: Streams
    head: HeadPolicy = "frozen"
    privacy: PrivacySettings | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "fp32"
    proxy: EncodedData | None = None
    server: EncodedData | None = None
    held_out: Sequence[EncodedData | None] = ()

    def __post_init__(self) -> None:
        if self.method.merges:
            add_residuals(self.model)
        slot = AdapterSlot(self.model)
        layers = {layer_index(name) for name in slot.names} - {None}
        rank = next((len(p) for name, p in slot.parameters.items() if ".lora_A" in name), 0)
        self.method.bind(Context(len(self.clients), len(layers), rank, self.streams))


@dataclass
class Snapshot:
    """The state between two rounds: all that is needed to go on.

    Attributes:
        next_round: index of the round to come.
        state: the global adapter.
        personal: client -> its own tensors that are never sent, components (`models.components`) among them.
        history: one record a finished round.
        ledger: the privacy ledger's plain data, or None without DP.
    """

    next_round: int
    state: State
    personal: MutableMapping[int, State]
    history: list[dict[str, Any]]
    ledger: list[list[list[float]]] | None


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves."""

    state: State
    personal: Mapping[int, State]
    history: list[dict[str, Any]]
    privacy: dict[str, Any] | None


def cohort_of(fed: Federation, round_index: int) -> list[int]:
    """Clients that train in a round, ascending."""
    everyone = len(fed.clients)
    wanted = fed.rounds.cohort
    if wanted is None or wanted == everyone:
        return list(range(everyone))
    rng = fed.streams.generator("cohort", round_index)
    return sorted(int(k) for k in rng.choice(everyone, size=wanted, replace=False))


def trained_names(fed: Federation, slot: AdapterSlot, client: int, round_index: int) -> list[str]:
    """Tensors that train at a client in a round: LoRA's by the method, the head's by the head policy."""
    return [n for n in slot.names if ".lora_" not in n or fed.method.trains(n, client, round_index)]


def is_sent(fed: Federation, name: str) -> bool:
    """Whether a trained tensor is sent; the others stay with their client."""
    return fed.method.sends(name) if ".lora_" in name else fed.head == "aggregated" and fed.method.sends_head
