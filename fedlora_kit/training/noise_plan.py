"""Which noise each client adds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from fedlora_kit.privacy.noise import noise_multiplier
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.local import Noise


def noise_of_clients(
    privacy: PrivacySettings | None, sizes: Sequence[int], batch_size: int, steps: int
) -> list[Noise] | None:
    """The noise of each client, or None without DP.

    One sigma serves all: the one that the smallest client needs (its sampling rate q = B / n_k is the
    largest), so that every client stays within the target. Each client is charged as if it were drawn in
    every round.

    Args:
        sizes: examples of each client, n_k.
        batch_size: B, the expected number of examples a step.
        steps: T = rounds x local steps.

    Warns:
        UserWarning: delta >= 1 / n_k for some client: the guarantee would then allow giving away a
            whole example.
    """
    if privacy is None:
        return None
    if privacy.delta >= 1 / max(sizes):
        warnings.warn(
            f"delta={privacy.delta:g} is not below 1/n for a client with n={max(sizes)} examples; "
            "the rule is delta < 1/n (better: much smaller)",
            stacklevel=2,
        )
    rates = [min(1.0, batch_size / n) for n in sizes]
    sigma = privacy.sigma
    if sigma is None:
        assert privacy.epsilon is not None
        sigma = noise_multiplier(privacy.epsilon, privacy.delta, max(rates), steps, privacy.accountant)
    return [Noise(sigma, privacy.clip, q) for q in rates]
