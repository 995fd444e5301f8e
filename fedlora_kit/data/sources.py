"""A task's examples, loaded and checked: from the caller, the kit itself, a local mirror, or the Hub.

``FEDLORA_HUB=/some/dir`` names a mirror: ``datasets/<id>/<config>/<split>.parquet`` (for Natural Instructions
``datasets/<id>/tasks/*.json``). Without it the Hub is asked through ``datasets``, at one commit; another one,
or a folder that has the data set's name, is never taken. No script of a data set is ever run. Which file or
commit a split is says `data.origin`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlora_kit import paths
from fedlora_kit.columns import group_values, texts
from fedlora_kit.data import handed_over, held_out, natural_instructions
from fedlora_kit.data.hub_table import hub_table
from fedlora_kit.data.labels import check_range, file_labels, task_labels
from fedlora_kit.data.origin import Origin, origin
from fedlora_kit.data.prompts import template
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.errors import BadValue, FedloraError


@dataclass(frozen=True)
class TaskData:
    """A task's examples, loaded.

    Attributes:
        train: the training split.
        evals: scored name -> examples.
    """

    task: Task
    train: Examples
    evals: dict[str, Examples]


def load_task(spec: Task) -> TaskData:
    """Load every split that ``spec`` names.

    Raises:
        FedloraError: a split is missing or damaged, or a label is out of range.
        BadValue: a scored split of the caller's own examples is the training split.
    """
    data = TaskData(
        spec,
        load_split(spec, spec.train_split),
        {name: load_split(spec, split) for name, split in spec.eval_splits.items()},
    )
    if origin(spec, spec.train_split).kind in ("loader", "table", "files") and not _is_builtin(spec):
        _refuse_training_rows(data)
    return data


def _refuse_training_rows(data: TaskData) -> None:
    known: set[str] = set()
    for name, scored in data.evals.items():
        known = known or set(held_out.digests(data.train))
        if known.issuperset(held_out.digests(scored)):
            raise BadValue(
                f"task {data.task.name}: all {len(scored)} examples of the scored split {name!r} are among "
                "those that are trained on",
                "give it examples of its own, or hold a share out: held_out=0.2",
            )


def load_split(spec: Task, split: str) -> Examples:
    """Load and check one split of a task."""
    at = origin(spec, split)
    if at.kind == "loader":
        examples = handed_over.examples_of(spec, at.split)
    elif spec.modality == "image":
        examples = stored_images(at)
    elif spec.layout == "task_files":
        examples = natural_instructions.read(spec)
    else:
        examples = _from_table(at)
    if spec.held_out:
        scored = "test" if split in spec.eval_splits.values() else split
        wanted = "train" if split == spec.train_split else scored
        prompted = spec.modality == "causal"
        examples = held_out.part(examples, wanted, spec.held_out, prompted=prompted)
    if spec.classes:
        examples = _of_classes(spec, examples)
    if len(examples) == 0:
        raise FedloraError(f"split {split!r} of {spec.name} has no examples", "check the source of the data")
    check_range(spec, split, examples.labels)
    return examples


def stored_images(at: Origin) -> Examples:
    """A split of images, known by its digest before it is decoded (see `data.images`)."""
    from fedlora_kit.data import images

    return images.stored_images(at, lambda: _checked(at))


def table(at: Origin) -> Any:
    """A split as a table of `datasets`.

    Raises:
        FedloraError: it is missing or damaged.
    """
    import datasets

    datasets.disable_progress_bars()
    if at.kind == "hub":
        return hub_table(at.spec, at.split)
    return at.table if at.kind == "table" else _read(at)


def _checked(at: Origin) -> Any:
    found = table(at)
    at.check_columns(found.column_names)
    return found


def _read(at: Origin) -> Any:
    """Files as one table; `datasets` maps what is not text from its own copy in ``data/cache/datasets``."""
    import datasets

    at.check()
    form = at.spec.form if at.kind == "files" else "parquet"
    if form == "images":
        assert at.root is not None
        classes = [file.relative_to(at.root).parts[0] for file in at.files]
        columns = {at.spec.columns[0]: list(map(str, at.files)), at.spec.label_column: classes}
        return datasets.Dataset.from_dict(columns).cast_column(at.spec.columns[0], datasets.Image())
    read = getattr(datasets.Dataset, f"from_{form}")
    # of a CSV, nothing but an empty field is missing: "None" and "NA" are texts
    more: dict[str, Any] = {"keep_default_na": False, "na_values": [""]} if form == "csv" else {}
    more |= {"cache_dir": str(paths.data_dir() / "cache" / "datasets")}
    more |= {"keep_in_memory": at.spec.modality == "text"}
    files = list(map(str, at.files))
    try:
        found = read(files, **more)
        string = datasets.Value("string")
        # a text such as "007" is none of a CSV's numbers
        guessed = {
            c: string for c in at.spec.columns if form == "csv" and found.features.get(c, string) != string
        }
        if guessed:
            found = read(files, features=datasets.Features({**found.features, **guessed}), **more)
        return found
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # `datasets` says "An error occurred while generating the dataset"
            cause = cause.__cause__
        told, names = next(iter(str(cause).splitlines()), "")[:160], ", ".join(f.name for f in at.files[:3])
        again = "fetch it again, or unset FEDLORA_HUB to ask the Hub"
        raise FedloraError(
            f"{names} (task {at.spec.name}) is damaged, or no {form} file: {type(cause).__name__} {told}",
            again
            if at.kind == "mirror"
            else "save it as UTF-8"
            if isinstance(cause, UnicodeDecodeError)
            else "make the file anew",
        ) from error


def _of_classes(spec: Task, examples: Examples) -> Examples:
    """The examples of ``spec.classes`` only, their labels numbered anew."""
    rows = np.flatnonzero(np.isin(examples.labels, spec.classes))
    new = {old: label for label, old in enumerate(spec.classes)}
    part = examples.take(rows)
    labels = np.array([new[int(label)] for label in part.labels], dtype=np.int64)
    return dataclasses.replace(part, labels=labels)


def _from_table(at: Origin) -> Examples:
    found, spec = _checked(at), at.spec
    read = [found[c] for c in spec.columns]
    if len(read) == 3:  # an instruction may stand alone
        read[1] = ["" if value is None else value for value in read[1]]
    columns = tuple(
        texts(values, f"{at.where}: column {c}", at.remedy)
        for c, values in zip(spec.columns, read, strict=True)
    )
    labels = np.zeros(len(found), np.int64)
    if spec.label_column:
        labels = task_labels(spec, file_labels(found, spec.label_column, at.where, at.remedy), at.where)
    groups = None
    if spec.group_column:
        what = f"{at.where}: column {spec.group_column}"
        groups = group_values(found[spec.group_column], what, at.remedy)
    return Examples(columns, labels, groups=groups)


def fingerprint(spec: Task) -> str:
    """What the examples are, as a short text: part of a run's key.

    The task's definition counts, its prompt by the text, and its examples: files by their bytes, the Hub by
    its commit (loading takes no other one), tables in memory by their rows, built-in data by the package's
    source (which is in the key already), a caller's loader by the examples themselves. Where files lie does
    not count. Nothing is downloaded; for a data set without a pinned commit the Hub is asked, once a process,
    for the newest.

    Raises:
        FedloraError: a file is missing, or the Hub does not tell the commit of what is not pinned.
    """
    places = {"loader", "files", "tables"}
    definition = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name not in places}
    definition["eval_splits"] = sorted(spec.eval_splits.items())
    definition["prompt"] = dataclasses.astuple(template(spec.prompt)) if spec.prompt else ""
    text = json.dumps(definition, sort_keys=True)
    told = [_digest(spec, split) for split in spec.source_splits]
    same = told[:1] if len(set(told)) == 1 else told  # one commit
    return f"{';'.join(same)}|task:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _digest(spec: Task, split: str) -> str:
    at = origin(spec, split)
    if at.kind != "loader":
        return at.digest()
    return f"builtin:{_sklearn_version()}" if _is_builtin(spec) else f"handed-over:{_content(spec, split)}"


def _is_builtin(spec: Task) -> bool:
    """Whether the package's source says what the loader gives; others are told of files or data."""
    return getattr(spec.loader, "__module__", "") == "fedlora_kit.data.tasks"


def _sklearn_version() -> str:
    import sklearn

    return f"scikit-learn-{sklearn.__version__}"


def _content(spec: Task, split: str) -> str:
    """Of all that the loader gives for a split, before a share is held out: 16 hex digits."""
    digest, examples = hashlib.sha256(), handed_over.examples_of(spec, split)
    for column in examples.columns:
        if isinstance(column, np.ndarray):
            digest.update(f"{column.dtype}{column.shape}".encode())
            digest.update(np.ascontiguousarray(column).tobytes())
        else:
            digest.update(json.dumps(list(column)).encode())
    digest.update(examples.labels.tobytes())
    if examples.groups is not None:
        digest.update("\x00".join(map(str, examples.groups)).encode())
    digest.update(json.dumps(examples.references).encode() if examples.references else b"")
    return digest.hexdigest()[:16]
