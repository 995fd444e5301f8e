"""Scoring an adapter on whole splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.data.batches import physical_batches
from fedlora_kit.data.encoded import EncodedData


@torch.no_grad()
def evaluate(model: nn.Module, data: EncodedData, device: torch.device, max_tokens: int) -> dict[str, Any]:
    """Accuracy and mean loss of ``model`` on ``data``, in evaluation mode.

    Returns:
        accuracy: fraction of examples, in [0, 1].
        loss: mean cross-entropy, nats.
        examples: number of examples scored.
    """
    training = model.training
    model.eval()
    correct, loss = 0, 0.0
    for indices in physical_batches(data.lengths, np.arange(len(data)), max_tokens):
        inputs, labels = data.batch(indices, device)
        logits = model(**inputs).logits.float()  # (b, classes)
        correct += int((logits.argmax(-1) == labels).sum())
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    model.train(training)
    return {"accuracy": correct / len(data), "loss": loss / len(data), "examples": len(data)}
