"""How many examples of each class each client holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition.base import Indices, checked_labels


def label_counts(
    parts: Sequence[npt.ArrayLike], labels: npt.ArrayLike, num_classes: int | None = None
) -> Indices:
    """Examples of each class at each client.

    Args:
        parts: example numbers of each client, as ``split`` returns them.
        labels: (examples,) class of each example.
        num_classes: number of columns; the largest label + 1 if not given.

    Returns:
        (clients, classes) int64.

    Raises:
        BadValue: a label is not below ``num_classes``, or an example number not below the number of labels.

    >>> label_counts([[0, 1], [2]], [0, 2, 2]).tolist()
    [[1, 0, 1], [0, 0, 1]]
    """
    known = checked_labels(labels)
    classes = int(known.max()) + 1 if num_classes is None else num_classes
    if known.max() >= classes:
        raise BadValue(
            f"label {known.max()} does not fit into num_classes={classes}",
            f"give num_classes of at least {known.max() + 1}",
        )
    counts = np.zeros((len(parts), classes), dtype=np.int64)
    for client, part in enumerate(parts):
        numbers = np.asarray(part, dtype=np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < known.size:
            raise BadValue(
                f"client {client} names an example outside 0..{known.size - 1}",
                "give the labels that the split was made from",
            )
        counts[client] = np.bincount(known[numbers], minlength=classes)
    return counts
