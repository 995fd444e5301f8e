"""What a step minimises: one loss an example, for classifiers and for causal language models.

Everything above takes the loss *per example*: the mean over a batch, a client's mean loss and DP-SGD's
per-example gradients are all made of it. A causal model's own ``loss`` is a mean over the tokens of the
batch instead; with answers of unequal length it weighs an example by its length and by its neighbours', and
there is no gradient of one example in it.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from fedlora_kit.data.encoded_causal import IGNORED


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
    nll = F.cross_entropy(logits[rows, places].float(), targets[counted], reduction="none")
    sums = torch.zeros(len(labels), device=nll.device).index_add(0, rows, nll)  # (b,)
    return sums / counted.sum(1)
