"""The kit's partitioners on a `datasets.Dataset`, for federations that train elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedlora_kit.columns import texts
from fedlora_kit.errors import UnknownName
from fedlora_kit.partition.base import Partitioner


def partition_dataset(
    dataset: Any, by: Partitioner, label_column: str = "label", group_column: str = ""
) -> list[Any]:
    """One `datasets.Dataset` a client.

    Args:
        dataset: a `datasets.Dataset`.
        by: from `partitioner`.
        label_column: the classes: whole numbers of 0 or more, or texts, which are numbered alphabetically.
        group_column: the groups, for partitioners that deal by them; empty for none.

    Raises:
        UnknownName: no such column.
        BadValue: a label is missing, or is none; the labels cannot be split this way.

    >>> import datasets
    >>> from fedlora_kit.partition import partitioner
    >>> rows = datasets.Dataset.from_dict({"text": list("abcdef"), "label": ["x", "y"] * 3})
    >>> split = partitioner("pathological", num_clients=2, classes_per_client=1)
    >>> [part["text"][:] for part in partition_dataset(rows, split)]
    [['b', 'd', 'f'], ['a', 'c', 'e']]
    """
    for column in filter(None, (label_column, group_column)):
        if column not in dataset.column_names:
            raise UnknownName("column of the data set", column, dataset.column_names)
    labels = np.asarray(dataset[label_column][:])
    if labels.dtype.kind in "UO":
        labels = np.unique(texts(list(labels), f"column {label_column}"), return_inverse=True)[1]
    groups = dataset[group_column][:] if group_column else None
    return [dataset.select(part) for part in by.split(labels, groups=groups)]
