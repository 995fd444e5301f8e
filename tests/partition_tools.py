"""What the tests of the partitioners share: labels, strategies, and the check of a complete split."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

LABELS = np.random.default_rng(0).integers(0, 4, 400)
labels_strategy = st.integers(1, 6).flatmap(
    lambda classes: st.lists(st.integers(0, classes - 1), min_size=1, max_size=120).map(np.array)
)
seeds = st.integers(0, 2**32)


def check_cover(parts, labels, clients):
    assert len(parts) == clients
    together = np.concatenate(parts)
    assert np.array_equal(np.sort(together), np.arange(len(labels))), "every example once"
    for part in parts:
        assert part.dtype == np.int64
        assert part.size > 0
        assert (np.diff(part) > 0).all(), "sorted"
