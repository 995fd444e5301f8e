"""Which part of a GPU's memory a run gets."""

from __future__ import annotations

import math

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.planning.estimate import estimate

_HEADROOM = 1.2  # over the estimate: allocators keep more than they use
_SMALLEST_SHARE = 0.125  # more processes a GPU only wait for each other


def memory_bytes(spec: RunSpec) -> int | None:
    """Memory of a GPU that a run takes, in bytes: its estimate and 1 GiB for libraries; None if unknown."""
    try:
        return int(estimate(spec, gpu=True).memory_bytes) + (1 << 30)
    except FedloraError:
        return None


def share_of_gpu(needed: int | None, card: int | None) -> float:
    """Which part of a GPU with ``card`` bytes a run that takes ``needed`` gets: 0.125 to 1, in hundredths.

    1 where either is unknown, and for a run that is larger than the card.
    """
    if needed is None or not card:
        return 1.0
    return min(1.0, max(_SMALLEST_SHARE, math.ceil(100 * _HEADROOM * needed / card) / 100))
