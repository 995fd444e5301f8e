"""How clients train, and how rounds follow each other."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LocalSettings(BaseModel):
    """One client's training within a round.

    Attributes:
        optimizer: "sgd" or "adamw"; its state is fresh for each client and round.
        lr: learning rate of round 0.
        lr_decay: the rate of round t is lr * lr_decay ** t.
        momentum: SGD only.
        weight_decay: as the optimiser defines it.
        steps: optimiser steps a round.
        batch_size: examples a step (under DP the expected number, B = q n).
        clip_norm: largest norm of the gradient of a batch without DP; None for no clipping.
        max_tokens: padded tokens a physical batch; changes memory and speed, not the result beyond
            rounding.
        stack: "auto" trains clients with small batches together, in one pass over the backbone (see
            `training.cohort`), "never" trains them one after the other, "always" together or not at all;
            changes speed and memory, not the result beyond rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(gt=0)
    lr_decay: float = Field(1.0, gt=0, le=1)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    steps: int = Field(10, ge=1)
    batch_size: int = Field(32, ge=1)
    clip_norm: float | None = Field(None, gt=0)
    max_tokens: int = Field(4096, ge=1)
    stack: Literal["auto", "never", "always"] = "auto"

    @model_validator(mode="after")
    def _momentum_is_sgd(self) -> LocalSettings:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError("momentum belongs to sgd; adamw has betas of its own")
        return self

    @property
    def optimizer_states(self) -> int:
        """Numbers that the optimiser keeps for each trained parameter."""
        return 2 if self.optimizer == "adamw" else int(self.momentum > 0)

    def rate(self, round_index: int) -> float:
        """Learning rate of a round, counted from 0."""
        return self.lr * self.lr_decay**round_index


class FederationSettings(BaseModel):
    """The rounds.

    Attributes:
        rounds: number of rounds.
        cohort: clients drawn a round, without replacement; None takes all.
        eval_every: evaluate after every so many rounds, and always after the last; 0 for the last only.
        eval_max_tokens: padded tokens a batch when evaluating.
        measure_gap: record each round's `methods.aggregation_gap` in the history.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = Field(10, ge=1)
    cohort: int | None = Field(None, ge=1)
    eval_every: int = Field(1, ge=0)
    eval_max_tokens: int = Field(8192, ge=1)
    measure_gap: bool = False

    def evaluates(self, round_index: int) -> bool:
        """Whether an evaluation follows round ``round_index`` (counted from 0)."""
        last = round_index == self.rounds - 1
        return last or (self.eval_every > 0 and (round_index + 1) % self.eval_every == 0)
