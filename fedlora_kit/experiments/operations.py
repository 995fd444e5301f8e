"""Floating-point operations of a transformer with LoRA, forward and backward, in closed form.

Counted are matrix products, a multiplication and an addition as two (the rule of PyTorch's own counter, which
`papers.step_costs` reads and the tests compare with). With N entries in a layer's matrices, n tokens and
width d, the forward pass of a layer takes 2 N n + 4 n² d. Of a frozen layer above the lowest trained one the
backward pass takes as much for the matrices (no gradient with respect to weights, only to activations) and
twice as much for attention; below the lowest trained layer it takes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fedlora_kit.experiments.shapes import Shape

#: the order in which a layer passes through its matrices
_PLACE = {"q": 0, "k": 0, "v": 0, "o": 1, "gate": 2, "up": 2, "down": 3}


@dataclass(frozen=True)
class Adapters:
    """LoRA as operations see it: rank and adapted matrices, by their short names."""

    rank: int
    targets: tuple[str, ...]

    def entries(self, shape: Shape) -> int:
        """Entries of A and B in one layer: r (in + out) a matrix."""
        return sum(self.rank * sum(shape.matrix(t)) for t in self.targets)


def forward_flops(
    shape: Shape, adapters: Adapters, tokens: float, *, layers: int | None = None, labels: int = 0
) -> float:
    """One example's forward pass.

    Args:
        tokens: of the example.
        layers: that are passed through; None for all.
        labels: outputs of a classification head; ignored for a causal model, which scores its vocabulary at
            every token.
    """
    count = shape.layers if layers is None else layers
    inside = shape.layer_weights + adapters.entries(shape)
    return (
        count * (2 * tokens * inside + attention_flops(shape, tokens, tokens))
        + embedding_flops(shape, tokens)
        + head_flops(shape, tokens, labels)
    )


def backward_flops(
    shape: Shape,
    adapters: Adapters,
    tokens: float,
    trained: Collection[int],
    *,
    present: Sequence[int] | None = None,
    labels: int = 0,
    frozen_a: bool = False,
    checkpointing: bool = False,
) -> float:
    """One example's backward pass.

    Args:
        trained: layers whose adapters train; none of them: nothing is done.
        present: layers that are passed through, ascending; None for all.
        frozen_a: only B trains (FFA-LoRA): A has no gradient of its own.
        checkpointing: each layer's forward pass is done again first (see `models.memory`).
    """
    passed = list(range(shape.layers)) if present is None else sorted(present)
    reached = [layer for layer in passed if layer in set(trained)]
    if not reached:
        return 0.0
    above = [layer for layer in passed if layer > reached[0]]
    pairs = [(adapters.rank * a, adapters.rank * b) for a, b in map(shape.matrix, adapters.targets)]
    through = sum(a + b for a, b in pairs)  # gradients of what goes into A and B
    own = sum(b if frozen_a else a + b for a, b in pairs)  # gradients of A and B themselves
    attention = 2 * attention_flops(shape, tokens, tokens)
    # in the lowest trained layer nothing goes further down than to the first adapted matrices
    first = min(_PLACE[t] for t in adapters.targets)
    further = [t for t in shape.matrices if _PLACE[t] > first]
    behind = sum(a * b for a, b in map(shape.matrix, further))
    behind += sum(adapters.rank * sum(shape.matrix(t)) for t in adapters.targets if t in further)
    to_b = sum(adapters.rank * shape.matrix(t)[1] for t in adapters.targets if t not in further)
    at_lowest = 2 * tokens * (behind + own + (0 if frozen_a else to_b))
    if first == 0:  # of queries, keys and values those that are not adapted need no gradient
        needless = sum(t not in adapters.targets for t in ("q", "k", "v"))
        at_lowest += attention - needless * attention_flops(shape, tokens, tokens) / 2
    each = 2 * tokens * (shape.layer_weights + through) + attention
    weights = 2 * tokens * own * len([layer for layer in above if layer in set(trained)])
    if not checkpointing:
        return at_lowest + each * len(above) + weights + head_flops(shape, tokens, labels)
    # the layers are run again, and the gradient goes all the way down: their inputs require it
    again = 2 * tokens * (shape.layer_weights + adapters.entries(shape)) + attention / 2
    through_all = (each + again) * len(passed) + 2 * tokens * own * len(reached)
    return through_all + head_flops(shape, tokens, labels)


def generation_flops(shape: Shape, adapters: Adapters, prompt: float, new: int) -> float:
    """One greedy answer of ``new`` tokens after a prompt, with a cache of keys and values."""
    inside = shape.layers * (shape.layer_weights + adapters.entries(shape)) + shape.width * shape.vocabulary
    context = prompt + np.arange(1, new)
    attention = shape.layers * float(sum(attention_flops(shape, 1, float(c)) for c in context))
    read = shape.layers * (
        2 * prompt * (shape.layer_weights + adapters.entries(shape)) + attention_flops(shape, prompt, prompt)
    )
    return read + 2 * inside * new + attention


def attention_flops(shape: Shape, queries: float, keys: float) -> float:
    """Products of queries with keys, and of weights with values, in one layer."""
    return 4 * queries * keys * shape.width


def embedding_flops(shape: Shape, tokens: float) -> float:
    """An image's patches through their projection; looking a word up is no product."""
    if not shape.patch:
        return 0.0
    return 2 * (tokens - 1) * shape.channels * shape.patch**2 * shape.width


def head_flops(shape: Shape, tokens: float, labels: int) -> float:
    """The head: a causal model's vocabulary at every token, a classifier's outputs once."""
    if shape.family == "llama":
        return 2 * tokens * shape.width * shape.vocabulary
    hidden = shape.width if shape.family in ("bert", "roberta") else 0
    return 2 * shape.width * (hidden + labels)


def activation_bytes(
    shape: Shape,
    adapters: Adapters,
    tokens: float,
    layers: int,
    *,
    bytes_each: int = 4,
    checkpointing: bool = False,
) -> float:
    """What autograd keeps of one example for the backward pass of the ``layers`` topmost layers, about.

    In a layer: the inputs of two norms and of attention's and the MLP's nonlinear parts, queries, keys,
    values and attention's output, what goes into A and what comes out of it; and the attention weights, which
    fused kernels do not keep. A causal model's scores of its vocabulary come on top: as computed, in float32,
    and their gradient.
    """
    width = 8 * shape.width + (4 if shape.gated else 2) * shape.inner
    inside = tokens * (width + len(adapters.targets) * adapters.rank)
    kept = shape.width * tokens * layers + inside if checkpointing else layers * inside
    vocabulary = tokens * shape.vocabulary * (bytes_each + 8) if shape.family == "llama" else 0.0
    return kept * bytes_each + vocabulary
