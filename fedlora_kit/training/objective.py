"""What a step minimises: one loss an example, for classifiers and for causal language models.

Everything above takes the loss *per example*: the mean over a batch, a client's mean loss and DP-SGD's
per-example gradients are all made of it. A causal model's own ``loss`` is a mean over the tokens of the
batch instead; with answers of unequal length it weighs an example by its length and by its neighbours', and
there is no gradient of one example in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fedlora_kit.data.encoded import Batch, EncodedData, Indices
from fedlora_kit.data.encoded_causal import IGNORED, AnswerTokens, EncodedCausal
from fedlora_kit.training.precision import forward


def batch_losses(
    model: nn.Module, data: EncodedData, indices: Indices, device: torch.device, precision: str = "fp32"
) -> torch.Tensor:
    """The loss of each example at ``indices``, nats, shape (b,): a forward pass in the declared precision."""
    if isinstance(data, EncodedCausal):
        return losses_of(model, *data.answers(indices, device), precision=precision)
    return losses_of(model, *data.batch(indices, device), precision=precision)


def losses_of(
    model: nn.Module, inputs: Batch, truth: torch.Tensor | AnswerTokens, precision: str = "fp32"
) -> torch.Tensor:
    """The same of a batch that is on the device, its ``truth`` classes (b,) or answers."""
    if isinstance(truth, AnswerTokens):
        return answer_losses(answer_logits(model, inputs, truth, precision), truth)
    return example_losses(class_logits(model, inputs, precision), truth)


def class_logits(model: nn.Module, inputs: Batch, precision: str = "fp32") -> torch.Tensor:
    """A classifier's logits, float32 (b, classes).

    BERT and RoBERTa get the attention mask as their layers want it, (b, 1, 1, width): transformers would
    first read from the device whether it hides anything.
    """
    mask, config = inputs.get("attention_mask"), getattr(model, "config", None)
    known = getattr(config, "model_type", "") in ("bert", "roberta")
    if mask is not None and known and not getattr(config, "is_decoder", False):
        inputs = {**inputs, "attention_mask": mask.bool()[:, None, None, :]}
    with forward(next(iter(inputs.values())).device, precision):
        logits: torch.Tensor = model(**inputs).logits
    return logits.float()


def answer_logits(
    model: nn.Module, inputs: Batch, answer: AnswerTokens, precision: str = "fp32"
) -> torch.Tensor:
    """A causal model's logits for the answers' t tokens alone, float32 (t, vocabulary).

    Its head, with a large vocabulary most of a small model, computes at those places only; no cache of keys
    and values is built.
    """
    with forward(answer.rows.device, precision), _head_at(model, answer):
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits[0].float()


@contextmanager
def _head_at(model: Any, answer: AnswerTokens) -> Iterator[None]:
    """The model's head is given the states at the answers' places, (1, t, width)."""

    def chosen(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0][answer.rows, answer.places][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()


def answer_losses(logits: torch.Tensor, answer: AnswerTokens) -> torch.Tensor:
    """As `example_losses`, from the logits of the answers' tokens, (t, vocabulary); shape (b,)."""
    nll = F.cross_entropy(logits.float(), answer.tokens, reduction="none")  # (t,)
    spread = nll.new_zeros(len(answer.lengths), answer.width).index_put((answer.rows, answer.places), nll)
    return spread.sum(1) / answer.lengths


def example_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of each example, nats, shape (b,).

    Args:
        logits: (b, classes) of a classifier, or (b, width, vocabulary) of a causal model.
        labels: (b,) classes, or (b, width) token ids with ``IGNORED`` outside the answer.

    Returns:
        Cross-entropy of the class; or the mean negative log-likelihood over the answer's tokens, each
        predicted from the tokens before it.

    >>> example_losses(torch.zeros(2, 3, 5), torch.tensor([[IGNORED, 1, 2], [IGNORED, IGNORED, 4]]))
    tensor([1.6094, 1.6094])
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits.float(), labels, reduction="none")
    targets = labels[:, 1:]  # (b, width - 1): the token at place t is predicted at place t - 1
    counted = targets != IGNORED
    rows, places = counted.nonzero(as_tuple=True)  # (answer tokens of the batch,)
    answer = AnswerTokens(rows, places, targets[counted], counted.sum(1), counted.shape[1])
    return answer_losses(logits[rows, places], answer)
