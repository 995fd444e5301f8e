"""The round loop: cohort, local training, aggregation, evaluation, checkpoint. Read it top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot, State, all_finite, count, size_bytes
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.errors import BadValue, NonFinite
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.methods.base import ClientUpdate, Method
from fedlora_kit.models.lora import HeadPolicy
from fedlora_kit.privacy.dpsgd import PerExampleGradients
from fedlora_kit.privacy.ledger import Ledger
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.local import LocalResult, Noise, train_client
from fedlora_kit.training.noise_plan import noise_of_clients
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
    precision: str = "fp32"


@dataclass
class Snapshot:
    """The state between two rounds: all that is needed to go on.

    Attributes:
        next_round: index of the round to come.
        state: the global adapter.
        personal: client -> its own tensors that are never sent.
        history: one record a finished round.
        ledger: the privacy ledger's plain data, or None without DP.
    """

    next_round: int
    state: State
    personal: dict[int, State]
    history: list[dict[str, Any]]
    ledger: list[list[list[float]]] | None


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves."""

    state: State
    personal: dict[int, State]
    history: list[dict[str, Any]]
    privacy: dict[str, Any] | None


def run_federation(
    fed: Federation,
    *,
    resume: Snapshot | None = None,
    save: Callable[[Snapshot], None] | None = None,
) -> Outcome:
    """Run all rounds (or those that ``resume`` leaves) and return the outcome.

    The result depends on the arguments alone: every random draw comes from a stream named by (purpose,
    round, client), so a run resumed from any snapshot ends bit-identical.

    Args:
        save: called with the state after every round.

    Raises:
        BadValue: a client has no examples, or the cohort is larger than the federation.
        NonFinite: a loss or an update became NaN or infinite.
    """
    _check(fed)
    slot = AdapterSlot(fed.model)
    sizes = [len(c) for c in fed.clients]
    noise = noise_of_clients(fed.privacy, sizes, fed.local.batch_size, fed.rounds.rounds * fed.local.steps)
    ledger = Ledger(len(sizes), fed.privacy.delta, fed.privacy.accountant) if fed.privacy else None
    now = resume or Snapshot(0, slot.read(), {}, [], None)
    if ledger is not None and now.ledger is not None:
        ledger.restore(now.ledger)

    with _quiet_randomness(fed.device), _Hooks(fed, slot) as hooks:
        fed.model.train()
        for r in range(now.next_round, fed.rounds.rounds):
            updates, results = [], []
            for k in cohort_of(fed, r):
                hooks.prepare(trained_names(fed, slot, k, r))
                slot.write({**now.state, **now.personal.get(k, {})})
                result = train_client(
                    fed.model,
                    slot,
                    fed.clients[k],
                    fed.local,
                    fed.streams,
                    round_index=r,
                    client=k,
                    device=fed.device,
                    precision=fed.precision,
                    noise=noise[k] if noise else None,
                    gradients=hooks.gradients,
                )
                trained = slot.read(slot.trainable)
                if not all_finite(trained):
                    raise NonFinite("adapter", r, k)
                sent = {name: t for name, t in trained.items() if _is_sent(fed, name)}
                kept = {name: t for name, t in trained.items() if name not in sent}
                if kept:
                    now.personal[k] = {**now.personal.get(k, {}), **kept}
                if ledger is not None and noise:
                    ledger.record(k, noise[k].sigma, noise[k].sample_rate, result.steps)
                updates.append(ClientUpdate(k, sizes[k], sent))
                results.append(result)
            before, now.state = now.state, fed.method.aggregate(now.state, updates)
            record = _record(r, updates, results)
            if fed.rounds.measure_gap:
                record["aggregation_gap"] = aggregation_gap(before, now.state, updates)
            if fed.rounds.evaluates(r):
                record["eval"] = _evaluate(fed, slot, now)
                if ledger is not None:
                    record["epsilon"] = ledger.largest_epsilon()
            now.history.append(record)
            now.next_round = r + 1
            now.ledger = ledger.state() if ledger is not None else None
            if save is not None:
                save(now)
        slot.write(now.state)
    return Outcome(now.state, now.personal, now.history, _privacy_report(fed, ledger, noise))


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


def _is_sent(fed: Federation, name: str) -> bool:
    """Whether a trained tensor is sent; the others stay with their client."""
    return fed.method.sends(name) if ".lora_" in name else fed.head == "aggregated"


def _check(fed: Federation) -> None:
    empty = [k for k, c in enumerate(fed.clients) if len(c) == 0]
    if empty:
        raise BadValue(
            f"client {empty[0]} has no examples ({len(empty)} of {len(fed.clients)} clients)",
            "use fewer clients, more examples, or a partitioner with a minimum per client",
        )
    if fed.rounds.cohort is not None and fed.rounds.cohort > len(fed.clients):
        raise BadValue(
            f"cohort={fed.rounds.cohort}, but there are {len(fed.clients)} clients",
            f"choose a cohort of at most {len(fed.clients)}",
        )


def _record(
    round_index: int, updates: Sequence[ClientUpdate], results: Sequence[LocalResult]
) -> dict[str, Any]:
    seen = [(r.loss, r.examples) for r in results if r.examples]
    total = sum(n for _, n in seen)
    return {
        "round": round_index,
        "cohort": [u.client for u in updates],
        "train_loss": sum(loss * n for loss, n in seen) / total if total else None,
        "examples": total,
        "bytes_up": sum(size_bytes(u.tensors) for u in updates),
        "parameters_sent": [count(u.tensors) for u in updates],
    }


def _evaluate(fed: Federation, slot: AdapterSlot, now: Snapshot) -> dict[str, dict[str, float]]:
    """Scores of the global adapter; with personal tensors, the mean over the clients' own adapters."""
    adapters = [{**now.state, **own} for _, own in sorted(now.personal.items())] or [now.state]
    scores: dict[str, list[dict[str, Any]]] = {name: [] for name in fed.evals}
    for adapter in adapters:
        slot.write(adapter)
        for name, data in fed.evals.items():
            score = evaluate(fed.model, data, fed.device, fed.rounds.eval_max_tokens)
            if not math.isfinite(score["loss"]):  # argmax of NaN is class 0: it would pass for a result
                raise NonFinite(f"the loss on {name!r}", now.next_round, None)
            scores[name].append(score)
    return {
        name: {key: float(np.mean([s[key] for s in all_scores])) for key in all_scores[0]}
        for name, all_scores in scores.items()
    }


def _privacy_report(
    fed: Federation, ledger: Ledger | None, noise: Sequence[Noise] | None
) -> dict[str, Any] | None:
    if ledger is None or noise is None or fed.privacy is None:
        return None
    steps = fed.rounds.rounds * fed.local.steps
    return {
        **ledger.report(),
        "target_epsilon": fed.privacy.epsilon,
        "clip": fed.privacy.clip,
        "sigma": max(n.sigma for n in noise),
        "sample_rate": max(n.sample_rate for n in noise),
        "steps": steps,
    }


class _Hooks:
    """Sets what trains and keeps the per-example hooks in step with it (attached anew only on a change)."""

    def __init__(self, fed: Federation, slot: AdapterSlot) -> None:
        self._fed, self._slot = fed, slot
        self._names: list[str] | None = None
        self.gradients: PerExampleGradients | None = None

    def prepare(self, names: list[str]) -> None:
        if names == self._names:
            return
        self._close()
        self._slot.set_trainable(names)
        self._names = names
        if self._fed.privacy is not None:
            self.gradients = PerExampleGradients(self._fed.model)

    def _close(self) -> None:
        if self.gradients is not None:
            self.gradients.close()
            self.gradients = None
            self._fed.model.train()

    def __enter__(self) -> _Hooks:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


@contextmanager
def _quiet_randomness(device: torch.device) -> Iterator[None]:
    """Leave torch's global generator as it was found."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
