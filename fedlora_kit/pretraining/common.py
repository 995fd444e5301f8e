"""What the recipes share: the training loop, the learning rate's course, the folder that is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError

Progress = Callable[[str], None]


def train(
    model: nn.Module,
    steps: int,
    rate: float,
    loss_of: Callable[[int], torch.Tensor],
    progress: Progress,
    *,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.98),
) -> float:
    """AdamW in place, gradients cut to norm 1, ten reports of progress.

    Args:
        rate: the largest learning rate; see `cool_down`.
        loss_of: step -> its loss, a scalar.

    Returns:
        The moving average of the loss.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay, betas=betas)
    model.train()
    average = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * cool_down(step, steps)
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        if (step + 1) % max(1, steps // 10) == 0:
            progress(f"step {step + 1} of {steps}: loss {average:.3f}")
    return average


def save_backbone(weights: Mapping[str, torch.Tensor], config: Any, out: Path) -> None:
    """Write weights (float16 in the file) and configuration (dtype float32: they load as float32)."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, value in weights.items():
        half = value.detach().to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise FedloraError(
                f"{key} does not fit into float16", "the pre-training diverged: build it again"
            )
        tensors[key] = half.clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config.dtype = "float32"
    text = json.dumps(json.loads(config.to_json_string(use_diff=False)), indent=1, sort_keys=True)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")


def cool_down(step: int, steps: int, *, warm_up: int = 100, decay: float = 0.4) -> float:
    """Factor of the learning rate: linear warm-up, flat, linear decay to 2 % over the last ``decay``."""
    left = (steps - step) / (steps * decay)
    return min(1.0, (step + 1) / warm_up) * max(0.02, min(1.0, left))
