"""``kit/image-tiny``: a small ViT, pre-trained on the digits of the pre-training part, on one core.

It learns to say which digit an image shows and how it is turned, for upright images and those turned by two
and three quarters, shifted by up to one pixel. The federated task turns other images by one quarter, a pose
that the backbone has never seen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fedlora_kit.data.builtin.digits import digits
from fedlora_kit.errors import FedloraError
from fedlora_kit.pretraining.common import Progress, save_backbone, train

TURNS = (0, 2, 3)


@dataclass(frozen=True)
class Recipe:
    """How ``kit/image-tiny`` is made; ``head_range`` as for the text backbone, ``gate`` the least accuracy
    on upright images outside the pre-training part."""

    layers: int = 4
    hidden: int = 64
    heads: int = 4
    inner: int = 128
    init_range: float = 0.05
    head_range: float = 0.2
    steps: int = 1000
    batch: int = 64
    rate: float = 1e-3
    gate: float = 0.85


def build_image_tiny(
    out: Path, seed: int, progress: Progress, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Pre-train and write the backbone; see :func:`fedlora_kit.pretraining.build.build_backbone`."""
    from transformers import ViTConfig, ViTForImageClassification

    recipe = recipe or Recipe()
    config = ViTConfig(
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.inner,
        image_size=8,
        patch_size=2,
        num_channels=1,
        initializer_range=recipe.init_range,
        num_labels=10 * len(TURNS),
    )
    model = ViTForImageClassification(config)
    images, labels = _turned("pretrain")
    rng = np.random.default_rng(seed)

    def loss_of(_step: int) -> torch.Tensor:
        rows = rng.integers(0, len(labels), recipe.batch)
        shift = tuple(int(s) for s in rng.integers(-1, 2, 2))
        batch = torch.from_numpy(np.roll(images[rows], shift, axis=(2, 3)))
        return F.cross_entropy(
            model(pixel_values=batch).logits, torch.from_numpy(labels[rows]), label_smoothing=0.1
        )

    train(model, recipe.steps, recipe.rate, loss_of, progress, weight_decay=0.05, betas=(0.9, 0.999))
    accuracy = _upright_accuracy(model)
    progress(f"accuracy on upright images it has not seen: {accuracy}")
    if accuracy < recipe.gate:
        raise FedloraError(
            f"the pre-training stayed on its plateau: accuracy {accuracy}, must reach {recipe.gate}",
            "build it with another seed",
        )
    config.initializer_range = recipe.head_range
    config.num_labels = 10
    config.architectures = ["ViTModel"]
    save_backbone(model.vit.state_dict(), config, out)
    parameters = sum(p.numel() for p in model.vit.parameters())
    return {"recipe": asdict(recipe), "upright_accuracy": accuracy, "parameters": parameters}


def _turned(part: str) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]:
    """The part's images in every pose of ``TURNS``; label = 10 * pose + digit."""
    poses = [digits(part, turn) for turn in TURNS]
    labels = [10 * pose + labels for pose, (_, labels) in enumerate(poses)]
    return np.concatenate([images for images, _ in poses]), np.concatenate(labels)


def _upright_accuracy(model: Any) -> float:
    images, labels = digits("test")
    model.eval()
    with torch.no_grad():
        guesses = model(pixel_values=torch.from_numpy(images)).logits[:, :10].argmax(1).numpy()
    model.train()
    return round(float((guesses == labels).mean()), 3)
