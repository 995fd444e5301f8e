"""What a run writes down: a record a round, and the privacy report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlora_kit.adapter import State, count, size_bytes
from fedlora_kit.methods.base import Method
from fedlora_kit.privacy.ledger import Ledger
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.local import LocalResult, Noise


def round_record(
    round_index: int,
    cohort: Sequence[int],
    payloads: Sequence[State],
    results: Sequence[LocalResult],
    layer_scores: Sequence[float] | None = None,
    memory: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the history keeps of a round's training.

    Args:
        cohort: the clients drawn, also those that could not train.
        payloads: what each client that trained sent, padding left out.
        results: its local training, in the same order.
        layer_scores: importance of the layers, where it was measured before the round.
        memory: what the method has learned (`Method.memory`), as of the end of the round.
    """
    seen = [(r.loss, r.examples) for r in results if r.examples]
    total = sum(n for _, n in seen)
    record: dict[str, Any] = {
        "round": round_index,
        "cohort": list(cohort),
        "training_clients": len(results),
        "train_loss": sum(loss * n for loss, n in seen) / total if total else None,
        "examples": total,
        "bytes_up": sum(size_bytes(sent) for sent in payloads),
        "parameters_sent": [count(sent) for sent in payloads],
    }
    if layer_scores is not None:
        record["layer_scores"] = list(layer_scores)
    if memory is not None:
        record["method"] = dict(memory)
    return record


def teach_again(method: Method, history: Sequence[Mapping[str, Any]]) -> None:
    """Give a method, after a resumption, what it had learned: the last scores, and its own memory."""
    for record in [record for record in history if "layer_scores" in record][-1:]:
        method.refresh(record["layer_scores"], record["round"])
    if history and "method" in history[-1]:
        method.remember(history[-1]["method"])


def privacy_report(
    privacy: PrivacySettings | None, ledger: Ledger | None, noise: Sequence[Noise] | None, steps: int
) -> dict[str, Any] | None:
    """The ledger and the setting it was made with; None without DP.

    Args:
        steps: T = rounds x local steps.
    """
    if ledger is None or noise is None or privacy is None:
        return None
    return {
        **ledger.report(),
        "target_epsilon": privacy.epsilon,
        "clip": privacy.clip,
        "sigma": max(n.sigma for n in noise),
        "sample_rate": max(n.sample_rate for n in noise),
        "steps": steps,
    }
