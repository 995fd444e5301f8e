"""Which examples make a logical batch, and how a logical batch is cut into physical ones.

A logical batch is what one optimiser step sees. It is sorted by length and cut into physical batches
that fit a budget of padded tokens: exact, because a sum of per-example gradients does not depend on
the order, and cheap, because little padding is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue

Indices = npt.NDArray[np.int64]


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
    import torch
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    generator = torch.Generator().manual_seed(seed)
    sampler = UniformWithReplacementSampler(
        num_samples=n, sample_rate=sample_rate, generator=generator, steps=steps
    )
    for batch in sampler:
        yield np.asarray(batch, dtype=np.int64)


def physical_batches(lengths: npt.NDArray[np.int64], indices: Indices, max_tokens: int) -> list[Indices]:
    """Cut a logical batch into physical ones of at most ``max_tokens`` padded tokens.

    Args:
        lengths: cost of every example of the data set, in tokens.
        indices: the logical batch; empty gives no physical batch.
        max_tokens: budget for (examples × longest example); an example longer than that gets a
            batch to itself.
    """
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        size = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches
