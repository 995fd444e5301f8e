"""Scoring an adapter on whole splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.data.batches import physical_batches
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.training.generation import exact_matches, generate
from fedlora_kit.training.objective import example_losses


@torch.no_grad()
def evaluate(model: nn.Module, data: EncodedData, device: torch.device, max_tokens: int) -> dict[str, Any]:
    """Accuracy and mean loss of ``model`` on ``data``, in evaluation mode.

    Returns:
        accuracy: fraction of examples, in [0, 1]; for a causal model, of greedy answers whose final number is
            right.
        loss: mean over the examples of their loss, nats (see `training.objective`).
        examples: number of examples scored.
    """
    training = model.training
    model.eval()
    correct, loss = 0, 0.0
    for indices in physical_batches(data.lengths, np.arange(len(data)), max_tokens):
        inputs, labels = data.batch(indices, device)
        logits = model(**inputs).logits  # (b, classes) or (b, width, vocabulary)
        loss += float(example_losses(logits, labels).sum())
        if labels.ndim == 1:
            correct += int((logits.argmax(-1) == labels).sum())
    if isinstance(data, EncodedCausal):
        correct = sum(exact_matches(generate(model, data, device, max_tokens), data.references))
    model.train(training)
    return {"accuracy": correct / len(data), "loss": loss / len(data), "examples": len(data)}
