"""A test part for data sets that come as one training split (Dolly, Natural Instructions)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fedlora_kit.data.examples import Column, Examples
from fedlora_kit.errors import UnknownName

#: at most this share of a class's prompts is held out, so that a small class keeps examples to train on
LARGEST_SHARE = 1 / 6


def part(examples: Examples, split: str, amount: float, *, prompted: bool = False) -> Examples:
    """The split "train" or "test" of examples that come as one.

    A number: the test part has one example of each class for each of so many prompts (all columns but the
    last) with the smallest SHA-256: for at most a sixth of the class's prompts, and for at least one. But the
    last prompt that a class could train on stays for training. Of a class's examples with the same prompt,
    the one whose answers have the smallest SHA-256 is taken. Training examples that share their prompt with a
    test example are left out of both parts.

    A share below 1: of each class so many of its different examples (at least one, and never all), again
    those with the smallest SHA-256, which for images is that of the pixels. Equal examples stay together; if
    they are ``prompted``, all examples with the same prompt do.

    So the choice depends on the examples alone: not on a seed, nor on the order of the rows.

    Raises:
        UnknownName: for a split that is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise UnknownName("split", split, ["train", "test"])
    if amount < 1:
        alike = examples.columns[:-1] if prompted else examples.columns
        return _share(examples, split, amount, _digests(*alike))
    prompts = _digests(*examples.columns[:-1])
    more = ["\x01".join(accepted) for accepted in examples.references] or [""] * len(examples)
    answers = _digests(examples.columns[-1], more)
    test: list[int] = []
    asked: set[str] = set()
    of_class = _of_class(examples)
    to_train = {label: {prompts[row] for row in rows} for label, rows in of_class.items()}
    for rows in of_class.values():
        one: dict[str, int] = {}  # one example a prompt
        for row in sorted(rows, key=answers.__getitem__):
            one.setdefault(prompts[row], row)
        wanted = max(1, min(int(amount), int(len(one) * LARGEST_SHARE)))
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


def _share(examples: Examples, split: str, share: float, different: list[str]) -> Examples:
    test: set[str] = set()
    for rows in _of_class(examples).values():
        ordered = sorted({different[row] for row in rows})
        test.update(ordered[: min(len(ordered) - 1, max(1, round(share * len(ordered))))])
    chosen = [row for row, name in enumerate(different) if (name in test) == (split == "test")]
    return examples.take(_indices(chosen))


def digests(examples: Examples) -> list[str]:
    """SHA-256 of each example, all its columns together; equal ones have equal digests."""
    return _digests(*examples.columns)


def _of_class(examples: Examples) -> dict[int, list[int]]:
    """Label -> rows."""
    labels = examples.labels
    return {int(label): np.flatnonzero(labels == label).tolist() for label in np.unique(labels)}


def _digests(*columns: Column) -> list[str]:
    """SHA-256 of each row's texts, or of the pixels of its image."""
    rows = zip(*columns, strict=True)
    return [
        hashlib.sha256(
            b"\x00".join(v.tobytes() if isinstance(v, np.ndarray) else v.encode() for v in row)
        ).hexdigest()
        for row in rows
    ]


def _indices(rows: list[int]) -> npt.NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)
