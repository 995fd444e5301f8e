"""What would settle an undecided comparison: so many seeds, or none that can be had.

Seeds that are added are looked at in the next look, at its level (`sequential`).
"""

from __future__ import annotations

from collections.abc import Callable

from fedlora_kit.randomness import MOST_SEEDS
from fedlora_kit.study.sequential import interval_name
from fedlora_kit.study.statistics import SpreadRatio, half_width, ratio_interval


def what_decides_mean(sd: float, distance: float, bound: str) -> str:
    """For Student's interval of a mean over seeds.

    Args:
        sd: of one seed's value.
        distance: of the mean from the bound that the interval has to leave.
        bound: in words.
    """
    least = f"the difference is within {half_width(sd, MOST_SEEDS, 1):.2g} of {bound}"
    return _what_decides(lambda seeds: half_width(sd, seeds, 1) < distance, least)


def what_decides_spread(ratio: SpreadRatio, cells: int) -> str:
    """For the interval of a ratio of standard deviations, each pooled over ``cells``."""

    def interval(f: float, seeds: int) -> tuple[float, float]:
        return ratio_interval(f, (seeds - 1) * cells, (seeds - 1) * cells, 1)

    def decided(seeds: int) -> bool:
        lower, upper = interval(ratio.f, seeds)
        return lower > 1 or upper < 1

    lower, upper = interval(1.0, MOST_SEEDS)
    return _what_decides(decided, f"the ratio lies within {lower:.3g} to {upper:.3g}")


def _what_decides(decided: Callable[[int], bool], smallest: str) -> str:
    """In words for a verdict's reason.

    It is a forecast from the mean and the spread that were seen, which the next seeds may change.

    Args:
        decided: whether an interval over so many seeds, with that mean and spread, would settle it; once true
            it stays true for more.
        smallest: what is known of the effect where not even the most seeds would do.
    """
    if not decided(MOST_SEEDS):
        return f"not even {MOST_SEEDS} seeds would decide it: {smallest}"
    below, enough = 1, MOST_SEEDS
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if decided(middle) else (middle, enough)
    return f"with this mean and spread {enough} seeds would decide it ({interval_name(1)})"
