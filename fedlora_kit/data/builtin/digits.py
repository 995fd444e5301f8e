"""Scikit-learn's handwritten digits (8x8), and the image task that the kit makes of them.

The task ``digits``: tell the ten digits apart when each image is **turned by a quarter** (90 degrees). The
backbone ``kit/image-tiny`` has seen other images, in the other three poses; so the shapes are known, the pose
and the classes' place in the head are not. The parts are fixed and disjoint:

| part | images | used for |
|---|---|---|
| ``pretrain`` | 700 | building the backbone, upright and turned by two and three quarters |
| ``train`` | 697 | the federated task, turned |
| ``test`` | 400 | its evaluation, turned |
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlora_kit.data.task import Examples
from fedlora_kit.errors import UnknownName

PARTS = ("pretrain", "train", "test")
_PRETRAIN, _TEST = 700, 400


def digits(part: str, quarter_turns: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The images and labels of one part.

    Args:
        part: ``pretrain``, ``train`` or ``test``.
        quarter_turns: by how many quarters to turn each image, anticlockwise.

    Returns:
        Images, float32 of shape (n, 1, 8, 8) in [-1, 1], and labels 0-9, int64 of shape (n,).

    Raises:
        UnknownName: for an unknown part.
    """
    if part not in PARTS:
        raise UnknownName("part of the digits", part, PARTS)
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(20240501).permutation(len(data.target))
    rows = {
        "pretrain": order[:_PRETRAIN],
        "train": order[_PRETRAIN:-_TEST],
        "test": order[-_TEST:],
    }[part]
    images = data.images[rows].astype(np.float32) / 8.0 - 1.0
    turned = np.ascontiguousarray(np.rot90(images, quarter_turns, axes=(1, 2)))
    return turned[:, None], data.target[rows].astype(np.int64)


def examples(split: str) -> Examples:
    """A part of the federated task ``digits``, turned once: ``train``, or ``test`` (or ``validation``)."""
    images, labels = digits("test" if split == "validation" else split, quarter_turns=1)
    return Examples((images,), labels)


#: domain -> quarter turns, and what its pixels in [-1, 1] are multiplied with
DOMAINS: dict[str, tuple[int, float]] = {
    "upright": (0, 1.0),
    "turned": (1, 1.0),
    "turned, faint": (1, 0.3),
    "negative": (0, -1.0),
}


def digits_in_domains(split: str) -> Examples:
    """The parts of ``digits`` in four domains: every image in one only, each class in all, equally often.

    The groups of the examples are the domains' names. ``train`` and ``validation`` share no digit, in
    whatever domain; nor does either with the backbone's pre-training, which knows the first domain alone.

    Args:
        split: ``train`` or ``validation``.
    """
    images, labels = digits("test" if split == "validation" else split)
    made, names = np.empty_like(images), list(DOMAINS)
    groups = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        groups[mine] = np.arange(len(mine)) % len(names)
    for group, name in enumerate(names):
        turns, contrast = DOMAINS[name]
        mine = groups == group
        made[mine] = np.rot90(images[mine], turns, axes=(2, 3)) * contrast
    return Examples((made,), labels, groups=np.array(names)[groups])
