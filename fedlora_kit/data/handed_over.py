"""Examples that a task's own loader gives: whether they are what the task says."""

from __future__ import annotations

import numpy as np

from fedlora_kit.data.task import Examples, Task
from fedlora_kit.errors import BadValue


def examples_of(spec: Task, split: str) -> Examples:
    """What the loader of ``spec`` gives for a split.

    Raises:
        BadValue: they are no `Examples`, of another kind or number of columns than the task names, or cannot
            be used; the message names the task and the split.
    """
    assert spec.loader is not None
    where = f"task {spec.name}, split {split!r}"
    try:
        examples = spec.loader(split)
    except BadValue as error:
        raise BadValue(f"{where}: {error.problem}", error.remedy) from error
    except Exception as error:
        raise BadValue(
            f"{where}: its loader raised {type(error).__name__}: {error}",
            f"it is asked for the splits {', '.join(spec.source_splits)}",
        ) from error
    if not isinstance(examples, Examples):
        raise BadValue(f"{where}: the loader gave a {type(examples).__name__}", "return `Examples`")
    given, named = len(examples.columns), len(spec.columns)
    if given != named:
        raise BadValue(
            f"{where}: the loader gave {given} columns, and the task names {named}",
            f"give, in this order: {', '.join(spec.columns)}",
        )
    wants = "images" if spec.modality == "image" else "texts"
    for name, column in zip(spec.columns, examples.columns, strict=True):
        has = "images" if isinstance(column, np.ndarray) else "texts"
        if has != wants:
            raise BadValue(
                f"{where}: column {name} holds {has}, and a task of modality {spec.modality!r} has {wants}",
                "give the task the modality of its examples",
            )
    return examples
