"""Scoring an adapter on whole splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.data.batches import Indices, pass_tokens, physical_batches
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.training.generation import generate
from fedlora_kit.training.objective import batch_losses, class_logits, example_losses
from fedlora_kit.training.precision import products
from fedlora_kit.training.scoring import answer_scores


@torch.no_grad()
def evaluate(
    model: nn.Module, data: EncodedData, device: torch.device, max_tokens: int, precision: str = "fp32"
) -> dict[str, Any]:
    """Accuracy, further metrics and mean loss of ``model`` on ``data``, in evaluation mode.

    Args:
        precision: of the forward passes (see `training.precision`); losses and answers are taken from float32
            logits.

    Returns:
        accuracy: fraction of examples, in [0, 1]; for a causal model, of greedy answers that are right by the
            task's metric (see `training.scoring`). For a classifier it is the micro-averaged F1, too.
        rouge_l: causal tasks with the metric "rouge_l" only; mean ROUGE-L of the greedy answers, in [0, 1].
        macro_f1: classifiers only; mean F1 over the classes that occur (as labels or as answers), in [0, 1].
        loss: mean over the examples of their loss, nats (see `training.objective`).
        examples: number of examples scored.
    """
    training = model.training
    model.eval()
    pieces = physical_batches(data.lengths, np.arange(len(data)), max_tokens, pass_tokens(device))
    if isinstance(data, EncodedCausal):
        with products(precision):
            losses = [batch_losses(model, data, indices, device, precision) for indices in pieces]
        said = generate(model, data, device, max_tokens, precision)
        metrics = answer_scores(said, data.references, data.metric)
        loss = float(_sum(losses))
    else:
        loss, metrics = _classified(model, data, pieces, device, precision)
    model.train(training)
    return {**metrics, "loss": loss / len(data), "examples": len(data)}


def _classified(
    model: nn.Module, data: EncodedData, pieces: list[Indices], device: torch.device, precision: str
) -> tuple[float, dict[str, float]]:
    """Sum of the losses, and the metrics; the host waits for the device once, at the end."""
    from sklearn.metrics import f1_score

    losses, answered = [], []
    for indices in pieces:
        inputs, labels = data.batch(indices, device)
        with products(precision):
            logits = class_logits(model, inputs, precision)
        losses.append(example_losses(logits, labels))
        answered.append(logits.argmax(-1))
    found = torch.cat([_sum(losses)[None], torch.cat(answered).double()]).cpu().numpy()
    classes, answers = data.labels[np.concatenate(pieces)], found[1:].astype(np.int64)  # (n,)
    return float(found[0]), {
        "accuracy": float((classes == answers).mean()),
        "macro_f1": float(f1_score(classes, answers, average="macro", zero_division=0)),
    }


def _sum(losses: list[torch.Tensor]) -> torch.Tensor:
    """The sum over all batches, a float64 scalar on their device."""
    total = torch.zeros((), dtype=torch.float64, device=losses[0].device)
    for batch in losses:
        total = total + batch.sum().double()
    return total
