"""How much each layer matters: the diagonal Fisher information of its LoRA tensors (Fed-HeLLo)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import pass_tokens, physical_batches
from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.targets import layer_index
from fedlora_kit.training.lora_stack import LoraStack, repeated, why_not_modules
from fedlora_kit.training.objective import answer_logits, answer_losses, class_logits, example_losses
from fedlora_kit.training.precision import products

#: tokens and examples of one pass, at most: every example takes a copy of the adapter along
_TOKENS, _EXAMPLES = 2048, 32


def fisher_scores(
    model: nn.Module,
    slot: AdapterSlot,
    data: EncodedData,
    device: torch.device,
    one_logit: bool = False,
    precision: str = "fp32",
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
        precision: of the passes (see `training.precision`); squares and sums are float64.

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
        fisher = _one_by_one(model, slot, names, data, device, one_logit, precision)
    else:
        fisher = _together(model, slot, names, data, device, precision)
    model.train(training)
    scores: dict[int, float] = {}
    norms = torch.stack([total.norm() for total in fisher]).tolist()
    for name, norm in zip(names, norms, strict=True):
        layer = layer_index(name)
        assert layer is not None
        scores[layer] = scores.get(layer, 0.0) + norm
    return [scores[layer] for layer in sorted(scores)]


def _scored(
    model: nn.Module, data: EncodedData, i: int, device: torch.device, one_logit: bool, precision: str
) -> torch.Tensor:
    """What is differentiated, for example ``i``: log p(y | x), or the raw logit of y; a scalar."""
    one = np.array([i])
    if isinstance(data, EncodedCausal):
        if one_logit:
            raise FedloraError(
                "a response has no one logit: the defect 'fim' is one of classifiers", "leave that defect off"
            )
        inputs, answer = data.answers(one, device)
        losses = answer_losses(answer_logits(model, inputs, answer, precision), answer)
        return -losses.sum() * len(answer.tokens)
    inputs, label = data.batch(one, device)
    logits = class_logits(model, inputs, precision)
    return logits[0, label].sum() if one_logit else -example_losses(logits, label).sum()


def _one_by_one(
    model: nn.Module,
    slot: AdapterSlot,
    names: Sequence[str],
    data: EncodedData,
    device: torch.device,
    one_logit: bool,
    precision: str,
) -> list[torch.Tensor]:
    """The mean squared gradient of each tensor, float64, one backward pass an example."""
    parameters = [slot.parameters[n] for n in names]
    fisher = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    examples = 1 if one_logit else len(data)
    for i in range(examples):
        with products(precision):
            scored = _scored(model, data, i, device, one_logit, precision)
            gradients = torch.autograd.grad(scored, parameters)
        for total, gradient in zip(fisher, gradients, strict=True):
            total.add_(gradient.double() ** 2, alpha=1 / examples)
    return fisher


def _together(
    model: nn.Module,
    slot: AdapterSlot,
    names: Sequence[str],
    data: EncodedData,
    device: torch.device,
    precision: str,
) -> list[torch.Tensor]:
    """The same in one pass for many examples: each row of a batch has its own copy of the adapter."""
    stack = LoraStack(model, slot)
    held = {n: p.detach()[None] for n, p in slot.parameters.items()}  # (1, *shape)
    fisher = [torch.zeros_like(slot.parameters[n], dtype=torch.float64) for n in names]
    for rows in physical_batches(data.lengths, np.arange(len(data)), _TOKENS, pass_tokens(device)):
        for start in range(0, len(rows), _EXAMPLES):
            inputs, labels = data.batch(rows[start : start + _EXAMPLES], device)
            own = repeated(held, torch.zeros(len(labels), dtype=torch.int64, device=device))
            trained = [own[n].requires_grad_() for n in names]
            with stack.installed(), products(precision):
                stack.tensors = own
                logits = class_logits(model, inputs, precision)
                loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
                gradients = torch.autograd.grad(loss, trained)
            for total, gradient in zip(fisher, gradients, strict=True):
                total.add_((gradient.double() ** 2).sum(0), alpha=1 / len(data))
    return fisher
