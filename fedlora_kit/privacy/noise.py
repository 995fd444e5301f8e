"""From a privacy budget to a noise multiplier, and back."""

from __future__ import annotations

import math
from decimal import ROUND_UP, Context
from functools import lru_cache

from fedlora_kit.errors import BadValue
from fedlora_kit.privacy.prv import prv_epsilon
from fedlora_kit.privacy.renyi import LARGEST, rdp_epsilon

ACCOUNTANTS = ("rdp", "prv")
#: sigma is found to so many significant digits, rounded up
DIGITS = 6
#: no noise multiplier outside is tried
LEAST, MOST = 1e-6, 1e9


def _check(delta: float, sample_rate: float, steps: int, accountant: str) -> None:
    if not 0 < delta < 1:
        raise BadValue(f"delta={delta}", "delta is a probability: between 0 and 1, below 1/examples")
    if not 0 < sample_rate <= 1:
        raise BadValue(
            f"sample_rate={sample_rate}",
            "the sample rate is batch / examples of one client: over 0, at most 1",
        )
    if steps < 1:
        raise BadValue(f"steps={steps}", "steps is rounds x local steps: at least 1")
    if accountant not in ACCOUNTANTS:
        raise BadValue(f"accountant={accountant!r}", f"choose one of {', '.join(ACCOUNTANTS)}")


def check_epsilon(epsilon: float, delta: float) -> None:
    """Refuse a target that no accountant here can keep to, whatever the noise.

    Raises:
        BadValue: not positive, not finite, or below 2 log(1/delta) / 10,000 (0.0023 at delta = 1e-5), which
            asks for orders beyond the largest.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise BadValue(
            f"epsilon={epsilon}", "epsilon is a positive number, such as 6; leave privacy out for none"
        )
    least = -2 * math.log(delta) / LARGEST
    if epsilon < least:
        raise BadValue(
            f"epsilon={epsilon:g} is smaller than can be shown at delta={delta:g}",
            f"use an epsilon of {least:.2g} or more",
        )


@lru_cache(maxsize=1024)
def noise_multiplier(
    epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str = "rdp"
) -> float:
    """Smallest noise multiplier, to six digits, that keeps to (epsilon, delta) by the accountant.

    It is rounded up: `epsilon_of` with it is never above the target, and within 1 % of it (by "prv" 3 %).

    Args:
        epsilon: target over all steps; positive and finite.
        delta: in (0, 1).
        sample_rate: q = B / n, batch over the examples of one client.
        steps: T = rounds x local steps.
        accountant: "rdp" or "prv".

    Returns:
        sigma: the noise on the sum of clipped gradients has standard deviation sigma * C.

    Raises:
        BadValue: an impossible budget (see `check_epsilon`), or one that "prv" cannot account for.

    >>> round(noise_multiplier(6.0, 1e-5, 200 / (67349 / 3), 10_000), 2)  # FFA-LoRA, SST-2, section 5
    0.99
    """
    _check(delta, sample_rate, steps, accountant)
    check_epsilon(epsilon, delta)
    from scipy.optimize import brentq

    def over(sigma: float) -> float:
        """Log of the epsilon that sigma spends over the target."""
        return math.log(max(epsilon_of(sigma, delta, sample_rate, steps, accountant) / epsilon, 1e-9))

    # prv's is a little below that by rdp
    high = 1.0 if accountant == "rdp" else noise_multiplier(epsilon, delta, sample_rate, steps)
    low = high / 2
    while over(high) > 0:
        low, high = high, 2 * high
        if high > MOST:
            raise BadValue(
                f"epsilon={epsilon:g} in {steps} steps asks for a noise multiplier above {MOST:g}",
                "use a larger epsilon, or fewer steps",
            )
    while over(low) <= 0:
        low, high = low / 2, low
        if low < LEAST:
            raise BadValue(
                f"epsilon={epsilon:g} asks for a noise multiplier below {LEAST:g}",
                "use a smaller epsilon; leave privacy out for none",
            )
    root = brentq(lambda log_sigma: over(math.exp(log_sigma)), math.log(low), math.log(high), xtol=1e-8)
    sigma = _rounded_up(math.exp(root))
    while over(sigma) > 0:  # the root may lie on either side
        sigma = _rounded_up(sigma * (1 + 0.1**DIGITS))
    return sigma


def _rounded_up(sigma: float) -> float:
    return float(Context(prec=DIGITS, rounding=ROUND_UP).create_decimal_from_float(sigma))


def epsilon_of(sigma: float, delta: float, sample_rate: float, steps: int, accountant: str = "rdp") -> float:
    """The epsilon that ``steps`` Poisson-sampled Gaussian steps spend; infinite without noise.

    Args: as in `noise_multiplier`.
    """
    _check(delta, sample_rate, steps, accountant)
    if not sigma >= 0:
        raise BadValue(f"sigma={sigma}", "the noise multiplier is a number from 0 on")
    return epsilon_of_history(((sigma, sample_rate, steps),), delta, accountant)


@lru_cache(maxsize=4096)
def epsilon_of_history(
    history: tuple[tuple[float, float, int], ...], delta: float, accountant: str = "rdp"
) -> float:
    """Epsilon of a composition of phases, each (sigma, sample rate, steps); 0 for an empty one, never below.

    Raises:
        BadValue: see `prv.prv_epsilon`.
    """
    if not history:
        return 0.0
    if any(sigma == 0 for sigma, _, _ in history):
        return math.inf
    return prv_epsilon(history, delta) if accountant == "prv" else rdp_epsilon(history, delta)[0]
