"""How much each layer matters: the diagonal Fisher information of its LoRA tensors (Fed-HeLLo)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import physical_batches
from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText
from fedlora_kit.data.encoded_causal import IGNORED
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.targets import layer_index
from fedlora_kit.training.lora_stack import LoraStack, repeated, why_not_modules
from fedlora_kit.training.objective import example_losses

#: tokens and examples of one pass, at most: every example takes a copy of the adapter along
_TOKENS, _EXAMPLES = 2048, 32


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
        data: proxy examples, at least one; each has a gradient of its own.
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
    if one_logit or why_not_modules(model, slot) or not isinstance(data, (EncodedText, EncodedImages)):
        fisher = _one_by_one(model, slot, names, data, device, one_logit)
    else:
        fisher = _together(model, slot, names, data, device)
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


def _one_by_one(
    model: nn.Module,
    slot: AdapterSlot,
    names: Sequence[str],
    data: EncodedData,
    device: torch.device,
    one_logit: bool,
) -> list[torch.Tensor]:
    """The mean squared gradient of each tensor, float64, one backward pass an example."""
    parameters = [slot.parameters[n] for n in names]
    fisher = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    examples = 1 if one_logit else len(data)
    for i in range(examples):
        inputs, label = data.batch(np.array([i]), device)
        scored = _scored(model(**inputs).logits.float(), label, one_logit)
        for total, gradient in zip(fisher, torch.autograd.grad(scored, parameters), strict=True):
            total.add_(gradient.double() ** 2, alpha=1 / examples)
    return fisher


def _together(
    model: nn.Module, slot: AdapterSlot, names: Sequence[str], data: EncodedData, device: torch.device
) -> list[torch.Tensor]:
    """The same in one pass for many examples: each row of a batch has its own copy of the adapter."""
    stack = LoraStack(model, slot)
    held = {n: p.detach()[None] for n, p in slot.parameters.items()}  # (1, *shape)
    fisher = [torch.zeros_like(slot.parameters[n], dtype=torch.float64) for n in names]
    for rows in physical_batches(data.lengths, np.arange(len(data)), _TOKENS):
        for start in range(0, len(rows), _EXAMPLES):
            inputs, labels = data.batch(rows[start : start + _EXAMPLES], device)
            own = repeated(held, torch.zeros(len(labels), dtype=torch.int64, device=device))
            trained = [own[n].requires_grad_() for n in names]
            with stack.installed():
                stack.tensors = own
                loss = nn.functional.cross_entropy(model(**inputs).logits.float(), labels, reduction="sum")
            for total, gradient in zip(fisher, torch.autograd.grad(loss, trained), strict=True):
                total.add_((gradient.double() ** 2).sum(0), alpha=1 / len(data))
    return fisher
