"""Batches of images on the device: cut, resized, mirrored and normalised with matrix products only.

Resizing is linear in the pixels and separable: out = Wy · in · Wxᵀ. Each example's cut, its resizing and its
mirroring are in its own Wy and Wx, so a whole batch with a different view of every image is two batched
matrix products, on any device, without a library of image transforms. The weights are those of antialiased
bilinear resizing (`torch.nn.functional.interpolate(..., antialias=True)`, Pillow's BILINEAR).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from fedlora_kit.errors import UnknownName

#: none: the whole image. flip: mirrored left to right with probability 1/2. crop_flip: shifted by up to an
#: eighth of the side, black beyond the border (the usual cut of CIFAR), and flip. zoom_flip: a rectangle of
#: 50 to 100 % of the area and a ratio of sides of 3/4 to 4/3, resized, and flip.
Augment = Literal["none", "flip", "crop_flip", "zoom_flip"]
AUGMENTS: tuple[str, ...] = get_args(Augment)
_AREA, _RATIO, _SHIFT = (0.5, 1.0), (3 / 4, 4 / 3), 8


@dataclass(frozen=True)
class ImageInput:
    """What a backbone reads.

    Attributes:
        size: side of its square input, in pixels.
        channels: 1 or 3.
        mean, std: a colour in [0, 1] enters as (value − mean) / std; one number a channel.
        tokens: cost of an image in tokens (patches and the class token).
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    tokens: int = 1


@dataclass(frozen=True)
class Views:
    """Which part of each of b images is seen.

    Attributes:
        boxes: int64 (b, 4): top, left, height, width in pixels; a box may reach beyond the image.
        flips: bool (b,): mirrored left to right.
    """

    boxes: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]

    @property
    def axes(self) -> npt.NDArray[np.int64]:
        """Start, length and mirroring along rows and along columns, int64 (2, 3, b)."""
        top, left, height, width = self.boxes.T
        return np.stack([[top, height, np.zeros_like(top)], [left, width, self.flips]]).astype(np.int64)


def whole(n: int, height: int, width: int) -> Views:
    """Views of n whole images, without a change."""
    return Views(np.tile(np.array([0, 0, height, width]), (n, 1)), np.zeros(n, dtype=bool))


def draw_views(rng: np.random.Generator, n: int, height: int, width: int, augment: str) -> Views:
    """Random views of n images of one size.

    Five numbers an example are drawn, in the order of the examples, whatever ``augment`` is: so the views do
    not depend on how a batch is cut, nor on the device.

    Raises:
        UnknownName: no such augmentation.

    >>> draw_views(np.random.default_rng(0), 2, 8, 8, "crop_flip").boxes.tolist()
    [[-1, -1, 8, 8], [0, 1, 8, 8]]
    """
    if augment not in AUGMENTS:
        raise UnknownName("augmentation", augment, AUGMENTS)
    draws = rng.random((n, 5))  # mirror, top, left, area, ratio
    views = whole(n, height, width)
    if augment == "none":
        return views
    boxes = views.boxes
    if augment == "crop_flip":
        for place, side in ((0, height), (1, width)):
            reach = side // _SHIFT
            boxes[:, place] = np.floor(draws[:, 1 + place] * (2 * reach + 1)).astype(np.int64) - reach
    elif augment == "zoom_flip":
        area = height * width * (_AREA[0] + draws[:, 3] * (_AREA[1] - _AREA[0]))
        ratio = np.exp(math.log(_RATIO[0]) + draws[:, 4] * (math.log(_RATIO[1]) - math.log(_RATIO[0])))
        boxes[:, 2] = np.clip(np.rint(np.sqrt(area / ratio)), 1, height)
        boxes[:, 3] = np.clip(np.rint(np.sqrt(area * ratio)), 1, width)
        boxes[:, 0] = np.floor(draws[:, 1] * (height - boxes[:, 2] + 1))
        boxes[:, 1] = np.floor(draws[:, 2] * (width - boxes[:, 3] + 1))
    return Views(boxes, draws[:, 0] < 0.5)


def resample(pixels: torch.Tensor, views: Views, size: int, axes: torch.Tensor | None = None) -> torch.Tensor:
    """Cut each image to its box, resize the cut to (size, size), mirror it where asked.

    Args:
        pixels: float (b, channels, height, width). What a box holds beyond the image counts as 0.
        axes: `Views.axes` where it is on the device of ``pixels`` already.

    Returns:
        Float (b, channels, size, size).
    """
    height, width = pixels.shape[-2:]
    known = views.axes
    placed = torch.from_numpy(known).to(pixels.device) if axes is None else axes
    rows = _weights(known[0], placed[0], height, size, pixels.dtype)
    columns = _weights(known[1], placed[1], width, size, pixels.dtype)
    if len(columns) == len(rows) == 1:  # one view for all: plain matrix products
        return rows[0] @ (pixels @ columns[0].T)
    tall = pixels.flatten(1, 2) @ columns.transpose(1, 2)  # (b, c * height, size)
    return rows[:, None] @ tall.reshape(len(pixels), -1, height, size)  # (b, c, size, size)


def _weights(
    known: npt.NDArray[np.int64], placed: torch.Tensor, side: int, size: int, dtype: torch.dtype
) -> torch.Tensor:
    """Resizing weights along one axis: (b, size, side), or (1, size, side) where all views agree.

    Args:
        known, placed: start, length and mirroring of each view, (3, b), on the host and on the device.
    """
    if (known == known[:, :1]).all():
        known, placed = known[:, :1], placed[:, :1]
    beyond = int(max(0, -known[0].min(), (known[0] + known[1]).max() - side))
    start, length, flip = placed[:, :, None, None]
    place = torch.arange(-beyond, side + beyond, device=placed.device) - start  # (b, 1, w): within the box
    scale = length.to(dtype) / size
    out = torch.arange(size, device=placed.device)[None, :, None]
    out = torch.where(flip > 0, size - 1 - out, out)
    distance = (place + 0.5 - (out + 0.5) * scale).abs() / scale.clamp(min=1.0)
    raw = (1 - distance).clamp(min=0) * ((place >= 0) & (place < length))
    weights: torch.Tensor = raw / raw.sum(-1, keepdim=True)
    return weights[:, :, beyond : beyond + side]


def prepare(
    pixels: torch.Tensor, views: Views, wanted: ImageInput, axes: torch.Tensor | None = None
) -> torch.Tensor:
    """What the backbone reads, from stored images.

    Args:
        pixels: uint8 (b, c, h, w), colours 0–255; or float32, normalised already (then only channels, size
            and view change, and what lies beyond the border is mean grey).
        axes: see `resample`.

    Returns:
        float32 (b, channels, size, size) on the device of ``pixels``.

    """
    stored_as_bytes = pixels.dtype == torch.uint8
    x = pixels.float() / 255 if stored_as_bytes else pixels
    if x.shape[1] != wanted.channels:  # grey: `encode_images` has seen to it
        x = x.expand(-1, wanted.channels, -1, -1)
    height, width = x.shape[-2:]
    unchanged = (views.boxes == (0, 0, height, width)).all() and not views.flips.any()
    if not unchanged or (height, width) != (wanted.size, wanted.size):
        x = resample(x, views, wanted.size, axes)
    return normalise(x, wanted.mean, wanted.std) if stored_as_bytes else x


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(pixels − mean) / std, channel by channel; pixels (b, c, h, w)."""
    return (pixels - _channels(tuple(mean), pixels)) / _channels(tuple(std), pixels)


def _channels(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    return _placed(values, like.dtype, like.device)


@lru_cache(maxsize=64)
def _placed(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """One number a channel, (1, c, 1, 1); put on the device once, not with every batch."""
    return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)
