"""What the tests of the partitioners share: labels, strategies, and the check of a complete split."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fedlora_kit.conformance.partitions import LABELS, is_a_partition

__all__ = ["LABELS", "check_cover", "labels_strategy", "seeds"]

labels_strategy = st.integers(1, 6).flatmap(
    lambda classes: st.lists(st.integers(0, classes - 1), min_size=1, max_size=120).map(np.array)
)
seeds = st.integers(0, 2**32)


def check_cover(parts, labels, clients):
    is_a_partition(parts, len(labels), clients)
