"""What a SuperNode does: it holds some of the clients, trains and scores them, and keeps what stays there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.libraries import releases
from fedlora_kit.experiments.placing import device_for
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.source import source_digest
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.flower.support import clients_of
from fedlora_kit.flower.wire import Layout, layout
from fedlora_kit.models.backbones import backbone_fingerprint
from fedlora_kit.training.checks import check
from fedlora_kit.training.federation import Snapshot
from fedlora_kit.training.noise_plan import noise_of_clients
from fedlora_kit.training.rounds import Answer, Here, quiet_randomness
from fedlora_kit.training.scores import Scores, local_scores, own_scores


class Node:
    """The clients k with k % parts == part of a run's federation, built from the run's description alone.

    Split, head, LoRA's A and all random streams come from the description, so they are those of the run in
    one process. The other clients' examples are dropped.

    Args:
        part, parts: which node this is, of how many.

    Raises:
        BadValue: no such part; a federation that cannot run (`training.checks`).
    """

    def __init__(self, spec: RunSpec, part: int, parts: int, device: torch.device) -> None:
        if not 0 <= part < parts:
            raise BadValue(f"partition-id={part} of num-partitions={parts}", "number the nodes from 0")
        fed = build(spec, device)
        check(fed)
        self.sizes = [len(client) for client in fed.clients]
        self.clients = clients_of(part, parts, len(self.sizes))
        steps = fed.rounds.rounds * fed.local.steps
        self._noise = noise_of_clients(fed.privacy, self.sizes, fed.local.batch_size, steps)
        none, mine = np.empty(0, dtype=np.int64), set(self.clients)
        self.fed = replace(
            fed,
            clients=[c if k in mine else c.subset(none) for k, c in enumerate(fed.clients)],
            held_out=[h if k in mine else None for k, h in enumerate(fed.held_out)],
        )
        self.slot = AdapterSlot(self.fed.model)
        self.layout: Layout = layout(self.slot)

    def train(
        self,
        state: State,
        personal: dict[int, State],
        clients: Sequence[int],
        round_index: int,
        scores: tuple[Sequence[float], int] | None = None,
    ) -> list[Answer]:
        """The clients' local trainings of a round; ``personal`` takes what stays with them.

        Args:
            state: the global adapter.
            scores: the last importance scores of the layers and their round, if the method had any.

        Raises:
            BadValue: a client that this node does not hold.
            NonFinite, NothingMoved: see `training.local.train_client`.
        """
        self._learn(scores)
        self._only_own(clients)
        here = Here(self.fed, self.slot, self._noise)
        with quiet_randomness(self.fed.device), here.hooks:
            self.fed.model.train()
            now = Snapshot(round_index, state, personal, [], None)
            return list(here.train(now, clients, round_index, None))

    def score_own(self, state: State, personal: Mapping[int, State], next_round: int) -> dict[int, Scores]:
        """Scores of this node's clients that keep something of their own (`training.scores.own_scores`)."""
        with quiet_randomness(self.fed.device):
            return own_scores(self.fed, self.slot, Snapshot(next_round, state, dict(personal), [], None))

    def score_held_out(
        self, state: State, personal: Mapping[int, State], next_round: int
    ) -> dict[str, list[Any]] | None:
        """This node's clients' own adapters on their held-out examples (`training.scores.local_scores`)."""
        with quiet_randomness(self.fed.device):
            return local_scores(self.fed, self.slot, Snapshot(next_round, state, dict(personal), [], None))

    def _learn(self, scores: tuple[Sequence[float], int] | None) -> None:
        self.fed.method.bind(self.fed.method.context)
        if scores is not None:
            self.fed.method.refresh(*scores)

    def _only_own(self, clients: Sequence[int]) -> None:
        foreign = sorted(set(clients) - set(self.clients))
        if foreign:
            raise BadValue(f"client {foreign[0]} is not held here", f"this node has {self.clients}")


@lru_cache(maxsize=4)
def node(canonical: str, part: int, parts: int, device: str) -> Node:
    """The node of a run by its `RunSpec.canonical`, built once a process."""
    spec = RunSpec.model_validate_json(canonical)
    return Node(spec, part, parts, device_for(spec, device))


def ingredients(spec: RunSpec) -> dict[str, str]:
    """What decides a run's numbers besides its description: must be equal on all machines."""
    return {
        "source of fedlora-kit": source_digest(),
        **releases(),
        **{f"data of task {name}": fingerprint(get_task(name)) for name in spec.tasks()},
        f"backbone {spec.model.backbone}": backbone_fingerprint(spec.model.backbone),
        "key of the run": spec.key(),
    }


def check_ingredients(here: Mapping[str, str], server: Mapping[str, str]) -> None:
    """Refuse to take part with other code, data or libraries than the server's.

    Raises:
        FedloraError: the first difference, by name.
    """
    for name in [*server, *(n for n in here if n not in server)]:
        if here.get(name) != server.get(name):
            raise FedloraError(
                f"{name} differs: {here.get(name)} here, {server.get(name)} at the server",
                "install the same version with the same data, mirror and files of your own on all machines",
            )
