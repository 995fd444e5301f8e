"""Scores: the global adapter on the task's scored parts, each client's own on its held-out examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.errors import NonFinite
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.federation import Federation, Snapshot

#: scored part -> metric -> value
Scores = dict[str, dict[str, float]]


def scores_own(fed: Federation) -> bool:
    """Whether clients have something of their own in what is scored: their head, or a part of LoRA."""
    heads_stay = fed.head == "personal" or (fed.head == "aggregated" and not fed.method.sends_head)
    return heads_stay or not fed.method.one_global


def global_scores(fed: Federation, slot: AdapterSlot, now: Snapshot) -> Scores:
    """Scores of the global adapter on the task's scored parts.

    Where clients keep a head, or their method has no global adapter, there is no single model: it is the
    plain mean over all clients' own. A client that has not trained yet has what a new client would: the
    global adapter, and what never leaves a client as it was at the start.

    Raises:
        NonFinite: a loss is NaN or infinite.
    """
    own = own_scores(fed, slot, now)
    if len(own) == len(fed.clients):
        return mean_scores(own, len(own), None)
    start = now.state if fed.method.one_global else fed.method.personalised(now.state, {})
    return mean_scores(own, len(fed.clients), _scores(fed, slot, now, start))


def own_scores(fed: Federation, slot: AdapterSlot, now: Snapshot) -> dict[int, Scores]:
    """Scores of each client that has something of its own in what is scored (see `scores_own`).

    Raises:
        NonFinite: a loss is NaN or infinite.
    """
    found = {}
    for k in now.personal if scores_own(fed) else ():
        own = now.personal[k]
        if not fed.method.one_global:
            found[k] = _scores(fed, slot, now, fed.method.personalised(now.state, own))
            continue
        heads = {n: t for n, t in own.items() if ".lora_" not in n}  # its LoRA is for its held-out examples
        if heads:
            found[k] = _scores(fed, slot, now, {**now.state, **heads})
    return found


def mean_scores(own: Mapping[int, Scores], clients: int, others: Scores | None) -> Scores:
    """The mean over ``clients`` clients, in order of their ids.

    Args:
        own: client -> its scores.
        others: those of every client that is not in ``own``; None if there is none.
    """
    every = [own.get(k, others or {}) for k in range(clients)]
    if not own:  # a mean of equal numbers may differ from them in the last bit
        every = every[:1]
    return {
        part: {metric: float(np.mean([scores[part][metric] for scores in every])) for metric in values}
        for part, values in every[0].items()
    }


def local_scores(fed: Federation, slot: AdapterSlot, now: Snapshot) -> dict[str, list[Any]] | None:
    """Each client's own adapter on its own held-out examples; None where no client has any.

    Returns:
        "clients" (ids), and a list a metric in the same order: accuracy, loss, examples, ...

    Raises:
        NonFinite: a loss is NaN or infinite.
    """
    table: dict[str, list[Any]] = {"clients": []}
    for k, data in enumerate(fed.held_out):
        if data is None or len(data) == 0:
            continue
        slot.write(fed.method.personalised(now.state, now.personal.get(k, {})))
        score = evaluate(fed.model, data, fed.device, fed.rounds.eval_max_tokens, fed.precision)
        if not math.isfinite(score["loss"]):
            raise NonFinite(f"the loss on the held-out examples of client {k}", now.next_round, None)
        table["clients"].append(k)
        for metric, value in score.items():
            table.setdefault(metric, []).append(value)
    return table if table["clients"] else None


def _scores(fed: Federation, slot: AdapterSlot, now: Snapshot, adapter: State) -> Scores:
    slot.write(adapter)
    found = {}
    for name, data in fed.evals.items():
        found[name] = evaluate(fed.model, data, fed.device, fed.rounds.eval_max_tokens, fed.precision)
        if not math.isfinite(found[name]["loss"]):  # argmax of NaN is class 0: it would pass for a result
            raise NonFinite(f"the loss on {name!r}", now.next_round, None)
    return found
