"""Running what follows a round's aggregation: a method's stages (see `methods.stages`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from fedlora_kit.adapter import AdapterSlot, State, all_finite, size_bytes
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.errors import BadValue, NonFinite, NothingMoved
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.methods.stages import Stage
from fedlora_kit.models.components import decomposed, part_of, split_factors
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation, Snapshot
from fedlora_kit.training.local import LocalResult, train_client
from fedlora_kit.training.settings import LocalSettings

#: stands for the server where a client's id does
SERVER = -1


def run_stages(
    fed: Federation, slot: AdapterSlot, now: Snapshot, round_index: int, cohort: Sequence[int]
) -> list[dict[str, Any]]:
    """Run the method's stages of a round, in order; ``now`` gets the new global adapter and personal tensors.

    Afterwards every tensor of ``slot`` may train: set anew what should.

    Returns:
        One record a stage, for the history: name, clients (ids; empty at the server), steps and train_loss
        (mean over the examples seen), bytes_up (what the clients sent).

    Raises:
        NonFinite, NothingMoved: see `training.local.train_client`.
    """
    last = round_index == fed.rounds.rounds - 1
    return [
        _run(fed, slot, now, round_index, cohort, stage)
        for stage in fed.method.stages(round_index, last=last)
    ]


def _run(
    fed: Federation, slot: AdapterSlot, now: Snapshot, round_index: int, cohort: Sequence[int], stage: Stage
) -> dict[str, Any]:
    clients = list(range(len(fed.clients))) if stage.everyone else list(cohort)
    results: list[LocalResult] = []
    updates: list[ClientUpdate] = []
    slot.set_trainable(slot.names)  # so that the stage's slot covers the head too, if this one does
    with decomposed(fed.model, stage.factors, stage.axis):
        inner = AdapterSlot(fed.model)
        inner.set_trainable(n for n in inner.names if part_of(n) in stage.trains)
        if stage.where == "server":
            clients = []
            result, trained = _train(
                fed, inner, stage, now.state, now.state, _server(fed), round_index, SERVER
            )
            results.append(result)
            updates.append(ClientUpdate(SERVER, len(_server(fed)), trained))
        for k in clients:
            own = now.personal.get(k, {})
            start = fed.method.stage_start(stage, now.state, own)
            result, trained = _train(fed, inner, stage, start, now.state, fed.clients[k], round_index, k)
            results.append(result)
            sent = {n: t for n, t in trained.items() if part_of(n) in stage.shares}
            updates.append(ClientUpdate(k, len(fed.clients[k]), sent))
            kept = {n: t for n, t in trained.items() if n not in sent}
            if kept:
                now.personal[k] = {**own, **kept}
    slot.set_trainable(slot.names)
    if stage.where == "server" or stage.shares:
        now.state = fed.method.aggregate(now.state, updates)
    seen = sum(r.examples for r in results)
    return {
        "name": stage.name,
        "clients": clients,
        "steps": sum(r.steps for r in results),
        "train_loss": sum(r.loss * r.examples for r in results) / seen,
        "bytes_up": sum(_float32_bytes(u.tensors) for u in updates) if clients else 0,
    }


def _train(
    fed: Federation,
    inner: AdapterSlot,
    stage: Stage,
    start: State,
    center: State,
    data: EncodedData,
    round_index: int,
    client: int,
) -> tuple[LocalResult, State]:
    """One training of a stage from the adapter ``start``; what it trained, by name."""
    inner.write(split_factors(start, stage.factors, stage.axis))
    try:
        result = train_client(
            fed.model,
            inner,
            data,
            stage_settings(stage, fed.local, round_index),
            Streams(fed.streams.seed("data", "stage", stage.name)),  # batches of its own
            round_index=round_index,
            client=client,
            device=fed.device,
            precision=fed.precision,
            penalty=partial(_proximal, inner, stage.pull, center),
        )
        trained = inner.read(inner.trainable)
        if not all_finite(trained):
            raise NonFinite("adapter", round_index, client)
    except NothingMoved as error:
        who = "the server" if client == SERVER else f"client {client}"
        raise NothingMoved(f"stage {stage.name!r} at {who}: {error.problem}", error.remedy) from error
    except NonFinite as error:
        what, where = str(error.args[0]), None if client == SERVER else client
        raise NonFinite(f"{what} of stage {stage.name!r}", round_index, where) from error
    return result, trained


def _proximal(slot: AdapterSlot, strength: float, center: State) -> torch.Tensor | None:
    """strength / 2 |v - center|², v what trains; None without strength."""
    if not strength:
        return None
    distances = [(slot.parameters[n] - center[n]).square().sum() for n in slot.trainable]
    return strength / 2 * torch.stack(distances).sum()


def stage_settings(stage: Stage, local: LocalSettings, round_index: int) -> LocalSettings:
    """How a stage trains: as the round's local training, with the stage's own steps and rate if it has them.

    Components are not decayed: that would shrink magnitudes and do nothing to directions.
    """
    changes: dict[str, Any] = {"lr": stage.lr or local.rate(round_index), "lr_decay": 1.0}
    if stage.steps is not None:
        changes["steps"] = stage.steps
    if stage.factors:
        changes["weight_decay"] = 0.0
    return LocalSettings.model_validate({**local.model_dump(), **changes})


def _server(fed: Federation) -> EncodedData:
    if fed.server is None:
        raise BadValue("there are no examples at the server", "set data.server_examples")
    return fed.server


def _float32_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes that travel: components are kept in float64 for exact round trips, and sent as float32."""
    return size_bytes({n: t.float() for n, t in tensors.items()})
