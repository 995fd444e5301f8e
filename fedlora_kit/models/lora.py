"""LoRA on a backbone, and an explicit policy for the classification head.

W = W0 + (alpha / r) B A, A of shape (r, in), B of shape (out, r); A random, B zero at the start
(Hu et al. 2022). A's start is drawn from its own seed, so that every client begins with the same A.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from fedlora_kit.models.init_of_a import InitOfA, draw_a
from fedlora_kit.models.targets import head_modules, is_transposed, lora_targets

#: frozen: random and never trained (FFA-LoRA, section 5); aggregated: trained, sent and averaged;
#: personal: trained and kept by each client.
HeadPolicy = Literal["frozen", "aggregated", "personal"]


class LoraSettings(BaseModel):
    """The shape of the adapter.

    Attributes:
        rank: r, at least 1.
        alpha: the product BA is scaled by alpha / rank.
        dropout: probability on LoRA's input.
        targets: the adapted modules by their role, by name, or "all-linear" (see `targets.lora_targets`).
        head: what happens to the classification head.
        init: start of A, "kaiming", "orthogonal" or "svd" (see `models.init_of_a`).
        use_dora: DoRA (arXiv 2402.09353): each output of W0 + BA is normalised, and a magnitude vector of one
            entry an output trains beside A and B, where the method lets it. Not under DP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(8, ge=1)
    alpha: float = Field(8.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q", "k", "v", "o")
    head: HeadPolicy = "frozen"
    init: InitOfA = "kaiming"
    use_dora: bool = False

    @field_validator("targets", mode="before")
    @classmethod
    def _one_target(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given  # "all-linear", as PEFT takes it


def attach_lora(model: nn.Module, settings: LoraSettings, seed: int) -> nn.Module:
    """Put LoRA on ``model`` and freeze everything else but (by policy) the head.

    Args:
        model: a transformer.
        seed: seed of A's initial values.

    Returns:
        The PEFT model; it shares ``model``'s tensors.

    Raises:
        FedloraError: see `lora_targets`.
        BadValue: see `init_of_a.draw_a`.
    """
    from peft import LoraConfig, get_peft_model

    names = lora_targets(model, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
        fan_in_fan_out=any(is_transposed(model.get_submodule(name)) for name in names),
        bias="none",
        use_dora=settings.use_dora,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT asks transformers under a name that transformers has retired; nothing a user can do about
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        torch.manual_seed(seed)
        adapted: nn.Module = get_peft_model(model, config)  # type: ignore[arg-type]
    if settings.init != "kaiming":  # PEFT's default
        draw_a(adapted, settings.init, seed)
    if settings.head != "frozen":
        for part in head_modules(model):
            getattr(model, part).requires_grad_(True)
    return adapted
