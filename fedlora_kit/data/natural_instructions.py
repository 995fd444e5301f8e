"""Super-NaturalInstructions: task files as upstream keeps them, one file a kind of work.

A file is JSON: ``Definition`` (the instruction: a list of strings, in older files one string) and
``Instances``, each with an ``input`` and an ``output``, a list of the answers that count as right. It also
holds worked examples (``Positive Examples``), which are neither trained on nor scored here. The data set is
no table on the Hub; the files are ``tasks/*.json`` of github.com/allenai/natural-instructions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlora_kit import mirror, paths
from fedlora_kit.data.examples import Examples
from fedlora_kit.errors import BadValue, FedloraError

if TYPE_CHECKING:
    from fedlora_kit.data.task import Task

#: examples of a task file that are kept, at most, the held-out ones included (upstream's files have up to
#: 6,500; Natural Instructions' usual evaluation takes 100 of each)
MOST_INSTANCES = 600


def chosen_tasks(like: Task, name: str, files: Sequence[str]) -> Task:
    """A task of your own on other task files, to be handed to `data.tasks.register_task`.

    Args:
        like: the task natural_instructions.
        files: names of task files, without ".json"; they are the categories.

    Raises:
        BadValue: no file, or one twice.
    """
    if not files or len(set(files)) < len(files):
        raise BadValue(f"task files {list(files)}", "give at least one, none of them twice")
    return replace(like, name=name, label_names=tuple(files))


def task_files(spec: Task) -> list[Path]:
    """The files of a task, one a category, in the order of the categories.

    Raises:
        FedloraError: no mirror is named, or it lacks one of them.
    """
    hub = paths.hub_dir()
    folder = Path("datasets", *spec.hub_id.split("/"), "tasks")
    get = (
        f"put {', '.join(f'{name}.json' for name in spec.label_names)} (github.com/{spec.hub_id}, folder "
        f"tasks) into {folder} of a mirror, and name the mirror in FEDLORA_HUB"
    )
    if hub is None:
        raise FedloraError(f"{spec.hub_id} is no table on the Hub: task {spec.name} needs a mirror", get)
    files = [paths.inside(hub, f"{folder.as_posix()}/{name}.json") for name in spec.label_names]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise FedloraError(
            f"the mirror has no {missing[0].relative_to(hub)} ({len(missing)} of {len(files)} task files of "
            f"{spec.name} are missing)",
            get,
        )
    return files


def _strings(content: dict[str, Any], name: str) -> list[str]:
    """A field as a list of strings; older files have one string where newer ones have a list."""
    told = content[name]
    lines = [told] if isinstance(told, str) else told
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise TypeError(f"{name} is neither a string nor a list of strings")
    return [line.strip() for line in lines]


def _instance(content: dict[str, Any]) -> tuple[str, list[str]]:
    if not isinstance(content["input"], str):
        raise TypeError("input is no string")
    return content["input"].strip(), _strings(content, "output")


def read(spec: Task) -> Examples:
    """All examples of a task: instruction, input, first answer; labels are the files' places.

    Of each file the first `MOST_INSTANCES` instances count.

    Raises:
        FedloraError: a file is missing, is not of upstream's form, or an answer is empty.
    """
    texts: tuple[list[str], list[str], list[str]] = ([], [], [])
    labels: list[int] = []
    references: list[tuple[str, ...]] = []
    for label, file in enumerate(task_files(spec)):
        mirror.check(file)
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            definition = " ".join(_strings(content, "Definition"))
            rows = [_instance(instance) for instance in content["Instances"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FedloraError(
                f"{file.name} is not a task file of {spec.hub_id}: {type(error).__name__} {error}",
                "it needs Definition and Instances, each with input and output; fetch it again",
            ) from error
        for number, (given, outputs) in enumerate(rows[:MOST_INSTANCES]):
            if not outputs or not all(outputs):
                raise FedloraError(f"{file.name}: instance {number} has an empty answer", "leave it out")
            for column, text in zip(texts, (definition, given, outputs[0]), strict=True):
                column.append(text)
            references.append(tuple(outputs))
            labels.append(label)
    return Examples(texts, np.array(labels, dtype=np.int64), tuple(references))
