"""Where examples come from: the caller, the kit itself, a local mirror, or the Hub.

``FEDLORA_HUB=/some/dir`` names a mirror: ``datasets/<id>/<config>/<split>.parquet`` (for Natural Instructions
``datasets/<id>/tasks/*.json``). Without it the Hub is asked through ``datasets``, at one commit; another one,
or a folder that has the data set's name, is never taken. No script of a data set is ever run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedlora_kit import hub, mirror, paths
from fedlora_kit.columns import group_values, texts
from fedlora_kit.data import handed_over, held_out, natural_instructions
from fedlora_kit.data.hub_table import hub_table
from fedlora_kit.data.labels import REMEDY, check_range, file_labels, task_labels
from fedlora_kit.data.prompts import template
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.errors import FedloraError

#: bounds of one table in a mirror; the largest known ones are Food-101's 5 GB and QQP's 364,000 rows
MOST_BYTES, MOST_ROWS = 64 * 2**30, 20_000_000


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
    """
    return TaskData(
        spec,
        load_split(spec, spec.train_split),
        {name: load_split(spec, split) for name, split in spec.eval_splits.items()},
    )


def load_split(spec: Task, split: str) -> Examples:
    """Load and check one split of a task."""
    if spec.loader:
        examples = handed_over.examples_of(spec, split)
    elif spec.modality == "image":
        examples = _decoded(spec, split)
    elif spec.layout == "task_files":
        examples = held_out.part(natural_instructions.read(spec), split, spec.held_out)
    elif spec.held_out:
        whole = _from_table(spec, spec.train_split, _table(spec, spec.train_split))
        examples = held_out.part(whole, split, spec.held_out)
    else:
        examples = _from_table(spec, split, _table(spec, split))
    if spec.classes:
        examples = _of_classes(spec, examples)
    if len(examples) == 0:
        raise FedloraError(f"split {split!r} of {spec.name} has no examples", "check the source of the data")
    check_range(spec, split, examples.labels)
    return examples


def mirror_file(hub: Path, spec: Task, split: str) -> Path:
    """The mirror's file for one split: ``datasets/<id>/<config>/<split>.parquet``.

    Raises:
        FedloraError: the names, or a link there, lead out of the mirror.
    """
    parts = ["datasets", spec.hub_id, *filter(None, [spec.config]), f"{split}.parquet"]
    return paths.inside(hub, "/".join(parts))


def _table(spec: Task, split: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    mirrored = paths.hub_dir()
    return hub_table(spec, split) if mirrored is None else _mirror_table(mirrored, spec, split)


def _mirror_table(mirrored: Path, spec: Task, split: str) -> Any:
    import datasets

    file = mirror_file(mirrored, spec, split)
    relative = file.relative_to(mirrored)
    if not file.is_file():
        raise FedloraError(
            f"the mirror has no {relative} (data set {spec.hub_id})",
            "put that file into the folder named by FEDLORA_HUB, or unset FEDLORA_HUB to ask the Hub",
        )
    try:
        mirror.check(file, revision=spec.revision)
        _check_size(file, relative)
        return datasets.Dataset.from_parquet(
            str(file),
            cache_dir=str(paths.data_dir() / "cache" / "datasets"),
            keep_in_memory=spec.modality == "text",
        )
    except FedloraError:
        raise
    except Exception as error:
        raise FedloraError(
            f"the mirror's {relative} (data set {spec.hub_id}) is damaged: {type(error).__name__}",
            "fetch that file again, or unset FEDLORA_HUB to ask the Hub",
        ) from error


def _check_size(file: Path, relative: Path) -> None:
    """Refuse a table far larger than any that the kit knows, before it fills the memory or the disk."""
    import pyarrow.parquet

    about = pyarrow.parquet.ParquetFile(file).metadata
    unpacked = sum(about.row_group(g).total_byte_size for g in range(about.num_row_groups))
    if max(file.stat().st_size, unpacked) > MOST_BYTES or about.num_rows > MOST_ROWS:
        raise FedloraError(
            f"the mirror's {relative} holds {about.num_rows} rows and {unpacked / 2**30:.1f} GiB, more than "
            f"any data set of the kit ({MOST_ROWS} rows, {MOST_BYTES / 2**30:.0f} GiB)",
            "it is not the data set that its name says; fetch that file again",
        )


def _decoded(spec: Task, split: str) -> Examples:
    """A split of images: known by the mirror's bytes, or by its commit on the Hub, before it is decoded."""
    from fedlora_kit.data.images import stored_images

    mirrored = paths.hub_dir()
    if mirrored is None:
        source = hub.commit("dataset", spec.hub_id, spec.revision)
    elif (file := mirror_file(mirrored, spec, split)).is_file():
        source = _mirror_digest(spec, file)
    else:
        source = ""  # the table is missing: an error
    return stored_images(spec, split, source, lambda: _checked(spec, split, _table(spec, split)))


def _of_classes(spec: Task, examples: Examples) -> Examples:
    """The examples of ``spec.classes`` only, their labels numbered anew."""
    rows = np.flatnonzero(np.isin(examples.labels, spec.classes))
    new = {old: label for label, old in enumerate(spec.classes)}
    part = examples.take(rows)
    labels = np.array([new[int(label)] for label in part.labels], dtype=np.int64)
    return dataclasses.replace(part, labels=labels)


def _from_table(spec: Task, split: str, table: Any) -> Examples:
    _checked(spec, split, table)
    where = f"{spec.hub_id} ({split})"
    columns = tuple(texts(table[c], f"{where}: column {c}", REMEDY) for c in spec.columns)
    labels = np.zeros(len(table), np.int64)
    if spec.label_column:
        declared = hasattr(table.features[spec.label_column], "names")  # a `datasets.ClassLabel`
        labels = task_labels(spec, *file_labels(table, spec.label_column, where), where, complete=declared)
    groups = None
    if spec.group_column:
        groups = group_values(table[spec.group_column], f"{where}: column {spec.group_column}", REMEDY)
    return Examples(columns, labels, groups=groups)


def _checked(spec: Task, split: str, table: Any) -> Any:
    """The table, if it has the task's columns."""
    missing = [c for c in spec.source_columns if c not in table.column_names]
    if missing:
        raise FedloraError(
            f"{spec.hub_id} ({split}) has no column {', '.join(missing)}; "
            f"it has {', '.join(table.column_names)}",
            "if it is the right data set, name its columns in a task of your own (register_task); otherwise "
            "fetch it again",
        )
    return table


def fingerprint(spec: Task) -> str:
    """What the examples are, as a short text: part of a run's key.

    The task's definition counts, its prompt by the text, and its examples: a mirror's files by their bytes,
    the Hub by its commit (loading takes no other one), built-in data by the package's source (which is in
    the key already), a caller's loader by the examples themselves. Nothing is downloaded; for a data set
    without a pinned commit the Hub is asked, once a process, for the newest.

    Raises:
        FedloraError: a mirror lacks a file, or the Hub does not tell the commit of what is not pinned.
    """
    definition = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name != "loader"}
    definition["eval_splits"] = sorted(spec.eval_splits.items())
    definition["prompt"] = dataclasses.astuple(template(spec.prompt)) if spec.prompt else ""
    text = json.dumps(definition, sort_keys=True)
    return f"{_examples_of(spec)}|task:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _examples_of(spec: Task) -> str:
    if spec.loader is not None:
        return f"builtin:{_sklearn_version()}" if _is_builtin(spec) else f"handed-over:{_content(spec)}"
    mirrored = paths.hub_dir()
    digests = []
    if spec.layout == "task_files":
        digests = [_mirror_digest(spec, file) for file in natural_instructions.task_files(spec)]
        return "mirror:" + hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    if mirrored is None:
        return f"hub:{spec.hub_id}@{hub.commit('dataset', spec.hub_id, spec.revision)}"
    splits = [spec.train_split] if spec.held_out else sorted({spec.train_split, *spec.eval_splits.values()})
    for split in splits:
        file = mirror_file(mirrored, spec, split)
        if not file.is_file():
            _mirror_table(mirrored, spec, split)  # raises the one clear error
        digests.append(_mirror_digest(spec, file))
    return "mirror:" + hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _is_builtin(spec: Task) -> bool:
    """Whether the package's source says what the loader gives; others are told of files or data."""
    return getattr(spec.loader, "__module__", "") == "fedlora_kit.data.tasks"


def _sklearn_version() -> str:
    import sklearn

    return f"scikit-learn-{sklearn.__version__}"


def _content(spec: Task) -> str:
    digest = hashlib.sha256()
    for split in (spec.train_split, *spec.eval_splits.values()):
        examples = load_split(spec, split)
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


def _mirror_digest(spec: Task, file: Path) -> str:
    mirror.check(file, revision=spec.revision)
    return mirror.file_sha256(file)
