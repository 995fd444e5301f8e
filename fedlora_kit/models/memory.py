"""Ways to fit a large backbone into memory: gradient checkpointing, and 4-bit base weights."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError


def checkpoint_gradients(model: nn.Module) -> nn.Module:
    """Let ``model`` recompute each layer in the backward pass instead of keeping its activations.

    But for a last layer that computes one token's state (`models.first_token`).

    With ``use_reentrant=True``: the other kind runs the layer's forward pass inside the backward pass, past
    the hooks that collect per-example gradients, which are then silently missing. The re-entrant kind needs
    an input that requires a gradient, hence the second call. Gradients are the same.

    Raises:
        FedloraError: the architecture cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise FedloraError(
            f"{type(model).__name__} cannot checkpoint gradients", "set model.gradient_checkpointing=false"
        )
    model.activation_checkpointing_enable({"use_reentrant": True})  # type: ignore[operator]
    model.enable_input_require_grads()  # type: ignore[operator]
    return model


def four_bit_config() -> Any:
    """transformers' configuration for 4-bit NormalFloat base weights, computed in bfloat16.

    Raises:
        FedloraError: no GPU, or bitsandbytes is not installed.
    """
    lacking = []
    if not torch.cuda.is_available():
        lacking.append("a CUDA device")
    if importlib.util.find_spec("bitsandbytes") is None:
        lacking.append("the package bitsandbytes (pip install 'fedlora-kit[gpu]')")
    if lacking:
        raise FedloraError(
            f"4-bit base weights need {' and '.join(lacking)}, not there on this machine",
            "provide what is missing, or set model.load_in_4bit=false and model.dtype=bf16",
        )
    import transformers

    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
