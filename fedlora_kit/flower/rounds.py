"""The round loop at the server of a Flower run: that of `training.rounds`, with the clients elsewhere.

Cohorts, aggregation, scores, records and the privacy ledger are the kit's own; only where a cohort trains
differs. Clients are taken in ascending order, so that the result does not depend on who answers first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.flower.peers import Peers
from fedlora_kit.flower.wire import layout, padded
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.numerals import fixed
from fedlora_kit.privacy.ledger import Ledger
from fedlora_kit.training.cohort import Hooks
from fedlora_kit.training.federation import Federation, Outcome, Snapshot, cohort_of
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.noise_plan import noise_of_clients
from fedlora_kit.training.records import privacy_report, round_record
from fedlora_kit.training.scores import Scores, global_scores, mean_scores, scores_own


def computes(fed: Federation) -> bool:
    """Whether the server passes examples through a model: to score the global adapter, or layers."""
    late = fed.rounds.cohort is not None  # clients that have not trained yet are scored by the server
    return late or not scores_own(fed) or fed.proxy is not None


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
    own, held_out = scores_own(fed), any(h is not None and len(h) for h in fed.held_out)
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
                remote: dict[int, Scores] = {}
                local = None
                if own or held_out:
                    remote, local = peers.evaluate(state, r, scored_parts=own, held_out=held_out)
                others = None
                if len(remote) < len(fed.clients):  # those that have not trained yet are scored here
                    others = global_scores(fed, slot, Snapshot(r, state, {}, history, None))
                record["eval"] = mean_scores(remote, len(fed.clients), others)
                if own:
                    record["scored_clients"] = len(fed.clients)
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
    """As in `training.rounds`: the proxy examples are at the server."""
    if not fed.method.refreshes(round_index) or fed.proxy is None:
        return None
    hooks.prepare([name for name in slot.names if ".lora_" in name])
    slot.write(state)
    scores = fisher_scores(fed.model, slot, fed.proxy, fed.device, fed.method.score_one_logit, fed.precision)
    fed.method.refresh(scores, round_index)
    return scores


def _line(record: dict[str, Any], rounds: int) -> str:
    loss = "no loss" if record["train_loss"] is None else f"loss {fixed(record['train_loss'], 4)}"
    scores = ", ".join(f"{name} {fixed(s['accuracy'], 4)}" for name, s in record.get("eval", {}).items())
    trained = f"{record['training_clients']} clients"
    return f"round {record['round'] + 1} of {rounds}: {trained}, {loss}" + (f", {scores}" if scores else "")


def _quiet(device: torch.device) -> Any:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
