"""Which clients may be trained in one stack, and which should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.training.lora_stack import why_not_modules

#: clients in one stack, at most: more gained nothing where it was measured, on a CPU (docs/performance.md)
CLIENTS = 8
#: tokens of one client's batch beyond which it is a stack of its own: its matrices are large enough
TOKENS = 1000
#: the same on a GPU, where a pass costs eight times as many tokens (`data.batches`): an estimate
GPU_CLIENTS, GPU_TOKENS = 32, 8000


def limits(device: torch.device) -> tuple[int, float]:
    """Clients in a stack, and tokens of a client that is stacked with others, at most.

    Who is stacked with whom changes a result by rounding only.
    """
    return (CLIENTS, TOKENS) if device.type == "cpu" else (GPU_CLIENTS, GPU_TOKENS)


def why_not_model(model: nn.Module, slot: AdapterSlot, precision: str, private: bool = False) -> str | None:
    """Why no client of this model can be in a stack, not even alone; None if there is no reason.

    Args:
        private: under DP; then an example's gradient under bf16 comes in float32, and is clipped as such.
    """
    if precision == "bf16" and not private:
        return f"precision={precision} rounds a stack in other places than a client alone"
    dropping = [m.p for n, m in model.named_modules() if ".lora_dropout." in n and getattr(m, "p", 0) > 0]
    if dropping:
        return f"LoRA's input has dropout ({dropping[0]:g})"
    if any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        return "gradient checkpointing runs the layers a second time"
    return why_not_modules(model, slot)


def why_not_together(model: nn.Module) -> str | None:
    """Why each client of a model is a stack of its own; None if there is no reason.

    Dropout is one: a stack would draw it for all rows at once, and not as a client does alone.
    """
    dropping = [m.p for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    config: Any = getattr(model, "config", None)
    named = config.to_dict() if hasattr(config, "to_dict") else {}
    rates = {k: v for k, v in named.items() if "drop" in k and isinstance(v, float) and v > 0}
    if dropping or rates:
        return f"the model has dropout ({next(iter(rates), 'dropout')}={[*rates.values(), *dropping][0]:g})"
    return None


def why_not_client(data: EncodedData, present: frozenset[int] | None) -> str | None:
    """Why a client cannot be stacked in a round; None if there is no reason.

    Args:
        present: see `Method.present_layers`.
    """
    if present is not None:
        return "its model lacks layers, and a stack passes through one model"
    if not isinstance(data, (EncodedText, EncodedImages, EncodedCausal)):
        return f"batches of {type(data).__name__} are not put together"
    return None


def tokens_per_example(data: EncodedData, model: nn.Module) -> float:
    """Mean length of a client's examples, tokens; images as the backbone's patches count them."""
    config: Any = getattr(model, "config", None)
    if isinstance(data, EncodedImages) and hasattr(config, "patch_size"):
        return float((config.image_size // config.patch_size) ** 2 + 1)
    return float(np.mean(data.lengths))
