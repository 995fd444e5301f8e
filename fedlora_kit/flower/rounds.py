"""The round loop at the server of a Flower run: that of `training.federation`, with the clients elsewhere.

Cohorts, aggregation, scores, records and the privacy ledger are the kit's own; only where a cohort trains
differs. Clients are taken in ascending order, so that the result does not depend on who answers first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.flower.peers import Peers
from fedlora_kit.flower.wire import layout, padded
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.numerals import fixed
from fedlora_kit.privacy.ledger import Ledger
from fedlora_kit.training.cohort import Hooks
from fedlora_kit.training.federation import Federation, Outcome, Snapshot, cohort_of, is_sent
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.noise_plan import noise_of_clients
from fedlora_kit.training.records import privacy_report, round_record
from fedlora_kit.training.scores import global_scores


def keeps_own(fed: Federation, slot: AdapterSlot) -> bool:
    """Whether the scored adapters are the clients' own: some of what is scored never leaves them."""
    stays = [n for n in slot.names if not is_sent(fed, n)]
    return any(".lora_" not in n or not fed.method.one_global for n in stays)


def computes(fed: Federation, slot: AdapterSlot) -> bool:
    """Whether the server passes examples through a model: to score the global adapter, or layers."""
    return not keeps_own(fed, slot) or fed.proxy is not None


def run_rounds(
    fed: Federation, slot: AdapterSlot, peers: Peers, say: Callable[[str], None] = lambda line: None
) -> Outcome:
    """All rounds; ``fed`` is checked, and its method bound.

    Args:
        say: called with a line after every round.

    Raises:
        NodeLost, BadReply, NonFinite, NothingMoved: see `Peers`.
    """
    sizes, whole = [len(c) for c in fed.clients], layout(slot)
    steps = fed.rounds.rounds * fed.local.steps
    noise = noise_of_clients(fed.privacy, sizes, fed.local.batch_size, steps)
    ledger = Ledger(len(sizes), fed.privacy.delta, fed.privacy.accountant) if fed.privacy else None
    state, history = slot.read(), list[dict[str, Any]]()
    own, held_out = keeps_own(fed, slot), any(h is not None and len(h) for h in fed.held_out)
    learned: tuple[list[float], int] | None = None
    with _quiet(fed.device), Hooks(fed, slot) as hooks:
        fed.model.train()
        for r in range(fed.rounds.rounds):
            scores = _score_layers(fed, slot, hooks, state, r)
            learned = (scores, r) if scores is not None else learned
            cohort = cohort_of(fed, r)
            able = [k for k in cohort if fed.method.takes_part(k, r)]
            answers = peers.train(state, able, r, learned)
            updates = []
            for k in able:
                if ledger is not None and noise:
                    ledger.record(k, noise[k].sigma, noise[k].sample_rate, answers[k].result.steps)
                updates.append(ClientUpdate(k, sizes[k], padded(answers[k].sent, whole)))
            before = state
            if updates:
                state = fed.method.aggregate(state, updates)
            payloads, results = [answers[k].sent for k in able], [answers[k].result for k in able]
            record = round_record(r, cohort, payloads, results, scores, fed.method.memory())
            if fed.rounds.measure_gap and updates:
                record["aggregation_gap"] = aggregation_gap(before, state, updates)
            if fed.rounds.evaluates(r):
                now = Snapshot(r, state, {}, history, None)
                remote: dict[int, dict[str, dict[str, float]]] = {}
                local = None
                if own or held_out:
                    remote, local = peers.evaluate(state, r, scored_parts=own, held_out=held_out)
                record["eval"] = _mean(remote) if remote else global_scores(fed, slot, now)
                if local is not None:
                    record["local"] = local
                if ledger is not None:
                    record["epsilon"] = ledger.largest_epsilon()
            history.append(record)
            say(_line(record, fed.rounds.rounds))
        slot.write(state)
    return Outcome(state, {}, history, privacy_report(fed.privacy, ledger, noise, steps))


def _score_layers(
    fed: Federation, slot: AdapterSlot, hooks: Hooks, state: State, round_index: int
) -> list[float] | None:
    """As in `training.federation`: the proxy examples are at the server."""
    if not fed.method.refreshes(round_index) or fed.proxy is None:
        return None
    hooks.prepare([name for name in slot.names if ".lora_" in name])
    slot.write(state)
    scores = fisher_scores(fed.model, slot, fed.proxy, fed.device, fed.method.score_one_logit, fed.precision)
    fed.method.refresh(scores, round_index)
    return scores


def _mean(of_clients: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean over the clients, ascending, as `training.scores.global_scores` takes it."""
    ordered = [of_clients[k] for k in sorted(of_clients)]
    return {
        name: {key: float(np.mean([scores[name][key] for scores in ordered])) for key in ordered[0][name]}
        for name in ordered[0]
    }


def _line(record: dict[str, Any], rounds: int) -> str:
    loss = "no loss" if record["train_loss"] is None else f"loss {fixed(record['train_loss'], 4)}"
    scores = ", ".join(f"{name} {fixed(s['accuracy'], 4)}" for name, s in record.get("eval", {}).items())
    trained = f"{record['training_clients']} clients"
    return f"round {record['round'] + 1} of {rounds}: {trained}, {loss}" + (f", {scores}" if scores else "")


def _quiet(device: torch.device) -> Any:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
