"""The round loop: cohort, local training, aggregation, evaluation, checkpoint. Read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.methods.ranks import truncated, without_padding
from fedlora_kit.privacy.ledger import Ledger
from fedlora_kit.training.checks import check
from fedlora_kit.training.client_states import ClientStates
from fedlora_kit.training.cohort import Cohort, Hooks
from fedlora_kit.training.federation import Federation, Outcome, Snapshot, cohort_of, is_sent
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.host_memory import freed_memory_kept
from fedlora_kit.training.local import LocalResult, Noise
from fedlora_kit.training.noise_plan import noise_of_clients
from fedlora_kit.training.precision import products
from fedlora_kit.training.records import privacy_report, round_record, teach_again
from fedlora_kit.training.scores import Scores, global_scores, local_scores, scores_own
from fedlora_kit.training.stages import run_stages


@dataclass(frozen=True)
class Answer:
    """One client's local training, as the server gets it.

    Attributes:
        client: id.
        sent: the tensors that the method sends, in full shape.
        payload: the same as they travel, padding left out.
        result: losses and counts.
    """

    client: int
    sent: State
    payload: State
    result: LocalResult


class Clients(Protocol):
    """Where the clients of a federation are: in this process (`Here`), or behind a network.

    Attributes:
        hooks: of the server's own model.
    """

    hooks: Hooks

    def train(
        self, now: Snapshot, clients: Sequence[int], round_index: int, scores: Sequence[float] | None
    ) -> Iterable[Answer]:
        """Their local trainings, in the order of ``clients``; ``scores``: of the layers, if there are new
        ones."""

    def evaluate(self, now: Snapshot) -> tuple[Scores, dict[str, list[Any]] | None]:
        """What `training.scores.global_scores` and `local_scores` give."""


class Here:
    """Clients that train in this process, one after the other or stacked."""

    def __init__(self, fed: Federation, slot: AdapterSlot, noise: Sequence[Noise] | None) -> None:
        self._fed, self._slot = fed, slot
        self._cohort = Cohort(fed, slot, noise)
        self.hooks = self._cohort.hooks

    def train(
        self, now: Snapshot, clients: Sequence[int], round_index: int, scores: Sequence[float] | None
    ) -> Iterator[Answer]:
        """As `Clients.train`; what stays with a client is in ``now.personal`` afterwards."""
        fed, r = self._fed, round_index
        for done in self._cohort.train(now.state, now.personal, clients, r):
            k = done.client
            fed.method.after_training(k, done.start, done.tensors)
            rank = fed.method.rank(k)  # it may have pruned itself
            trained = truncated(done.tensors, rank)
            sent = {name: t for name, t in trained.items() if is_sent(fed, name)}
            kept = {name: t for name, t in trained.items() if name not in sent}
            sent |= {n: t.clone() for n, t in done.start.items() if fed.method.sends_untrained(n, k, r)}
            if kept:
                now.personal[k] = {**now.personal.get(k, {}), **kept}
            yield Answer(k, sent, without_padding(sent, rank), done.result)

    def evaluate(self, now: Snapshot) -> tuple[Scores, dict[str, list[Any]] | None]:
        """As `Clients.evaluate`."""
        return global_scores(self._fed, self._slot, now), local_scores(self._fed, self._slot, now)


def run_federation(
    fed: Federation,
    *,
    resume: Snapshot | None = None,
    save: Callable[[Snapshot], None] | None = None,
    personal: ClientStates | None = None,
    elsewhere: Clients | None = None,
) -> Outcome:
    """Run all rounds (or those that ``resume`` leaves) and return the outcome.

    The result depends on the arguments alone: every random draw comes from a stream named by (purpose,
    round, client), so a run resumed from any snapshot ends bit-identical.

    Args:
        save: called with the state after every round.
        personal: where what stays with the clients is kept, by default in a temporary folder. It may hold
            some of a resumed run already; what ``resume`` has comes on top.
        elsewhere: the clients, where they do not train in this process.

    Raises:
        BadValue: a client has no examples, or the cohort is larger than the federation.
        NonFinite: a loss or an update became NaN or infinite.
    """
    check(fed)
    fed.method.bind(fed.method.context)  # a federation may run again: nothing is left of the last time
    slot = AdapterSlot(fed.model)
    sizes = [len(c) for c in fed.clients]
    noise = noise_of_clients(fed.privacy, sizes, fed.local.batch_size, fed.rounds.rounds * fed.local.steps)
    ledger = Ledger(len(sizes), fed.privacy.delta, fed.privacy.accountant) if fed.privacy else None
    personal = ClientStates(fed.device) if personal is None else personal
    begin = Snapshot(0, slot.read(), personal, [], None)
    now = begin if resume is None else _resumed(fed, slot, resume, personal)
    teach_again(fed.method, now.history)
    if ledger is not None and now.ledger is not None:
        ledger.restore(now.ledger)

    clients = elsewhere if elsewhere is not None else Here(fed, slot, noise)
    memory = freed_memory_kept() if fed.device.type == "cpu" else nullcontext()
    with quiet_randomness(fed.device), products("fp32"), memory, clients.hooks as hooks:
        fed.model.train()
        for r in range(now.next_round, fed.rounds.rounds):
            scores = _score_layers(fed, slot, hooks, now, r)
            cohort = cohort_of(fed, r)
            able = [k for k in cohort if fed.method.takes_part(k, r)]
            answers = list(clients.train(now, able, r, scores))
            if ledger is not None and noise:
                for one in answers:
                    spent = noise[one.client]
                    ledger.record(one.client, spent.sigma, spent.sample_rate, one.result.steps)
            updates = [ClientUpdate(one.client, sizes[one.client], one.sent) for one in answers]
            before = now.state
            if updates:  # else nobody of the cohort could train: the global adapter stays
                now.state = fed.method.aggregate(now.state, updates)
            payloads, results = [one.payload for one in answers], [one.result for one in answers]
            record = round_record(r, cohort, payloads, results, scores, fed.method.memory())
            if fed.rounds.measure_gap and updates:
                record["aggregation_gap"] = aggregation_gap(before, now.state, updates)
            stages = run_stages(fed, slot, now, r, cohort)
            if stages:
                hooks.release()
                record["stages"] = stages
                record["bytes_up"] += sum(stage["bytes_up"] for stage in stages)
            if fed.rounds.evaluates(r):
                record["eval"], local = clients.evaluate(now)
                if scores_own(fed):
                    record["scored_clients"] = len(fed.clients)
                if local is not None:
                    record["local"] = local
                if ledger is not None:
                    record["epsilon"] = ledger.largest_epsilon()
            now.history.append(record)
            now.next_round = r + 1
            now.ledger = ledger.state() if ledger is not None else None
            if save is not None:
                save(now)
        slot.write(now.state)
    steps = fed.rounds.rounds * fed.local.steps
    report = privacy_report(fed.privacy, ledger, noise, steps)
    return Outcome(now.state, now.personal, now.history, report)


def _resumed(fed: Federation, slot: AdapterSlot, given: Snapshot, personal: ClientStates) -> Snapshot:
    """A snapshot of its own, on the federation's device and in model order.

    Checkpoints are read to the CPU, in another order; DP's noise is drawn tensor after tensor.
    """

    def placed(state: State) -> State:
        order = [n for n in slot.names if n in state] + [n for n in state if n not in slot.names]
        return {n: state[n].to(fed.device) for n in order}

    for k, own in given.personal.items():
        personal[k] = placed(own)
    return Snapshot(given.next_round, placed(given.state), personal, list(given.history), given.ledger)


def _score_layers(
    fed: Federation, slot: AdapterSlot, hooks: Hooks, now: Snapshot, round_index: int
) -> list[float] | None:
    """New importance scores of the layers where the method wants them before this round, else None."""
    if not fed.method.refreshes(round_index) or fed.proxy is None:
        return None
    hooks.prepare([name for name in slot.names if ".lora_" in name])
    slot.write({**now.state})
    scores = fisher_scores(fed.model, slot, fed.proxy, fed.device, fed.method.score_one_logit, fed.precision)
    fed.method.refresh(scores, round_index)
    return scores


def quiet_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's global generator as it was found."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
