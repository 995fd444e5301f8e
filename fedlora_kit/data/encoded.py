"""Encoded examples, kept compactly, and padded only when a batch is cut.

Text is stored as one flat array of token ids with offsets: no example carries padding, and a batch
is as wide as its own longest example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedlora_kit.data.image_ops import Augment, ImageInput, Views, draw_views, prepare, whole
from fedlora_kit.data.task import Examples
from fedlora_kit.data.transfer import to_device
from fedlora_kit.errors import BadValue

Indices = npt.NDArray[np.int64]
Batch = dict[str, torch.Tensor]
Arrays = dict[str, npt.NDArray[Any]]


class EncodedData(Protocol):
    """What training and evaluation need of a data set of n examples."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each example, int64 (n,)."""
        ...

    @property
    def groups(self) -> npt.NDArray[Any] | None:
        """Group of each example, (n,), for partitioners that deal by it; None where there are none."""
        ...

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Cost of each example in tokens, shape (n,)."""
        ...

    def batch(self, indices: Indices, device: torch.device) -> tuple[Batch, torch.Tensor]:
        """Model inputs and labels, int64 (b,), of the examples at ``indices`` (at least one)."""
        ...

    def subset(self, indices: Indices) -> EncodedData:
        """The examples at ``indices`` as a data set of their own."""
        ...


@dataclass(frozen=True)
class EncodedText:
    """n token sequences without padding.

    Attributes:
        fields: name ("input_ids", for BERT also "token_type_ids") -> flat int32 array of all tokens.
        offsets: int64 (n + 1,); example i is ``flat[offsets[i]:offsets[i + 1]]``.
        labels: int64 (n,).
        pad: field -> padding value.
        groups: see `EncodedData`.
        unknown: share of the texts' tokens that the tokenizer does not know; cut: share of the examples that
            were longer than allowed. Both of the whole split, and 0 in a part of it.
    """

    fields: Mapping[str, npt.NDArray[np.int32]]
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    pad: Mapping[str, int]
    groups: npt.NDArray[Any] | None = None
    unknown: float = 0.0
    cut: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def padded(self, indices: Indices, width: int = 0) -> Arrays:
        """The fields and "attention_mask" of the examples at ``indices``, int64 (b, width).

        Args:
            width: at least so wide, and at least as wide as the longest example.
        """
        starts = self.offsets[indices]
        lengths = self.offsets[indices + 1] - starts
        places = np.arange(max(width, int(lengths.max())))
        mask = places[None, :] < lengths[:, None]  # (b, width)
        source = np.where(mask, starts[:, None] + places[None, :], 0)
        out = {
            name: np.where(mask, flat[source], self.pad[name]).astype(np.int64)
            for name, flat in self.fields.items()
        }
        return {**out, "attention_mask": mask.astype(np.int64)}

    def batch(self, indices: Indices, device: torch.device) -> tuple[Batch, torch.Tensor]:
        placed = to_device({**masked(self.padded(indices)), "labels": self.labels[indices]}, device)
        return placed, placed.pop("labels")

    def subset(self, indices: Indices) -> EncodedText:
        starts, lengths = self.offsets[indices], self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        fields = {name: flat[source] for name, flat in self.fields.items()}
        return EncodedText(fields, offsets, self.labels[indices], self.pad, _taken(self.groups, indices))


@dataclass(frozen=True)
class EncodedImages:
    """n images, kept as they are stored; what the backbone reads is made batch by batch, on the device.

    Attributes:
        pixels: (N, channels, height, width): uint8, or float32 and normalised already. A memory-mapped array
            stays on the disk: only the rows of a batch are read.
        labels: int64 (n,).
        rows: int64 (n,), example i is ``pixels[rows[i]]``; None for all in order.
        wanted: what the backbone reads; None to take the pixels as they are.
        augment: how training sees the images (see :func:`for_training`).
        views: draws the views of a batch; None for whole images.
        groups: see `EncodedData`.
    """

    pixels: torch.Tensor | npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    rows: Indices | None = None
    wanted: ImageInput | None = None
    augment: Augment = "none"
    views: np.random.Generator | None = None
    groups: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.full(len(self), self.wanted.tokens if self.wanted else 1, dtype=np.int64)

    def stored(self, indices: Indices) -> torch.Tensor:
        """The stored pixels at ``indices``: a copy, on the CPU, (b, channels, height, width)."""
        rows = indices if self.rows is None else self.rows[indices]
        if isinstance(self.pixels, torch.Tensor):
            return self.pixels[torch.from_numpy(rows)]
        return torch.from_numpy(self.pixels[rows])

    def host(self, indices: Indices) -> tuple[Arrays, Views | None]:
        """What a batch is made of: the pixels as stored, with the places of their views, and the views."""
        pixels = self.stored(indices).numpy()
        if self.wanted is None:
            return {"pixels": pixels}, None
        n, height, width = len(indices), pixels.shape[-2], pixels.shape[-1]
        views = whole(n, height, width)
        if self.views is not None:
            views = draw_views(self.views, n, height, width, self.augment)
        return {"pixels": pixels, "axes": views.axes}, views

    def seen(self, placed: Batch, views: Views | None) -> Batch:
        """The model's inputs, made on the device of ``placed``, which is what `host` gave."""
        pixels = placed["pixels"]
        if self.wanted is not None and views is not None:
            pixels = prepare(pixels, views, self.wanted, placed["axes"])
        return {"pixel_values": pixels}

    def batch(self, indices: Indices, device: torch.device) -> tuple[Batch, torch.Tensor]:
        arrays, views = self.host(indices)
        placed = to_device({**arrays, "labels": self.labels[indices]}, device)
        return self.seen(placed, views), placed["labels"]

    def subset(self, indices: Indices) -> EncodedImages:
        rows = np.asarray(indices) if self.rows is None else self.rows[indices]
        return replace(self, labels=self.labels[indices], rows=rows, groups=_taken(self.groups, indices))


def masked(padded: Arrays) -> Arrays:
    """The same without the attention mask where nothing is padding: a model needs none then."""
    mask = padded["attention_mask"]
    return {name: a for name, a in padded.items() if a is not mask or not mask.all()}


def _taken(groups: npt.NDArray[Any] | None, indices: Indices) -> npt.NDArray[Any] | None:
    return None if groups is None else groups[indices]


def for_training(data: EncodedData, rng: np.random.Generator) -> EncodedData:
    """The data as training sees them for one client and round: images in random views, if they ask for it.

    Args:
        rng: gives the views in the order of the batches; a fresh one for each client and round makes a run
            that is resumed see the same views again.
    """
    if isinstance(data, EncodedImages) and data.augment != "none":
        return replace(data, views=rng)
    return data


def encode_text(examples: Examples, tokenizer: Any, max_length: int) -> EncodedText:
    """Tokenise one or two sentence columns; a pair is cut on its longer side first.

    Args:
        max_length: tokens, special ones included; the tokenizer's limit holds as well, and with it the
            model's (see `models.tokenizer.load_tokenizer`).

    Raises:
        BadValue: ``max_length`` leaves no room for the special tokens; a text has no token at all.
    """
    max_length = min(max_length, int(tokenizer.model_max_length))
    special = tokenizer.num_special_tokens_to_add(pair=len(examples.columns) > 1)
    if max_length <= special:
        raise BadValue(
            f"max_length={max_length} leaves no room beside {special} special tokens", "raise max_length"
        )
    encoded = tokenizer(*map(list, examples.columns), truncation=True, max_length=max_length)
    pad = {"input_ids": int(tokenizer.pad_token_id or 0)}
    if "token_type_ids" in encoded:
        pad["token_type_ids"] = int(getattr(tokenizer, "pad_token_type_id", 0))
    lengths = np.fromiter((len(x) for x in encoded["input_ids"]), dtype=np.int64, count=len(examples))
    empty = np.flatnonzero(lengths == 0)  # under a tokenizer that adds no special tokens
    if empty.size:
        raise BadValue(f"{empty.size} texts have no token, such as number {empty[0]}", "leave them out")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    fields = {name: np.concatenate([np.asarray(x, np.int32) for x in encoded[name]]) for name in pad}
    unknown = unknown_share(tokenizer, fields["input_ids"])
    cut = sum(bool(one.overflowing) for one in encoded.encodings or ()) / max(1, len(examples))
    return EncodedText(fields, offsets, examples.labels, pad, examples.groups, unknown, cut)


def unknown_share(tokenizer: Any, ids: npt.NDArray[np.int32]) -> float:
    """Share of the tokens of texts, special ones left aside, that the tokenizer does not know.

    0 where there is no token for these, or (GPT-2) the one that ends a text is called so, too.
    """
    unknown = tokenizer.unk_token_id
    if unknown == tokenizer.eos_token_id:
        return 0.0
    special = [one for one in tokenizer.all_special_ids if one != unknown]
    words = int((~np.isin(ids, special)).sum())
    return 0.0 if unknown is None or not words else int((ids == unknown).sum()) / words


def encode_images(examples: Examples, wanted: ImageInput | None = None) -> EncodedImages:
    """Images for a backbone; nothing is computed or copied here, but batch by batch.

    Args:
        wanted: what the backbone reads. Without it, and for float32 images (which count as normalised), the
            cost of an image is one token.

    Raises:
        BadValue: the column holds no images, or bytes are given without ``wanted``; images in colour for a
            backbone that reads grey ones; pixels of floating point beyond what normalising gives.
    """
    pixels = examples.columns[0]
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 4 or pixels.dtype not in (np.uint8, np.float32):
        raise BadValue(
            "images are an array (n, channels, height, width) of uint8 or float32",
            "convert the column that the task's loader gives",
        )
    if wanted is not None:
        _check_images(pixels, wanted)
    if pixels.dtype == np.float32:
        wanted = replace(wanted, tokens=1) if wanted else None
    elif wanted is None:
        raise BadValue("images as bytes need to be normalised", "say what the backbone reads: wanted=…")
    return EncodedImages(pixels, examples.labels, wanted=wanted, groups=examples.groups)


def _check_images(pixels: npt.NDArray[Any], wanted: ImageInput) -> None:
    channels = pixels.shape[1]
    if channels not in (1, wanted.channels):
        grey = (
            "convert the images to grey (grey=True of task_from; an array: images.mean(axis=1, "
            "keepdims=True).astype(images.dtype)), or name a backbone for colour, such as "
            "facebook/dinov2-small"
        )
        raise BadValue(
            f"the images have {channels} channels, and the backbone reads {wanted.channels}",
            grey
            if wanted.channels == 1
            else f"give images of 1 or {wanted.channels} channels: (n, channels, height, width)",
        )
    if pixels.dtype == np.float32 and pixels.size:
        low = min(-mean / std for mean, std in zip(wanted.mean, wanted.std, strict=True))
        high = max((1 - mean) / std for mean, std in zip(wanted.mean, wanted.std, strict=True))
        found = float(pixels.min()), float(pixels.max())
        if not (low - 0.01 <= found[0] and found[1] <= high + 0.01):  # nor is NaN
            raise BadValue(
                f"the images have pixels from {found[0]:g} to {found[1]:g}; those of floating point count as "
                f"normalised as the backbone reads them, {low:.3g} to {high:.3g}",
                "give uint8 pixels, 0 to 255, which are normalised here",
            )
