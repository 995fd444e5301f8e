"""What the recipes share: writing a model as a Hugging Face folder, and the learning rate's course."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError

Progress = Callable[[str], None]


def save_backbone(model: nn.Module, config: Any, out: Path) -> None:
    """Write weights (float16 in the file) and configuration (dtype float32: they load as float32)."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, value in model.state_dict().items():
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
