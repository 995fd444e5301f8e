"""How much each layer matters: the diagonal Fisher information of its LoRA tensors (Fed-HeLLo)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.data.encoded_causal import IGNORED
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.targets import layer_index
from fedlora_kit.training.objective import example_losses


def fisher_scores(
    model: nn.Module, slot: AdapterSlot, data: EncodedData, device: torch.device, one_logit: bool = False
) -> list[float]:
    """One score a layer, by layer index; 0 or more.

    F = mean over all examples of (d log p(y | x) / d theta)^2, entry by entry, y the example's label, in
    evaluation mode (no dropout); a layer's score is the sum over its LoRA tensors of the Frobenius norm of F.
    The classification head does not count. (Released code: ``one_logit``.) For a causal language model y is
    the whole response: log p(y | x) is the sum over its tokens, the end token included (our extension: the
    released code has classifiers only).

    Args:
        slot: its LoRA tensors must be trainable; their values are what is scored, and stay.
        data: proxy examples, at least one; taken one at a time.
        one_logit: take the raw logit of the label, of the first example alone (a defect, `methods.defects`).

    Raises:
        FedloraError: no example, no LoRA tensor of a layer trains, or ``one_logit`` of a causal model.
    """
    names = [n for n in slot.trainable if ".lora_" in n and layer_index(n) is not None]
    if len(data) == 0 or not names:
        raise FedloraError(
            f"layers cannot be scored with {len(data)} examples and {len(names)} LoRA tensors",
            "give proxy examples and let the LoRA tensors train",
        )
    parameters = [slot.parameters[n] for n in names]
    fisher = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    training = model.training
    model.eval()
    examples = 1 if one_logit else len(data)
    for i in range(examples):
        inputs, label = data.batch(np.array([i]), device)
        scored = _scored(model(**inputs).logits.float(), label, one_logit)
        for total, gradient in zip(fisher, torch.autograd.grad(scored, parameters), strict=True):
            total.add_(gradient.double() ** 2, alpha=1 / examples)
    model.train(training)
    scores: dict[int, float] = {}
    for name, total in zip(names, fisher, strict=True):
        layer = layer_index(name)
        assert layer is not None
        scores[layer] = scores.get(layer, 0.0) + float(total.norm())
    return [scores[layer] for layer in sorted(scores)]


def _scored(logits: torch.Tensor, label: torch.Tensor, one_logit: bool) -> torch.Tensor:
    """What is differentiated, for one example: log p(y | x), or the raw logit of y; a scalar."""
    if one_logit:
        if label.ndim > 1:
            raise FedloraError(
                "a response has no one logit: the defect 'fim' is one of classifiers", "leave that defect off"
            )
        return logits[0, label].sum()
    tokens = 1 if label.ndim == 1 else int((label[:, 1:] != IGNORED).sum())
    return -example_losses(logits, label).sum() * tokens
