"""Scores: the global adapter on the task's scored parts, each client's own on its held-out examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.errors import NonFinite
from fedlora_kit.training.evaluation import evaluate

if TYPE_CHECKING:
    from fedlora_kit.training.federation import Federation, Snapshot


def global_scores(fed: Federation, slot: AdapterSlot, now: Snapshot) -> dict[str, dict[str, float]]:
    """Scored part -> metric -> value, of the global adapter.

    Where clients keep a head, or their method has no global adapter, there is no single model: it is the mean
    over the clients' own.

    Raises:
        NonFinite: a loss is NaN or infinite.
    """
    scores: dict[str, list[dict[str, Any]]] = {name: [] for name in fed.evals}
    for adapter in _scored_adapters(fed, now):
        slot.write(adapter)
        for name, data in fed.evals.items():
            score = evaluate(fed.model, data, fed.device, fed.rounds.eval_max_tokens, fed.precision)
            if not math.isfinite(score["loss"]):  # argmax of NaN is class 0: it would pass for a result
                raise NonFinite(f"the loss on {name!r}", now.next_round, None)
            scores[name].append(score)
    return {
        name: {key: float(np.mean([s[key] for s in all_scores])) for key in all_scores[0]}
        for name, all_scores in scores.items()
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


def _scored_adapters(fed: Federation, now: Snapshot) -> Iterator[State]:
    """The global adapter; where clients have something beside it, each one's own, one at a time."""
    single = fed.method.one_global
    heads_stay = fed.head == "personal" or (fed.head == "aggregated" and not fed.method.sends_head)
    nobody = True
    for k in sorted(now.personal) if heads_stay or not single else ():
        own = {n: t for n, t in now.personal[k].items() if not (single and ".lora_" in n)}
        if own:
            nobody = False
            yield {**now.state, **own}
    if nobody:
        yield now.state
