"""A lower bound on epsilon from the outside: the audit in one run of Steinke, Nasr and Jagielski (2023).

Each of m canaries is put into the training data or left out by a fair coin of its own. The training runs
once. Whoever sees what it releases guesses some of the coins. A training that is (epsilon, delta)-DP lets
nobody guess well, so many right guesses refute a small epsilon, at a stated confidence. The other way round
nothing follows: few right guesses may also mean a weak attack ("Privacy auditing with one (1) training run",
NeurIPS 2023, arXiv 2305.08846).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue

Floats = npt.NDArray[np.float64]
_STEP = 0.05  # in epsilon, of the first search; then bisection


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        canaries: m, coins thrown.
        guesses: r, coins guessed.
        correct: v, guesses that were right.
        delta: the delta of the claim that was tested.
        confidence: an (epsilon, delta)-DP training gives ``epsilon_lower`` > epsilon with a probability of at
            most 1 - confidence.
        epsilon_lower: the lower bound on epsilon.
    """

    canaries: int
    guesses: int
    correct: int
    delta: float
    confidence: float
    epsilon_lower: float


def p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Largest probability of ``correct`` or more right guesses under (epsilon, delta)-DP.

    Theorem 5.2 of the paper: with W ~ Binomial(r, e^epsilon / (1 + e^epsilon)),

        P[at least v right] <= P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i,    i = 1 ... m.

    Terms beyond i = v add nothing to the probability, so i = 1 ... v is enough.

    Args:
        correct, guesses, canaries: v <= r <= m.
        epsilon: 0 or more.
        delta: in [0, 1].

    >>> p_value(2, 2, 2, math.log(3), 0.0)  # two coins of 3/4 each
    0.5625
    """
    from scipy.stats import binom

    _check(correct, guesses, canaries, delta)
    if not epsilon >= 0:
        raise BadValue(f"epsilon={epsilon}", "0 or more")
    hit = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, hit))
    if correct == 0 or delta == 0:
        return min(1.0, tail)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, hit))  # P[v > W >= v - i]
    worst = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * worst)


def lower_bound(correct: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """The smallest epsilon that so many right guesses do not refute; 0 if they refute none.

    An (epsilon, delta)-DP training gets a bound above its epsilon with a probability of at most
    1 - confidence. With all of r guesses right and delta = 0 the bound is log(p / (1 - p)) with
    p = (1 - confidence)^(1/r): the most that r guesses can show.

    >>> round(lower_bound(512, 512, 1024, 0.0), 2)
    5.14
    """
    _check(correct, guesses, canaries, delta)
    if not 0 < confidence < 1:
        raise BadValue(f"confidence={confidence}", "a probability between 0 and 1, such as 0.95")

    def refuted(epsilon: float) -> bool:
        return p_value(correct, guesses, canaries, epsilon, delta) <= 1 - confidence

    low, high = 0.0, _STEP
    if not refuted(low):
        return 0.0
    while refuted(high):  # upwards step by step: the first that is not refuted, whatever comes behind it
        low, high = high, high + _STEP
        if high > 50:  # delta = 0 and correct > 0 always end before
            return low
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def guessed(scores: Floats, each: int) -> npt.NDArray[np.int8]:
    """Guesses of the coins, (m,): 1 ("in") for the ``each`` largest scores, -1 for the smallest, 0 for none.

    How many are guessed must be settled before the scores are seen.

    Raises:
        BadValue: more guesses than scores, or a score that is NaN.
    """
    if each < 1 or 2 * each > len(scores):
        raise BadValue(f"{each} guesses of either kind for {len(scores)} canaries", "at most half of them")
    if np.isnan(scores).any():
        raise BadValue("a score is NaN", "the training diverged: there is nothing to audit")
    order = np.argsort(scores, kind="stable")
    out = np.zeros(len(scores), dtype=np.int8)
    out[order[:each]] = -1
    out[order[-each:]] = 1
    return out


def audit(
    scores: Floats, included: npt.NDArray[np.bool_], each: int, delta: float, confidence: float = 0.95
) -> Audit:
    """Guess, count, bound.

    Args:
        scores: (m,), larger for canaries that look included.
        included: (m,), how the coins really fell.
        each: guesses of either kind, settled beforehand; see `guessed`.
    """
    if scores.shape != included.shape:
        raise BadValue(f"{scores.shape} scores for {included.shape} canaries", "one score a canary")
    guess = guessed(scores, each)
    correct = int(((guess == 1) & included).sum() + ((guess == -1) & ~included).sum())
    bound = lower_bound(correct, 2 * each, len(scores), delta, confidence)
    return Audit(len(scores), 2 * each, correct, delta, confidence, bound)


def log_likelihood_ratio(seen: Floats, sigma: float, sample_rate: float) -> Floats:
    """The best score for a Poisson-sampled Gaussian mechanism: log P(seen | in) - log P(seen | out), summed.

    Args:
        seen: (T, m), what every step shows of every canary, in units of the clipping norm: around 1 in the
            steps that sampled it and around 0 in the others, with noise of standard deviation sigma.
        sigma: noise multiplier, over 0.
        sample_rate: q.

    Returns:
        (m,).
    """
    if not sigma > 0 or not 0 < sample_rate <= 1:
        raise BadValue(f"sigma={sigma}, sample_rate={sample_rate}", "sigma over 0, sample_rate in (0, 1]")
    ratio = (2 * seen - 1) / (2 * sigma**2)
    if sample_rate == 1:
        return np.asarray(ratio.sum(0))
    mixed = np.logaddexp(math.log1p(-sample_rate), math.log(sample_rate) + ratio)
    return np.asarray(mixed.sum(0))


def _check(correct: int, guesses: int, canaries: int, delta: float) -> None:
    if not 0 <= correct <= guesses <= canaries:
        raise BadValue(
            f"{correct} correct of {guesses} guesses about {canaries} canaries",
            "whole numbers, none larger than the next",
        )
    if not 0 <= delta <= 1:
        raise BadValue(f"delta={delta}", "a probability: between 0 and 1")
