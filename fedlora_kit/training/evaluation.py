"""Scoring an adapter on whole splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.data.batches import physical_batches
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.training.generation import generate
from fedlora_kit.training.objective import example_losses
from fedlora_kit.training.scoring import answer_scores


@torch.no_grad()
def evaluate(model: nn.Module, data: EncodedData, device: torch.device, max_tokens: int) -> dict[str, Any]:
    """Accuracy, further metrics and mean loss of ``model`` on ``data``, in evaluation mode.

    Returns:
        accuracy: fraction of examples, in [0, 1]; for a causal model, of greedy answers that are right by the
            task's metric (see `training.scoring`). For a classifier it is the micro-averaged F1, too.
        rouge_l: causal tasks scored by ROUGE-L only; mean ROUGE-L of the greedy answers, in [0, 1].
        macro_f1: classifiers only; mean F1 over the classes that occur (as labels or as answers), in [0, 1].
        loss: mean over the examples of their loss, nats (see `training.objective`).
        examples: number of examples scored.
    """
    from sklearn.metrics import f1_score

    training = model.training
    model.eval()
    loss = 0.0
    truth: list[torch.Tensor] = []
    answered: list[torch.Tensor] = []
    for indices in physical_batches(data.lengths, np.arange(len(data)), max_tokens):
        inputs, labels = data.batch(indices, device)
        logits = model(**inputs).logits  # (b, classes) or (b, width, vocabulary)
        loss += float(example_losses(logits, labels).sum())
        if labels.ndim == 1:
            truth.append(labels.cpu())
            answered.append(logits.argmax(-1).cpu())
    if isinstance(data, EncodedCausal):
        said = generate(model, data, device, max_tokens)
        metrics = answer_scores(said, data.references, data.metric)
    else:
        classes, answers = torch.cat(truth).numpy(), torch.cat(answered).numpy()  # (n,)
        metrics = {
            "accuracy": float((classes == answers).mean()),
            "macro_f1": float(f1_score(classes, answers, average="macro", zero_division=0)),
        }
    model.train(training)
    return {**metrics, "loss": loss / len(data), "examples": len(data)}
