"""A test part for data sets that come as one training split (Dolly, Natural Instructions)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fedlora_kit.data.examples import Column, Examples
from fedlora_kit.errors import UnknownName

#: at most this share of a class's prompts is held out, so that a small class keeps examples to train on
LARGEST_SHARE = 1 / 6


def part(examples: Examples, split: str, per_class: int) -> Examples:
    """The split "train" or "test" of examples that come as one.

    The test part has one example of each class for each of the ``per_class`` prompts (all columns but the
    last) with the smallest SHA-256: for at most a sixth of the class's prompts, and for at least one. But the
    last prompt that a class could train on stays for training. Of a class's examples with the same prompt,
    the one whose answers have the smallest SHA-256 is taken. So the choice depends on the texts alone: not on
    a seed, nor on the order of the rows. Training examples that share their prompt with a test example are
    left out of both parts.

    Args:
        examples: text columns; the last one is the response.

    Raises:
        UnknownName: for a split that is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise UnknownName("split", split, ["train", "test"])
    prompts = _digests(*examples.columns[:-1])
    more = ["\x01".join(accepted) for accepted in examples.references] or [""] * len(examples)
    answers = _digests(examples.columns[-1], more)
    test: list[int] = []
    asked: set[str] = set()
    of_class = {
        int(label): np.flatnonzero(examples.labels == label).tolist() for label in np.unique(examples.labels)
    }
    to_train = {label: {prompts[row] for row in rows} for label, rows in of_class.items()}
    for rows in of_class.values():
        one: dict[str, int] = {}  # one example a prompt
        for row in sorted(rows, key=answers.__getitem__):
            one.setdefault(prompts[row], row)
        wanted = max(1, min(per_class, int(len(one) * LARGEST_SHARE)))
        for prompt in sorted(one):
            if wanted and {prompt} not in to_train.values():
                test.append(one[prompt])
                asked.add(prompt)
                wanted -= 1
                for left in to_train.values():
                    left.discard(prompt)
    if split == "test":
        return examples.take(_indices(sorted(test)))
    return examples.take(_indices([row for row, prompt in enumerate(prompts) if prompt not in asked]))


def _digests(*columns: Column) -> list[str]:
    """SHA-256 of each row's texts."""
    return [
        hashlib.sha256("\x00".join(map(str, row)).encode()).hexdigest() for row in zip(*columns, strict=True)
    ]


def _indices(rows: list[int]) -> npt.NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)
