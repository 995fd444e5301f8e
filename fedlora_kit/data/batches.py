"""Which examples make a logical batch, and how a logical batch is cut into physical ones.

A logical batch is what one optimiser step sees. It is sorted by length and cut into physical batches
that fit a budget of padded tokens: exact, because a sum of per-example gradients does not depend on
the order, and cheap, because little padding is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from fedlora_kit.errors import BadValue

Indices = npt.NDArray[np.int64]

#: what a further pass through a model costs, in tokens, on a CPU: measured at width 128, less when wider
PASS_TOKENS = 256
#: the same on a GPU: a pass of RoBERTa-large takes the host some 25 ms of launches, in which an H200 computes
#: 2,000 tokens and more (an estimate by counted kernels and assumed rates)
GPU_PASS_TOKENS = 2000


def shuffled_batches(n: int, batch_size: int, steps: int, rng: np.random.Generator) -> Iterator[Indices]:
    """``steps`` logical batches of ``min(batch_size, n)`` distinct examples each.

    Examples come in passes over the data: none is seen again before all have been seen, except where
    a batch spans two passes (then the new pass begins with examples that the batch does not hold yet).

    >>> [b.tolist() for b in shuffled_batches(4, 2, 2, np.random.default_rng(0))]
    [[0, 2], [1, 3]]
    """
    if n < 1 or batch_size < 1 or steps < 0:
        raise BadValue(
            f"cannot cut {steps} batches of {batch_size} from {n} examples", "use positive numbers"
        )
    size = min(batch_size, n)
    queue = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(queue) < size:
            fresh = rng.permutation(n)
            seen = np.isin(fresh, queue)
            queue = np.concatenate([queue, fresh[~seen], fresh[seen]])
        batch, queue = queue[:size], queue[size:]
        yield np.sort(batch)


def poisson_batches(n: int, sample_rate: float, steps: int, seed: int) -> Iterator[Indices]:
    """``steps`` Poisson samples: each example is in a batch independently with ``sample_rate``.

    This is the sampling that the privacy accountant assumes; batches differ in size and may be empty.
    Drawn by Opacus' own sampler.
    """
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    generator = torch.Generator().manual_seed(seed)
    sampler = UniformWithReplacementSampler(
        num_samples=n, sample_rate=sample_rate, generator=generator, steps=steps
    )
    for batch in sampler:
        yield np.asarray(batch, dtype=np.int64)


def pass_tokens(device: torch.device) -> int:
    """The price of a pass on a device. How batches are cut changes a result by rounding only."""
    return PASS_TOKENS if device.type == "cpu" else GPU_PASS_TOKENS


def physical_batches(
    lengths: npt.NDArray[np.int64], indices: Indices, max_tokens: int, price: int = PASS_TOKENS
) -> list[Indices]:
    """Cut a logical batch into physical ones of at most ``max_tokens`` padded tokens.

    Args:
        lengths: cost of every example of the data set, in tokens.
        indices: the logical batch; empty gives no physical batch.
        max_tokens: budget for (examples × longest example); an example longer than that gets a
            batch to itself.
        price: of a further pass, in tokens: `pass_tokens` of the device.
    """
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    return [order[start:stop] for start, stop in cuts(lengths[order], max_tokens, price=price)]


def cuts(
    lengths: npt.NDArray[np.int64], max_tokens: int, rows: int = 1, price: int = PASS_TOKENS
) -> list[tuple[int, int]]:
    """Where to cut places of descending length: within the budget, and where it saves more than it costs.

    A cut costs a further pass through the model, as much as ``price`` tokens; it saves the padding of what
    comes after it.

    Args:
        lengths: tokens of each place, descending.
        max_tokens: budget for (rows × places × longest) of a piece; at least one place is in each.
        rows: examples at each place.

    Returns:
        (first, behind the last) of each piece.

    >>> cuts(np.array([40, 40, 9, 9, 9, 9, 9, 9, 9, 9, 9]), 4096)
    [(0, 2), (2, 11)]
    >>> cuts(np.array([40, 40, 9, 9]), 4096)
    [(0, 4)]
    >>> cuts(np.array([40, 40, 9, 9, 9, 9, 9, 9, 9, 9, 9]), 4096, price=2000)
    [(0, 11)]
    """
    pieces: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        longest = max(1, int(lengths[start]))
        stop = min(len(lengths), start + max(1, max_tokens // (rows * longest)))
        while stop - start > 1:
            places = np.arange(start + 1, stop)
            saved = rows * (stop - places) * (longest - lengths[places])
            best = int(saved.argmax())
            if saved[best] <= price:
                break
            stop = int(places[best])
        pieces.append((start, stop))
        start = stop
    return pieces
