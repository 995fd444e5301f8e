"""``kit/image-mirror``: a small ViT, pre-trained on half of CIFAR-100's classes, for machines without a Hub.

It learns to name the classes 0 to 49 of the training split that the mirror (or the Hub) holds, with labels,
from images that are shifted and mirrored. The federated task ``cifar100_rest`` is on the classes 50 to 99: it
shares with the pre-training no class and no image. On the task ``cifar100`` this backbone would have seen
half of the training images with their labels; use it for ``cifar100_rest`` only.

A few thousand small images and a few minutes of one core are little for a ViT. What helps: the patch
embedding starts at the patches' principal components, scaled to equal variance, and queries and keys start
equal (mimetic initialisation, Trockman and Kolter 2023).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fedlora_kit.data.encoded import EncodedImages, encode_images, for_training
from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.data.sources import load_split
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.targets import lora_targets
from fedlora_kit.pretraining.common import Progress, cool_down, save_backbone

CLASSES = tuple(range(50))
SIDE = 32


@dataclass(frozen=True)
class Recipe:
    """How ``kit/image-mirror`` is made; ``head_range`` as for the text backbone, ``gate`` the least accuracy
    on the test images of the classes it learned (chance: .02)."""

    patch: int = 4
    layers: int = 4
    hidden: int = 96
    heads: int = 4
    inner: int = 192
    init_range: float = 0.05
    head_range: float = 0.2
    attention_range: float = 0.1
    steps: int = 1800
    batch: int = 32
    rate: float = 1.5e-3
    gate: float = 0.15


def build_image_mirror(
    out: Path, seed: int, progress: Progress, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Pre-train and write the backbone; see :func:`fedlora_kit.pretraining.build.build_backbone`."""
    from transformers import ViTConfig, ViTForImageClassification

    recipe = recipe or Recipe()
    wanted = ImageInput(SIDE, 3, tokens=(SIDE // recipe.patch) ** 2 + 1)
    train, test = _seen("train", wanted), _seen("test", wanted)
    config = ViTConfig(
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.inner,
        image_size=SIDE,
        patch_size=recipe.patch,
        num_channels=3,
        initializer_range=recipe.init_range,
        num_labels=len(CLASSES),
    )
    model = ViTForImageClassification(config)
    _start(model, train, recipe)
    rng = np.random.default_rng(seed)
    views = for_training(dataclasses.replace(train, augment="crop_flip"), rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.05, betas=(0.9, 0.98))
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * cool_down(step, recipe.steps)
        inputs, labels = views.batch(rng.integers(0, len(train), recipe.batch), torch.device("cpu"))
        loss = F.cross_entropy(model(**inputs).logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0:
            progress(f"step {step + 1} of {recipe.steps}: loss {loss.item():.3f}")
    accuracy = _accuracy(model, test)
    progress(f"accuracy on test images of the {len(CLASSES)} classes it learned: {accuracy}")
    if accuracy < recipe.gate:
        raise FedloraError(
            f"the pre-training stayed on its plateau: accuracy {accuracy}, must reach {recipe.gate}",
            "build it with another seed, or from more images",
        )
    config.initializer_range = recipe.head_range
    config.num_labels = 10
    config.architectures = ["ViTModel"]
    save_backbone(model.vit, config, out)
    colours = {"image_mean": list(wanted.mean), "image_std": list(wanted.std)}
    (out / "preprocessor_config.json").write_text(json.dumps(colours) + "\n", encoding="utf-8")
    parameters = sum(p.numel() for p in model.vit.parameters())
    return {
        "recipe": asdict(recipe),
        "images": len(train),
        "test_accuracy": accuracy,
        "parameters": parameters,
    }


def _seen(split: str, wanted: ImageInput) -> EncodedImages:
    """The classes that the backbone may see, of one split of CIFAR-100."""
    task = dataclasses.replace(get_task("cifar100"), classes=CLASSES)
    return encode_images(load_split(task, split), wanted)


def _start(model: Any, train: EncodedImages, recipe: Recipe) -> None:
    """Initial weights of patch embedding, queries and keys."""
    rows = np.arange(0, len(train), max(1, len(train) // 1000))
    pixels = train.batch(rows, torch.device("cpu"))[0]["pixel_values"]
    patches = F.unfold(pixels, recipe.patch, stride=recipe.patch).transpose(1, 2).flatten(0, 1)  # (n, 3 p²)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))  # ascending
    filters = (components / (variances + 1e-2).sqrt()).T.flip(0)[: recipe.hidden]
    with torch.no_grad():
        embedding = model.vit.embeddings.patch_embeddings.projection.weight  # (hidden, 3, p, p)
        embedding[: len(filters)] = 0.5 * filters.reshape(-1, *embedding.shape[1:])
        modules = dict(model.named_modules())
        for name in lora_targets(model, ["q"]):
            query = modules[name].weight
            query.normal_(0.0, recipe.attention_range)
            modules[name.removesuffix("q_proj") + "k_proj"].weight.copy_(query)


def _accuracy(model: Any, data: EncodedImages) -> float:
    model.eval()
    hits = 0
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 250)):
            inputs, labels = data.batch(rows, torch.device("cpu"))
            hits += int((model(**inputs).logits.argmax(1) == labels).sum())
    model.train()
    return round(hits / len(data), 3)
