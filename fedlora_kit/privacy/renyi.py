"""Rényi differential privacy of the Poisson-sampled Gaussian mechanism: the accountant "rdp".

One step takes each example with probability q and adds N(0, sigma^2) to the clipped sum (C = 1). With
mu0 = N(0, sigma^2) and mu = (1 - q) mu0 + q N(1, sigma^2) the moment of order a is A_a = E_mu0[(mu / mu0)^a],
and T steps have RDP of order a of T log(A_a) / (a - 1) (Mironov, Talwar and Zhang 2019, section 3.3).

Opacus computes the same moments, at fixed orders up to 63. The best order may be any number: some 5,500 at
epsilon = 0.01 and delta = 1e-12. From 1,030 on Opacus' whole orders overflow, and its fractional ones are
right near 1 alone, and slow for a large q. So the order is searched here, and the moments are summed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

#: phases, each (sigma, sampling rate q, steps T), sigma over 0
History = Sequence[tuple[float, float, int]]

#: orders that are tried, less 1
SMALLEST: Final = 1e-3
LARGEST: Final = 1e4
#: from here on orders are whole ones
WHOLE: Final = 100
GOLDEN: Final = (math.sqrt(5) - 1) / 2
#: below this sigma the moments are bounded by convexity, which costs a few per cent of epsilon at most
TINY: Final = 0.02


def rdp_epsilon(history: History, delta: float) -> tuple[float, float]:
    """The smallest epsilon at ``delta`` of a composition of phases, and the order that gives it.

    The conversion is that of Balle et al. 2020 (Hypothesis testing interpretations and Rényi differential
    privacy, theorem 21), as in Opacus. It may fall below 0, where delta alone is more than enough: epsilon is
    0 then. Any order gives a true bound. A bound times (a - 1) is convex in a, so that there is one smallest.
    """

    def bound(log_a_minus_1: float) -> float:
        a = _order(log_a_minus_1)
        spent = sum(t * log_moment(sigma, q, a) for sigma, q, t in history)
        return (spent - math.log(delta) - math.log(a)) / (a - 1) + math.log1p(-1 / a)

    low, high = math.log(SMALLEST), math.log(LARGEST)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = bound(left), bound(right)
    while high - low > 1e-3:  # golden section: the curve has a kink, where a parabola is led astray
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = bound(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = bound(right)
    best, at = min((at_left, left), (at_right, right))
    return max(0.0, best), _order(at)


def _order(log_a_minus_1: float) -> float:
    a = 1 + math.exp(log_a_minus_1)
    return a if a < WHOLE else float(round(a))


@lru_cache(maxsize=4096)
def log_moment(sigma: float, q: float, a: float) -> float:
    """log A_a, or an upper bound on it (`TINY`).

    Args:
        sigma: noise multiplier, over 0.
        q: sampling rate, over 0, at most 1.
        a: order, over 1; a whole number from `WHOLE` on.
    """
    unsampled = a * (a - 1) / (2 * sigma**2)
    if q == 1:
        return unsampled
    if sigma < TINY:  # A_a is convex in mu: at most (1 - q) + q times that without sampling
        return float(np.logaddexp(math.log1p(-q), math.log(q) + unsampled))
    log_less_1 = _by_binomials(sigma, q, round(a)) if a >= WHOLE else _by_quadrature(sigma, q, a)
    return float(np.logaddexp(0.0, log_less_1))


def _by_quadrature(sigma: float, q: float, a: float) -> float:
    """log(A_a - 1). With y = mu / mu0 - 1, whose mean is 0, it is the mean of (1 + y)^a - 1 - a y.

    That is nowhere negative, so that nothing is lost where A_a is next to 1. The trapezoidal rule converges
    faster than any power: the integrand is analytic but for branch points pi sigma^2 away from the real axis.
    """
    step = min(0.25, 0.8 * sigma)  # in units of sigma
    t = np.arange(-9.0, max(2.0, a) / sigma + 9, step)
    w = t / sigma - 1 / (2 * sigma**2)  # log(N(1, sigma^2) / N(0, sigma^2)) at x = sigma t
    near = np.log1p(q * np.expm1(np.minimum(w, 30)))
    log_1_y = np.where(w < 30, near, np.logaddexp(math.log1p(-q), math.log(q) + w))
    # (1 + y)^a - 1 - a y, divided by (1 + y)^a where y > 0, so that nothing overflows
    up, down = np.maximum(log_1_y, 0), np.minimum(log_1_y, 0)
    above = (a - 1) * np.expm1(-a * up) - a * np.expm1(-(a - 1) * up)
    below = np.expm1(a * down) - a * np.expm1(down)
    with np.errstate(divide="ignore"):
        logs = a * up + np.log(np.maximum(above + below, 0)) - t**2 / 2
    return _log_sum(logs) + math.log(step / math.sqrt(2 * math.pi))


def _by_binomials(sigma: float, q: float, a: int) -> float:
    """log(A_a - 1), the mean of exp(i (i - 1) / (2 sigma^2)) - 1 over i from Binomial(a, q)."""
    from scipy.special import gammaln

    i = np.arange(2.0, a + 1)
    x = i * (i - 1) / (2 * sigma**2)
    ways = gammaln(a + 1) - gammaln(i + 1) - gammaln(a - i + 1)
    logs = ways + i * math.log(q) + (a - i) * math.log1p(-q) + x + np.log(-np.expm1(-x))
    return _log_sum(logs)


def _log_sum(logs: npt.NDArray[np.float64]) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))
