"""What an image backbone reads: side, channels and colour scale, from its configuration files."""

from __future__ import annotations

import json
from typing import Any

from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.errors import FedloraError
from fedlora_kit.hub import CONFIGURATION
from fedlora_kit.models.backbones import backbone, files_of, from_anywhere


def image_input(name: str) -> ImageInput:
    """What the image backbone ``name`` reads.

    Side, channels and patches come from ``config.json``, mean and standard deviation of the colours from
    ``preprocessor_config.json``; where that file is missing both are 1/2, as in the original ViT.

    Raises:
        UnknownName: no such model.
        FedloraError: its files cannot be had, or do not describe a square input with a patch size.
    """
    from transformers import AutoConfig

    config: Any = from_anywhere(name, AutoConfig.from_pretrained, {}, CONFIGURATION)
    if backbone(name).kind != "image":
        raise FedloraError(f"model {name} does not read images", "choose a model for images, such as a ViT")
    side, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    channels = getattr(config, "num_channels", 3)
    if not isinstance(side, int) or not isinstance(patch, int) or channels not in (1, 3):
        raise FedloraError(
            f"model {name} reads images of size {side}, patch {patch}, {channels} channels, which the kit "
            "does not know",
            "choose a ViT with a square input of 1 or 3 channels",
        )
    colours = _colours(name)
    scale = {}
    for key in ("mean", "std"):
        values = colours.get(f"image_{key}") or [0.5] * channels
        if len(values) != channels:
            raise FedloraError(
                f"model {name} has {len(values)} numbers in image_{key} for {channels} channels",
                "correct its preprocessor_config.json",
            )
        scale[key] = tuple(float(v) for v in values)
    return ImageInput(side, channels, scale["mean"], scale["std"], (side // patch) ** 2 + 1)


def _colours(name: str) -> dict[str, Any]:
    """The backbone's ``preprocessor_config.json``, or nothing if it has none."""
    found = files_of(name, CONFIGURATION) / "preprocessor_config.json"
    if not found.is_file():
        return {}
    try:
        colours = json.loads(found.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FedloraError(
            f"preprocessor_config.json of model {name} is no JSON", "fetch it again"
        ) from error
    return colours if isinstance(colours, dict) else {}
