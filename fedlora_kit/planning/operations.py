"""Floating-point operations of a transformer with LoRA, forward and backward, in closed form.

Counted are matrix products, a multiplication and an addition as two (the rule of PyTorch's own counter, which
`planning.step_costs` reads and the tests compare with). With N entries in a layer's matrices, n tokens and
width d, the forward pass of a layer takes 2 N n + 4 n² d. Of a frozen layer above the lowest trained one the
backward pass takes as much for the matrices (no gradient with respect to weights, only to activations) and
twice as much for attention; below the lowest trained layer it takes nothing. A classifier's last layer,
which computes the first token's state alone (`models.first_token`), has one token at q, o and the MLP.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fedlora_kit.planning.shapes import Shape

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
    shape: Shape,
    adapters: Adapters,
    tokens: float,
    *,
    layers: int | None = None,
    labels: int = 0,
    first_token: bool = False,
    scored: float | None = None,
) -> float:
    """One example's forward pass.

    Args:
        tokens: of the example.
        layers: that are passed through; None for all.
        labels: outputs of a classification head; ignored for a causal model.
        first_token: the last of the layers computes the first token's state alone.
        scored: tokens at which a causal model scores its vocabulary; None for all.
    """
    count = shape.layers if layers is None else layers
    each = _layer_forward(shape, adapters, tokens, tokens)
    last = _layer_forward(shape, adapters, tokens, 1) if first_token and count else each
    inside = each * (count - 1) + last if count else 0.0
    return inside + embedding_flops(shape, tokens) + head_flops(shape, _scored(tokens, scored), labels)


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
    first_token: bool = False,
    scored: float | None = None,
) -> float:
    """One example's backward pass.

    Args:
        trained: layers whose adapters train; none of them: nothing is done.
        present: layers that are passed through, ascending; None for all.
        frozen_a: only B trains (FFA-LoRA): A has no gradient of its own.
        checkpointing: each layer's forward pass is done again first (see `models.memory`).
        first_token: the last of the layers computes the first token's state alone.
        scored: tokens at which a causal model scores its vocabulary; None for all.
    """
    passed = list(range(shape.layers)) if present is None else sorted(present)
    reached = [layer for layer in passed if layer in set(trained)]
    if not reached:
        return 0.0
    total = head_flops(shape, _scored(tokens, scored), labels)
    for layer in passed:
        states = 1.0 if first_token and layer == passed[-1] else tokens
        if checkpointing and states == tokens:  # run again; the gradient goes all the way down
            total += _layer_forward(shape, adapters, tokens, states)
        if layer > reached[0] or checkpointing:
            total += _layer_backward(shape, adapters, tokens, states)
            total += _own_gradients(shape, adapters, tokens, states, frozen_a) if layer in reached else 0.0
        elif layer == reached[0]:
            total += _lowest_backward(shape, adapters, tokens, states, frozen_a)
    return total


def _scored(tokens: float, scored: float | None) -> float:
    return tokens if scored is None else scored


def _rows(target: str, tokens: float, states: float) -> float:
    """Tokens that pass through a matrix: keys and values take all, the others those whose state is wanted."""
    return tokens if target in ("k", "v") else states


def _layer_forward(shape: Shape, adapters: Adapters, tokens: float, states: float) -> float:
    """One layer, which computes the states of ``states`` of its tokens."""
    inside = attention_flops(shape, states, tokens)
    for target in shape.matrices:
        a, b = shape.matrix(target)
        entries = a * b + (adapters.rank * (a + b) if target in adapters.targets else 0)
        inside += 2 * _rows(target, tokens, states) * entries
    return inside


def _layer_backward(shape: Shape, adapters: Adapters, tokens: float, states: float) -> float:
    """Gradients with respect to a layer's activations: each matrix once, attention twice."""
    attention = attention_flops(shape, states, tokens)
    return _layer_forward(shape, adapters, tokens, states) + attention


def _own_gradients(shape: Shape, adapters: Adapters, tokens: float, states: float, frozen_a: bool) -> float:
    """Gradients of A and B themselves."""
    total = 0.0
    for target in adapters.targets:
        a, b = shape.matrix(target)
        total += 2 * _rows(target, tokens, states) * adapters.rank * (b if frozen_a else a + b)
    return total


def _lowest_backward(shape: Shape, adapters: Adapters, tokens: float, states: float, frozen_a: bool) -> float:
    """The lowest trained layer: nothing goes further down than to the first adapted matrices."""
    first = min(_PLACE[t] for t in adapters.targets)
    total = _own_gradients(shape, adapters, tokens, states, frozen_a)
    for target in shape.matrices:
        a, b = shape.matrix(target)
        adapted, rows = target in adapters.targets, 2 * _rows(target, tokens, states)
        if _PLACE[target] > first:
            total += rows * (a * b + (adapters.rank * (a + b) if adapted else 0))
        elif adapted and not frozen_a:
            total += rows * adapters.rank * b
    if first == 0:  # of queries, keys and values those that are not adapted need no gradient
        needless = sum(t not in adapters.targets for t in ("q", "k", "v"))
        total += (2 - needless / 2) * attention_flops(shape, states, tokens)
    return total


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
    """The head: a causal model's vocabulary at each of the tokens, a classifier's outputs once."""
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
    scored: float | None = None,
) -> float:
    """What autograd keeps of one example for the backward pass of the ``layers`` topmost layers, about.

    In a layer: the inputs of two norms and of attention's and the MLP's nonlinear parts, queries, keys,
    values and attention's output, what goes into A and what comes out of it; and the attention weights, which
    fused kernels do not keep. A causal model's scores of its vocabulary come on top: as computed, in float32,
    and their gradient, at ``scored`` tokens (None: at all).
    """
    width = 8 * shape.width + (4 if shape.gated else 2) * shape.inner
    inside = tokens * (width + len(adapters.targets) * adapters.rank)
    kept = shape.width * tokens * layers + inside if checkpointing else layers * inside
    vocabulary = (
        _scored(tokens, scored) * shape.vocabulary * (bytes_each + 8) if shape.family == "llama" else 0.0
    )
    return kept * bytes_each + vocabulary


def scoring_bytes(shape: Shape, tokens: float, bytes_each: int = 4) -> float:
    """What a forward pass without gradients holds at a time, about: one layer's inside, of all tokens."""
    return tokens * (6 * shape.width + 3 * shape.inner) * bytes_each
