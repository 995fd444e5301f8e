"""From a privacy budget to a noise multiplier, and back. The arithmetic is Opacus'."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

from fedlora_kit.errors import BadValue

ACCOUNTANTS = ("rdp", "prv")


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


@lru_cache(maxsize=1024)
def noise_multiplier(
    epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str = "rdp"
) -> float:
    """Smallest noise multiplier, within the search's tolerance, that keeps to (epsilon, delta).

    Args:
        epsilon: target over all steps; positive and finite.
        delta: in (0, 1).
        sample_rate: q = B / n, batch over the examples of one client.
        steps: T = rounds x local steps.
        accountant: "rdp" or "prv".

    Returns:
        sigma: the noise on the sum of clipped gradients has standard deviation sigma * C. Opacus stops
        when epsilon is met to 0.01 from below.

    >>> round(noise_multiplier(6.0, 1e-5, 200 / (67349 / 3), 10_000), 2)  # FFA-LoRA, SST-2, section 5
    0.99
    """
    _check(delta, sample_rate, steps, accountant)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise BadValue(
            f"epsilon={epsilon}", "epsilon is a positive number, such as 6; leave privacy out for none"
        )
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "optimal order is the largest alpha": harmless on the way
        try:
            sigma = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant=accountant,
            )
        except (ValueError, RuntimeError, OverflowError) as error:
            raise BadValue(
                f"no noise multiplier found for epsilon={epsilon} with the {accountant} accountant ({error})",
                "use --accountant rdp, a larger epsilon, or fewer steps",
            ) from error
    return float(sigma)


def epsilon_of(sigma: float, delta: float, sample_rate: float, steps: int, accountant: str = "rdp") -> float:
    """The epsilon that ``steps`` Poisson-sampled Gaussian steps spend; infinite without noise.

    Args: as in `noise_multiplier`.
    """
    _check(delta, sample_rate, steps, accountant)
    return epsilon_of_history(((sigma, sample_rate, steps),), delta, accountant)


@lru_cache(maxsize=4096)
def epsilon_of_history(
    history: tuple[tuple[float, float, int], ...], delta: float, accountant: str = "rdp"
) -> float:
    """Epsilon of a composition of phases, each (sigma, sample rate, steps); 0 for an empty one."""
    from opacus.accountants import create_accountant

    if not history:
        return 0.0
    if any(sigma == 0 for sigma, _, _ in history):
        return math.inf
    book = create_accountant(accountant)
    book.history = list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(book.get_epsilon(delta))
