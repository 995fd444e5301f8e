"""Classes of a file as classes of a task: by their names where the file has names, never by place then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit.columns import texts, whole_numbers
from fedlora_kit.data.class_names import MISSPELT
from fedlora_kit.data.task import Task
from fedlora_kit.errors import FedloraError

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FileLabels:
    """A column of labels as its file has it.

    Attributes:
        codes: int64 (n,).
        names: what the file calls each number, if it says so: the names of a `datasets.ClassLabel`; of a
            column of texts its values, in alphabetical order.
        complete: the names are all the classes that there are, not those of the rows alone.
    """

    codes: Labels
    names: list[str] | None = None
    complete: bool = True


def file_labels(table: Any, column: str, where: str, remedy: str) -> FileLabels:
    """The labels of a table of `datasets`.

    Args:
        where: names the file in an error; remedy: what to do about it.

    Raises:
        BadValue: a value is missing, or neither a text nor a whole number.
    """
    import datasets

    what, values = f"{where}: column {column}", list(table[column])
    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return FileLabels(whole_numbers(values, what, remedy), list(feature.names))
    if not any(isinstance(value, str | bytes) for value in values):
        return FileLabels(whole_numbers(values, what, remedy))
    names, codes = np.unique(np.array(texts(values, what, remedy), dtype=object), return_inverse=True)
    return FileLabels(codes.astype(np.int64), [str(name) for name in names], complete=False)


def task_labels(spec: Task, found: FileLabels, where: str) -> Labels:
    """The labels of a file as those of a task: by name, or as they stand where the file has no names.

    Names are compared without regard to capitals and to blanks, ``_`` and ``-`` between words. With
    `Task.classes` the result is the integers named there, and −1 for a class that is none of the task's.

    Args:
        where: names the file in an error.

    Raises:
        FedloraError: a row's class is none of the task's, one of `Task.classes` is none of the file's, or two
            of the file's names are one of the task's.
    """
    codes, names, complete = found.codes, found.names, found.complete
    if names is None:
        return codes
    wanted = spec.label_names
    if spec.label_order == "alphabetical":
        if len(names) != spec.num_labels:
            raise FedloraError(
                f"{where}: {spec.label_column} names {len(names)} classes, task {spec.name} has "
                f"{spec.num_labels}",
                "name a file with the classes of the task, or give the task its label_names",
            )
        wanted = tuple(sorted(names))
    there = np.unique(codes[codes >= 0])
    if there.size and there[-1] >= len(names):
        raise FedloraError(
            f"{where}: {spec.label_column} holds {there[-1]}, but names {len(names)} classes only",
            "the file is damaged; fetch it, or make it, again",
        )
    numbers = {name: spec.classes[i] if spec.classes else i for i, name in enumerate(wanted)}
    alike = {_plain(name): number for name, number in numbers.items()}
    if len(alike) < len(numbers):  # the task tells names apart by capitals or blanks
        alike = {}
    known = [numbers.get(name, alike.get(_plain(name), -1)) for name in names]
    unknown = [names[code] for code in there if known[code] < 0]
    if unknown and not spec.classes:
        raise FedloraError(
            f"{where}: {spec.label_column} has the unknown value {unknown[0]!r}",
            f"task {spec.name} knows {_some(wanted)}; if the file is the right one, give the task "
            "label_names as the file has them",
        )
    absent = sorted(set(numbers.values()) - set(known)) if spec.classes and complete else []
    if absent:
        name = next(name for name, number in numbers.items() if number == absent[0])
        raise FedloraError(
            f"{where}: {spec.label_column} has no class {name!r}, which task {spec.name} is made of",
            f"it has {_some(names)}; if it is the right file, give the task label_names as the file has them",
        )
    met = [known[code] for code in there if known[code] >= 0]
    if len(set(met)) < len(met):
        raise FedloraError(
            f"{where}: two classes of {spec.label_column} have one name in task {spec.name}",
            f"give the task label_names as the file has them: {_some(names)}",
        )
    return np.array([*known, -1], dtype=np.int64)[np.where(codes < 0, len(known), codes)]


def check_range(spec: Task, split: str, labels: Labels) -> None:
    """Refuse labels that are no class of the task.

    Raises:
        FedloraError: a label is negative, or not below the number of classes.
    """
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < spec.num_labels:
        return
    remedy = "an unlabelled split (GLUE's test splits carry -1) cannot be used; name a labelled one"
    if low >= 0:
        last = spec.num_labels - 1
        remedy = f"classes are numbered 0 to {last}, in the order of label_names: "
        remedy += "subtract 1" if (low, high) == (1, last + 1) else "number them so, or name all of them"
    raise FedloraError(
        f"split {split!r} of {spec.name} has labels {low}..{high}, but {spec.num_labels} classes", remedy
    )


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_-]+", " ", name).strip().casefold()
    return MISSPELT.get(plain, plain)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")
