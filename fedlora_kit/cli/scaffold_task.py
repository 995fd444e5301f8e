"""`fedlora new task`: a file that registers a task on the user's data, its columns guessed from the data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedlora_kit.cli.scaffold import Plan, checked_name, places, rendered
from fedlora_kit.data.labels import file_labels
from fedlora_kit.data.origin import origin
from fedlora_kit.data.own import task_from
from fedlora_kit.data.sources import table
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import TASKS
from fedlora_kit.errors import BadValue, FedloraError

SOURCES = ("csv", "jsonl", "parquet", "images", "hub")
#: names by which columns are known, the likeliest first
LABELS = ("label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "y")
GROUPS = ("domain", "group", "site", "client", "user", "speaker")
ASKED = ("instruction", "question", "prompt", "query")
INPUT = ("input", "context", "passage")
SAID = ("response", "answer", "output", "completion", "reply")
#: modality -> a table that takes any task of it
TABLES = {"text": "fed-hello/ledgar", "image": "fed-hello/table2", "causal": "fed-hello/dolly"}
#: the kit's own backbone reads grey images only
COLOUR = " --set backbone=facebook/dinov2-small"
#: a column with so many different values, or fewer, may be one of classes
MOST_CLASSES = 200


def plan_task(name: str, given: Mapping[str, str | None], to: Path | None) -> Plan:
    """What `fedlora new task` writes; nothing is written or registered yet.

    Args:
        given: of `SOURCES` the one that is named: a file, a folder of images, or a Hub id ("org/name", or
            "org/name:config").
        to: a folder of the user's own.

    Raises:
        BadValue: not one source, no folder, a name that is taken, data whose columns say nothing.
        FedloraError: the data cannot be read.
    """
    module = checked_name("task", name)
    registered = module.replace("_", "-")
    sources = [kind for kind in SOURCES if given.get(kind)]
    if len(sources) != 1:
        raise BadValue(
            f"a task needs its data: {' and '.join(f'--{kind}' for kind in sources) or 'none'} given",
            f"name one: {', '.join(f'--{kind}' for kind in SOURCES)}",
        )
    if to is None:
        raise BadValue("a task is written into a folder of your own", "name it: --to DIR")
    if registered in TASKS:
        raise BadValue(f"a task called {registered!r} is registered already", "choose another name")
    target, test = places("task", module, to)
    (kind,) = sources
    where = str(given[kind])
    modality, lines, seen = _guess(registered, kind, where, target.parent)
    colour = COLOUR if modality == "image" else ""
    values = {
        "module": module,
        "name": registered,
        "title": module.replace("_", " ").capitalize(),
        "arguments": lines,
        "seen": seen,
        "here": any("HERE" in line for line in lines),
    }
    return Plan(
        "task",
        {target: rendered("task.py.j2", values), test: rendered("task_test.py.j2", values)},
        registered,
        True,
        {},
        (TABLES[modality], f"--set task={registered} --set splits=iid{colour}"),
    )


def _guess(name: str, kind: str, where: str, folder: Path) -> tuple[str, list[str], list[str]]:
    """The modality, the arguments of `task_from`, and what was seen of the data, both as lines."""
    if kind == "images":
        task = _images(name, where)
        made = {"images": _place(where, folder)}
        made |= {} if len(task.files) > 1 else {"held_out": "0.2"}
        made |= {"labels": _source(task.label_names), **_one_size(task)}
        return "image", _lines(made), [f"{task.num_labels} folders: {', '.join(task.label_names[:20])}"]
    found, splits = _read(name, kind, where)
    modality, columns, label, group = _columns(found)
    made = {kind: _place(where, folder)} if kind != "hub" else {}
    if kind == "hub":
        repo, _, config = where.partition(":")
        made = {"hub": _source(repo), **({"config": _source(config)} if config else {})}
    made |= {"modality": _source(modality)} if modality != "text" else {}
    made["columns"] = _source(columns[0] if len(columns) == 1 else columns)
    if label:
        made["label"] = _source(label)
        names = file_labels(found, label, f"{name} (train)", "").names
        made |= {"labels": _source(names)} if names else {}
    made |= {"group": _source(group)} if group else {}
    made |= {"scored": _source(splits[0])} if splits else {"held_out": "0.2"}
    return modality, _lines(made), [f"{len(found)} rows; of each column the first value:", *_seen(found)]


def _images(name: str, where: str) -> Task:
    """The task of a folder: its own splits, or a share held out."""
    with suppress(BadValue):
        return task_from(name, images=where, register=False)
    return task_from(name, images=where, held_out=0.2, register=False)


def _read(name: str, kind: str, where: str) -> tuple[Any, list[str]]:
    """The training split as a table, and the splits of the Hub that can be scored."""
    repo, _, config = where.partition(":")
    path = str(Path(where).expanduser().resolve())
    source: dict[str, Any] = {"files": {"train": (path,)}, "form": {"jsonl": "json"}.get(kind, kind)}
    if kind == "hub":
        source = {"hub_id": repo, "config": config}
    bare = Task(name, "text", (), (), label_column="", **source)
    found, scored = table(origin(bare, "train")), []
    for split in ("validation", "test") if kind == "hub" else ():
        with suppress(FedloraError):
            table(origin(bare, split))
            scored.append(split)
    return found, scored


def _columns(found: Any) -> tuple[str, list[str], str, str]:
    """Modality, columns of the examples, those of labels and groups (empty for none), as one can guess."""
    import datasets

    images = [c for c, feature in found.features.items() if isinstance(feature, datasets.Image)]
    texts = [c for c, f in found.features.items() if getattr(f, "dtype", "") in ("string", "large_string")]
    asked, given, said = (_first(texts, names) for names in (ASKED, INPUT, SAID))
    few = {c: n for c in found.column_names if (n := _different(found, c)) and 1 < n <= MOST_CLASSES}
    few = {c: n for c, n in few.items() if n <= max(2, len(found) // 3)}
    group = _first(list(few), GROUPS)
    few.pop(group, None)
    answers = [c for c in (asked, given, said) if c] if asked and said else []
    for column in answers:  # no category, however few there are: it is part of the example
        few.pop(column, None)
    label = _first(list(few), LABELS) or min(few, key=few.__getitem__, default="")
    if answers:
        return "causal", answers, label, group
    if images:
        return "image", images[:1], label, group
    texts = [c for c in texts if c not in (label, group)]
    if not texts or not label:
        raise BadValue(
            f"no column of {'text' if not texts else 'classes'} among {', '.join(found.column_names)}",
            "make the task by hand: `task_from`, docs/data.md",
        )
    longest = max(texts, key=lambda c: sum(map(len, map(str, found[:200][c]))))
    return "text", [longest], label, group


def _first(there: list[str], names: tuple[str, ...]) -> str:
    lower = {column.lower(): column for column in there}
    return next((lower[name] for name in names if name in lower), "")


def _different(found: Any, column: str) -> int:
    """How many different values a column of texts or whole numbers has; 0 for any other."""
    kind = str(getattr(found.features[column], "dtype", ""))
    return len(found.unique(column)) if kind.startswith(("string", "large_string", "int", "uint")) else 0


def _one_size(task: Task) -> dict[str, str]:
    """A common size, where the images have several."""
    from PIL import Image

    sizes = set()
    for file in origin(task, task.train_split).files[:100]:
        with suppress(OSError), Image.open(file) as image:
            sizes.add(image.size)
    return {"store_side": "224"} if len(sizes) > 1 else {}


def _seen(found: Any) -> Iterator[str]:
    for column, value in found[0].items():
        many = _different(found, column)
        yield f"  {column}: {_source(str(value)[:50])}" + (f", {many} different values" if many else "")


def _place(where: str, folder: Path) -> str:
    """A path as source: from the file's own folder where it lies below that, so that both can move."""
    path = Path(where).expanduser().resolve()
    if path.is_relative_to(folder.resolve()):
        return f"HERE / {_source(path.relative_to(folder.resolve()).as_posix())}"
    return _source(str(path))


def _source(value: str | Sequence[str]) -> str:
    """Texts as Python source, in double quotes."""
    return json.dumps(value if isinstance(value, str) else list(value), ensure_ascii=False)


def _lines(arguments: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}," for name, value in arguments.items()]
