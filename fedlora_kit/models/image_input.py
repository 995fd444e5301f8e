"""What an image backbone reads: side, channels and colour scale, from its configuration files."""

from __future__ import annotations

import json
from typing import Any

from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.hub import CONFIGURATION
from fedlora_kit.models.backbones import backbone_config, files_of
from fedlora_kit.models.kinds import check_kind


def image_input(name: str, size: int | None = None) -> ImageInput:
    """What the image backbone ``name`` reads.

    Side, channels and patches come from ``config.json``, mean and standard deviation of the colours from
    ``preprocessor_config.json``; where a ViT has no such file both are 1/2, as in the original.

    Args:
        size: side in pixels instead of the model's own (see `positions.resize_positions`).

    Raises:
        UnknownName: no such model.
        FedloraError: its files cannot be had, or do not describe a square input with a patch size.
        BadValue: it does not classify images, or ``size`` is no multiple of its patches.
    """
    config = backbone_config(name)
    check_kind(name, config, "image")
    side, patch = image_side(name, size), getattr(config, "patch_size", None)
    channels = getattr(config, "num_channels", 3)
    if not isinstance(side, int) or not isinstance(patch, int) or channels not in (1, 3):
        raise FedloraError(
            f"model {name} reads images of size {side}, patch {patch}, {channels} channels, which the kit "
            "does not know",
            "choose a ViT with a square input of 1 or 3 channels",
        )
    if side % patch:
        raise BadValue(
            f"image_size={side} is no multiple of model {name}'s patches of {patch} pixels",
            f"take {max(1, round(side / patch)) * patch}",
        )
    colours = _processor(name)
    if not colours and config.model_type != "vit":
        raise FedloraError(
            f"model {name} does not say how its images are normalised: it has no preprocessor_config.json",
            'put it beside the weights, with "image_mean" and "image_std"',
        )
    scale = {}
    for key in ("mean", "std"):
        values = colours.get(f"image_{key}") or [0.5] * channels
        if colours.get("do_normalize") is False:
            values = [float(key == "std")] * channels
        if len(values) != channels:
            raise FedloraError(
                f"model {name} has {len(values)} numbers in image_{key} for {channels} channels",
                "correct its preprocessor_config.json",
            )
        scale[key] = tuple(float(v) for v in values)
    return ImageInput(side, channels, scale["mean"], scale["std"], (side // patch) ** 2 + 1)


def image_side(name: str, size: int | None = None) -> int | None:
    """Side in pixels of the images that the backbone is given: ``size``; or what its image processor makes
    (DINOv2: 224, though its positions are those of 518); or that of its configuration; None if none says it.
    """
    if size is not None:
        return size
    told = _processor(name)
    for said in (told.get("crop_size"), told.get("size")):
        side = said.get("height") if isinstance(said, dict) else said
        if isinstance(side, int):
            return side
    own = getattr(backbone_config(name), "image_size", None)
    return own if isinstance(own, int) else None


def _processor(name: str) -> dict[str, Any]:
    """The backbone's ``preprocessor_config.json``; empty if it has none."""
    found = files_of(name, CONFIGURATION) / "preprocessor_config.json"
    if not found.is_file():
        return {}
    try:
        told = json.loads(found.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FedloraError(
            f"preprocessor_config.json of model {name} is no JSON", "fetch it again"
        ) from error
    return told if isinstance(told, dict) else {}
