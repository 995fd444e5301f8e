"""Example-level DP-SGD of adapters at each client: the step, the ledger, the noise."""

from fedlora_kit.privacy.dpsgd import PerExampleGradients, private_step
from fedlora_kit.privacy.ledger import Ledger
from fedlora_kit.privacy.noise import epsilon_of, noise_multiplier
from fedlora_kit.privacy.settings import PrivacySettings

__all__ = [
    "Ledger",
    "PerExampleGradients",
    "PrivacySettings",
    "epsilon_of",
    "noise_multiplier",
    "private_step",
]
