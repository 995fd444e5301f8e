"""A test part for data sets that come as one training split (Dolly, Natural Instructions)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fedlora_kit.data.examples import Examples
from fedlora_kit.errors import UnknownName

#: at most this share of a class is held out, so that a small class keeps examples to train on
LARGEST_SHARE = 1 / 6


def part(examples: Examples, split: str, per_class: int) -> Examples:
    """The split "train" or "test" of examples that come as one.

    Of each class the ``per_class`` examples with the smallest SHA-256 of their prompt (all columns but the
    last) are the test part, at most a sixth of the class and at least one. So the choice depends on the texts
    alone: not on a seed, nor on the order of the rows. Training examples that share their prompt with a test
    example are left out of both parts.

    Args:
        examples: text columns; the last one is the response.

    Raises:
        UnknownName: for a split that is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise UnknownName("split", split, ["train", "test"])
    digests = _prompt_digests(examples)
    test: list[int] = []
    for label in np.unique(examples.labels):
        rows = np.flatnonzero(examples.labels == label)
        wanted = max(1, min(per_class, int(len(rows) * LARGEST_SHARE)))
        first: dict[str, int] = {}  # one example a prompt: the first
        for row in rows:
            first.setdefault(digests[row], int(row))
        test += [first[digest] for digest in sorted(first)[:wanted]]
    if split == "test":
        return examples.take(_indices(sorted(test)))
    asked = {digests[row] for row in test}
    return examples.take(_indices([row for row, digest in enumerate(digests) if digest not in asked]))


def _prompt_digests(examples: Examples) -> list[str]:
    prompts = zip(*examples.columns[:-1], strict=True)
    return [hashlib.sha256("\x00".join(map(str, prompt)).encode()).hexdigest() for prompt in prompts]


def _indices(rows: list[int]) -> npt.NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)
