"""A task from data of the user's own: files, images in folders, tables of `datasets`, any set of the Hub."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from fedlora_kit.data.labels import file_labels
from fedlora_kit.data.origin import hidden, origin
from fedlora_kit.data.sources import table
from fedlora_kit.data.task import Form, Task
from fedlora_kit.data.tasks import register_task
from fedlora_kit.disk import here
from fedlora_kit.errors import BadValue, UnknownName

Place = str | Path
#: one file, several that are read one after the other, or split -> these
Files = Place | Sequence[Place] | Mapping[str, Place | Sequence[Place]]
#: what a task of answers has unless it is said otherwise: free answers, scored by ROUGE-L
_ANSWERS = {"prompt": "alpaca", "max_new_tokens": 64, "max_length": 512, "metric": "rouge_l"}
_ANSWERS["too_long"] = "leave_out"
#: fields of `Task` that `task_from` fills in by itself
_FILLED = {"name", "modality", "label_names", "columns", "train_split", "eval_splits", "hub_id"}
_FILLED |= {"label_column", "group_column", "loader", "files", "form", "tables", "held_out", "layout"}


def task_from(
    name: str,
    *,
    csv: Files | None = None,
    jsonl: Files | None = None,
    parquet: Files | None = None,
    images: Place | None = None,
    dataset: Any = None,
    hub: str = "",
    columns: str | Sequence[str] = (),
    label: str | None = None,
    labels: Sequence[str] = (),
    group: str = "",
    modality: Literal["text", "image", "causal"] | None = None,
    train: str = "train",
    scored: str | Sequence[str] | Mapping[str, str] = (),
    held_out: float = 0.0,
    replace: bool = False,
    register: bool = True,
    **settings: Any,
) -> Task:
    """A task of one's own, registered: every run, table and notebook of this process knows its name.

    Args:
        name: letters, digits, dots, hyphens and underscores.
        csv, jsonl, parquet: a file (or several, read one after the other), or split -> file.
        images: a folder with one sub-folder of images a class; or with such a folder for each split ("train",
            "test").
        dataset: a `datasets.Dataset`, or split -> one (`datasets.DatasetDict`).
        hub: an id on the Hub; ``config=`` and ``revision=`` may be given, too.
        columns: one or two columns of text, one of images, or, for answers, question and answer, or
            instruction, input and response.
        label: column of the classes, by name or numbered from 0 ("label" if not given); for answers one of
            categories, if there is one.
        labels: the classes' names, in the order of their numbers; if not given, as the training split has
            them, texts in alphabetical order.
        group: column of each example's group, for splits by group or domain.
        modality: what the backbone does: classify texts (the default) or images, or answer ("causal").
        train: the split that is trained on.
        scored: the splits that are scored, or scored name -> split; all others if not given.
        held_out: where there is one split: the share of each class, above 0 and below 1, that is set aside as
            the scored part "test". Drawn once, by the examples themselves: the same for every seed.
        replace: take the place of a task of that name.
        register: make it known by its name.
        settings: further fields of `Task`, such as max_length or store_side.

    Raises:
        UnknownName: no such setting or split.
        BadValue: not one source, no scored split, no columns, a single class, labels that do not begin at 0.
        FedloraError: a file that is missing or cannot be read, or that lacks the column of labels.
    """
    given = {"csv": csv, "jsonl": jsonl, "parquet": parquet, "images": images, "dataset": dataset}
    sources = [kind for kind, value in {**given, "hub": hub or None}.items() if value is not None]
    if len(sources) != 1:
        raise BadValue(
            f"task {name!r} has {' and '.join(sources) or 'no source'}",
            "give one of csv, jsonl, parquet, images, dataset and hub",
        )
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BadValue(f"{name!r} cannot name a task", "letters, digits, dots, hyphens and underscores")
    allowed = {field.name for field in dataclasses.fields(Task)} - _FILLED
    if unknown := sorted(settings.keys() - allowed):
        raise UnknownName("setting of a task", unknown[0], allowed)
    (kind,) = sources
    modality = modality or ("image" if kind == "images" else "text")
    splits = _splits(kind, given[kind], train) if kind != "hub" else {}
    spec = Task(
        name,
        modality,
        (),
        tuple([columns] if isinstance(columns, str) else columns) or ("image",) * (kind == "images"),
        train_split=train,
        eval_splits=_scored(name, kind, splits, train, scored, held_out),
        hub_id=hub,
        label_column=("" if modality == "causal" else "label") if label is None else label,
        group_column=group,
        files={} if kind in ("hub", "dataset") else splits,
        form=cast(Form, {"jsonl": "json"}.get(kind, kind)) if kind != "hub" else "parquet",
        tables=splits if kind == "dataset" else {},
        held_out=held_out,
        **{**(_ANSWERS if modality == "causal" else {}), **settings},
    )
    _check_columns(spec)
    for split in spec.source_splits if spec.files else ():
        origin(spec, split).check()
    made = dataclasses.replace(spec, label_names=tuple(labels) or _label_names(spec))
    return register_task(made, replace=replace) if register else made


def _splits(kind: str, given: Any, train: str) -> dict[str, Any]:
    """Split -> what holds it."""
    if kind == "dataset":
        tables = dict(given) if isinstance(given, Mapping) else {train: given}
        for found in tables.values():
            if not hasattr(found, "column_names"):
                raise BadValue(
                    f"dataset= holds a {type(found).__name__} and no datasets.Dataset",
                    "make it one: datasets.Dataset.from_pandas, from_list, from_dict",
                )
        return tables
    if kind != "images":
        named = given if isinstance(given, Mapping) else {train: given}
        return {
            split: tuple(_absolute(one) for one in ([files] if isinstance(files, str | Path) else files))
            for split, files in named.items()
        }
    root = Path(_absolute(given))
    below = [f for f in sorted(root.glob("*")) if f.is_dir() and not hidden(f, root)]
    if any(f.name == train and any(inner.is_dir() for inner in f.iterdir()) for f in below):
        return {folder.name: (str(folder),) for folder in below}
    return {train: (str(root),)}


def _absolute(path: Place) -> str:
    return str(here() / Path(path).expanduser())


def _scored(
    name: str,
    kind: str,
    splits: Mapping[str, Any],
    train: str,
    scored: str | Sequence[str] | Mapping[str, str],
    held_out: float,
) -> dict[str, str]:
    """Scored name -> split."""
    if isinstance(scored, Mapping):
        named = dict(scored)
    else:
        listed = [scored] if isinstance(scored, str) else list(scored)
        named = {split: split for split in listed or ([] if held_out else splits) if split != train or listed}
    if splits and train not in splits:
        raise UnknownName(f"training split of task {name!r}", train, splits)
    if held_out and (named or len(splits) > 1 or not 0 < held_out < 1):
        others = list(named or [split for split in splits if split != train])
        raise BadValue(
            f"task {name!r}: held_out={held_out:g}"
            + (f" and the scored {', '.join(others)}" if others else ""),
            "give a share above 0 and below 1, such as 0.2, and no scored split; or the other way round",
        )
    if not named and not held_out:
        how = "scored='validation'" if kind == "hub" else f"{kind}={{'train': …, 'test': …}}"
        raise BadValue(
            f"task {name!r} has nothing that is scored",
            f"name a split ({how}), or hold a share out: held_out=0.2",
        )
    for split in named.values() if splits else ():
        if split not in splits:
            raise UnknownName(f"split of task {name!r}", split, splits)
    return named or {"test": "test" if train != "test" else "held_out"}


def _check_columns(spec: Task) -> None:
    if spec.modality != "causal" and not spec.label_column:
        raise BadValue(f"task {spec.name!r} names no column of classes", "label: its name")
    many = {"text": (1, 2), "image": (1,), "causal": (2, 3)}[spec.modality]
    if len(spec.columns) in many:
        return
    what = {"text": "one or two columns of text", "image": "one column of images"}.get(
        spec.modality, "two or three columns: question and answer, or instruction, input and response"
    )
    there = [] if spec.hub_id else table(origin(spec, spec.train_split)).column_names
    raise BadValue(
        f"task {spec.name!r} names {len(spec.columns)} columns ({', '.join(spec.columns) or 'none'})",
        f"columns: {what}" + (f"; there are {', '.join(there)}" if there else ""),
    )


def _label_names(spec: Task) -> tuple[str, ...]:
    """The classes, as the training split has them."""
    if not spec.label_column:
        return ("answer",)
    at = origin(spec, spec.train_split)
    read = table(at)
    at.check_columns(read.column_names)
    found = file_labels(read, spec.label_column, at.where, at.remedy)
    low, high = (int(found.codes.min()), int(found.codes.max())) if len(found.codes) else (0, 0)
    if found.names is None and low != 0:
        raise BadValue(
            f"{at.where}: column {spec.label_column} holds the labels {low} to {high}, and classes are "
            "numbered from 0",
            "subtract 1" if low == 1 else "number them so, or write the classes' names into the column",
        )
    names = tuple(found.names or map(str, range(high + 1)))
    if len(names) < 2 and spec.modality != "causal":
        raise BadValue(
            f"{at.where}: column {spec.label_column} has a single class", "name another column with label="
        )
    return names
