"""The tasks that a table takes: every registered one that its experiment fits, a user's own as the kit's."""

from __future__ import annotations

from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue


def fitting(item: str, name: str, *, answers: bool = False, rouge: bool = False) -> Task:
    """The task called ``name``, if an item can run on it. Whether a model suits it is seen with the run.

    Args:
        answers: the item has a causal language model answer, and deals its examples out by category.
        rouge: it also scores the answers by ROUGE-L.

    Raises:
        UnknownName: no such task.
        BadValue: the item cannot run on it; the message says what it lacks.
    """
    task = get_task(name)
    if not task.eval_splits:
        raise BadValue(f"task {name!r} has no part that is scored", f"name another one for {item}")
    if (task.modality == "causal") != answers:
        wanted = "answers of a causal language model" if answers else "texts or images in classes"
        raise BadValue(
            f"{item} is about {wanted}, and task {name!r} is not",
            "name another task, or make one of your data: task_from(modality=…)",
        )
    if rouge and task.metric == "final_number":
        raise BadValue(
            f"{item} scores answers by ROUGE-L, and task {name!r} by its final number",
            "name another task, or make one with metric='rouge_l'",
        )
    return task


def need_classes(item: str, task: Task, held: int) -> None:
    """See that clients can hold so many classes, or categories, of a task.

    Raises:
        BadValue: the task has fewer.
    """
    what = "categories" if task.modality == "causal" else "classes"
    if held and task.modality == "causal" and task.num_labels < 2:
        raise BadValue(
            f"{item} deals examples out by category, and task {task.name!r} has none",
            "name its column of categories (task_from(label=…)), or take another split, such as splits=iid",
        )
    if held > task.num_labels:
        raise BadValue(
            f"{item} gives a client {held} {what}, and task {task.name!r} has {task.num_labels}",
            "take another split, such as splits=iid, or another task",
        )
