"""What a run asks of differential privacy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedlora_kit.privacy.noise import check_epsilon


class PrivacySettings(BaseModel):
    """Example-level (epsilon, delta)-DP for each client's data, over the whole run.

    Give the target ``epsilon`` (sigma is then searched) or the noise multiplier ``sigma`` itself.

    Attributes:
        epsilon: target over all rounds; positive, and no smaller than can be shown (`noise.check_epsilon`).
        sigma: noise multiplier; the noise on a clipped sum has standard deviation sigma * clip.
        delta: in (0, 1); should be below 1 / (a client's number of examples).
        clip: C, the largest L2 norm of one example's gradient over all trained tensors.
        accountant: "rdp" (default) or "prv" (tighter, slower; refused where it needs too much memory, or
            epsilon is some hundreds).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epsilon: float | None = Field(None, gt=0)
    sigma: float | None = Field(None, ge=0)
    delta: float = Field(1e-5, gt=0, lt=1)
    clip: float = Field(1.0, gt=0)
    accountant: Literal["rdp", "prv"] = "rdp"

    @model_validator(mode="after")
    def _one_of(self) -> PrivacySettings:
        if (self.epsilon is None) == (self.sigma is None):
            raise ValueError("give either epsilon or sigma, not both and not neither")
        if self.epsilon is not None:
            check_epsilon(self.epsilon, self.delta)
        return self
