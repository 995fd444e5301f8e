"""What of the Hub a mirror needs for items: models, data sets, and what has to be put there by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from fedlora_kit.data.origin import place
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.hub import CONFIGURATION, TOKENIZER, WEIGHTS
from fedlora_kit.models.names import backbone
from fedlora_kit.study.plan import model_bytes, task_bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub.

    Attributes:
        name: path in its repository.
        size: bytes.
        sha256: of large files; empty where the Hub does not tell it.
        blob: git's id of a small file; empty where the Hub does not tell it.
    """

    name: str
    size: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True)
class Listing:
    """A repository at one commit.

    Attributes:
        commit: what the revision is, as 40 hex digits.
        gated: whether its files ask for an agreement with its owner first.
    """

    commit: str
    files: tuple[RemoteFile, ...]
    gated: bool = False


@dataclass(frozen=True)
class Piece:
    """One repository, and what of it the mirror gets.

    Attributes:
        kind: "model" or "dataset".
        repo: id on the Hub; revision: pinned, or empty.
        task: of a data set.
    """

    kind: Literal["model", "dataset"]
    repo: str
    revision: str
    task: Task | None = None

    @property
    def about(self) -> float | None:
        """Bytes, about, as far as they are known without asking the Hub."""
        return model_bytes(self.repo) if self.task is None else task_bytes(self.task.name)

    @property
    def title(self) -> str:
        """For a list: id, configuration, and how it is pinned."""
        name = f"{self.repo} ({self.task.config})" if self.task and self.task.config else self.repo
        return f"{self.kind} {name} at {self.revision[:12] or 'its newest revision, as none is pinned'}"


@dataclass(frozen=True)
class Target:
    """One file of the mirror, and the files of the Hub that it is made of, in order.

    Attributes:
        place: path below the mirror.
        how: "copy" (one file, byte for byte), "join" (tables one after the other), "convert" (JSON lines) or
            "images" (image files in folders named after their classes).
        classes: of "images", in the order of their labels.
    """

    place: str
    sources: tuple[RemoteFile, ...]
    how: Literal["copy", "join", "convert", "images"] = "copy"
    classes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(source.size for source in self.sources)


@dataclass(frozen=True)
class Chore:
    """What `fedlora fetch` cannot do: a sentence about it.

    Attributes:
        places: files below the mirror that are there once it is done.
    """

    text: str
    places: tuple[str, ...]

    def done(self, hub: Path) -> bool:
        """Whether its files are in place."""
        return all((hub / place).is_file() for place in self.places)


@dataclass(frozen=True)
class Wanted:
    """What a mirror needs.

    Attributes:
        pieces: from the Hub.
        by_hand: what is not on the Hub as a table.
    """

    pieces: tuple[Piece, ...]
    by_hand: tuple[Chore, ...]


def wanted(specs: Iterable[RunSpec]) -> Wanted:
    """What runs need that neither the package nor the repository holds."""
    pieces: dict[tuple[str, ...], Piece] = {}
    by_hand: dict[Chore, None] = {}
    tasks: dict[str, None] = {}
    for spec in specs:
        known = backbone(spec.model.backbone)
        tasks.update(dict.fromkeys(spec.tasks()))
        if not (known.name.startswith("kit/") or known.is_folder):
            pieces[("model", known.name)] = Piece("model", known.repo, known.revision)
    for name in tasks:
        kind = get_task(name)
        if not kind.hub_id:
            continue
        if kind.layout == "task_files":
            folder = f"datasets/{kind.hub_id}/tasks"
            files = [f"{label}.json" for label in kind.label_names]
            text = (
                f"{kind.hub_id} is no table on the Hub: put {', '.join(files)} from "
                f"github.com/{kind.hub_id}, folder tasks, into {folder} of the mirror"
            )
            by_hand[Chore(text, tuple(f"{folder}/{file}" for file in files))] = None
        else:
            key = ("dataset", kind.hub_id, kind.config, *kind.source_splits)
            pieces[key] = Piece("dataset", kind.hub_id, kind.revision, kind)
    return Wanted(tuple(pieces.values()), tuple(by_hand))


def targets(piece: Piece, files: Iterable[RemoteFile]) -> list[Target]:
    """Which files of a repository become which files of the mirror.

    Raises:
        FedloraError: safetensors weights, or a split, are not among them.
    """
    files = sorted(files, key=lambda file: file.name)
    if piece.kind == "model":
        return _of_model(piece, files)
    assert piece.task is not None
    return [_of_split(piece, piece.task, split, files) for split in piece.task.source_splits]


def _of_model(piece: Piece, files: list[RemoteFile]) -> list[Target]:
    read = (*CONFIGURATION, *TOKENIZER, *WEIGHTS)
    chosen = [file for file in files if any(fnmatchcase(file.name, pattern) for pattern in read)]
    names = {file.name for file in chosen}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise FedloraError(
            f"{piece.title} has no config.json with safetensors weights",
            f"only safetensors are taken: other formats may hold code; name a revision that has them "
            f"({piece.repo}@REVISION), or put its files into models/{piece.repo} of the mirror by hand",
        )
    if "model.safetensors" in names:  # whole: the parts would be the same weights again
        chosen = [f for f in chosen if "-of-" not in f.name and f.name != "model.safetensors.index.json"]
    return [Target(f"models/{piece.repo}/{file.name}", (file,)) for file in chosen]


def _of_split(piece: Piece, kind: Task, split: str, files: list[RemoteFile]) -> Target:
    where = place(kind, split)
    tables = _tables(piece, kind, split, files)
    if tables:
        return Target(where, tables, "copy" if len(tables) == 1 else "join")
    lines = [file for file in files if "/" not in file.name and file.name.endswith(".jsonl")]
    if len(lines) == 1 and split == kind.train_split and kind.held_out:  # a data set of one split, as lines
        return Target(where, tuple(lines), "convert")
    images, classes = _image_folder(split, files)
    if images and kind.modality == "image":
        return Target(where, images, "images", classes)
    names = ", ".join(file.name for file in files[:5]) or "nothing"
    raise FedloraError(
        f"{piece.title} has no split {split} that the kit can read: no parquet file of that name, no folder "
        f"{split} with one folder of images a class; it has {names}{', …' if len(files) > 5 else ''}",
        f"put the split into the mirror by hand, as {where}: a parquet file with the columns "
        f"{', '.join(kind.source_columns)}; the same command accepts it",
    )


def _tables(piece: Piece, kind: Task, split: str, files: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The parquet files of a split, in order: ``train-00000-of-00002.parquet`` in the folders that the Hub's
    data sets use, or ``train/0000.parquet``, as the Hub's own conversion names them."""
    config = f"(?:{re.escape(kind.config)}/)?" if kind.config else "(?:[^/]+/)?"
    part = r"(?:-\d{5}-of-(?P<of>\d{5})(?:-[0-9a-f]+)?|/(?P<part>\d{4}))?"
    name = re.compile(rf"(?:data/)?{config}(?:data/)?{re.escape(split)}{part}\.parquet")
    found = [(file, match) for file in files if (match := name.fullmatch(file.name))]
    own = [pair for pair in found if kind.config and f"{kind.config}/" in pair[0].name]
    found = own or found
    if len({file.name.rpartition("/")[0] for file, _ in found}) != 1:
        return ()
    told = {int(match["of"]) for _, match in found if match["of"]}
    told |= {int(match["part"]) + 1 for _, match in found[-1:] if match["part"]}
    if told and told != {len(found)}:
        raise FedloraError(
            f"{piece.title}: split {split} has {len(found)} of {max(told)} parts",
            f"put the whole split into the mirror by hand, as {place(kind, split)}",
        )
    return tuple(file for file, _ in found)


def _image_folder(split: str, files: list[RemoteFile]) -> tuple[tuple[RemoteFile, ...], tuple[str, ...]]:
    """The images of ``<split>/<class>/<name>``, in order, and all classes of the repository.

    Nothing where the split's folder holds anything else: `datasets` would make other columns of it.
    """
    seen = [file for file in files if not re.search(r"(^|/)(\.|__[^/]*/)", file.name)]
    form = re.compile(r"(?:data/)?[^/]+/(?P<of>[^/]+)/[^/]+\.(?:jpe?g|png)", re.IGNORECASE)
    found = [(file.name.count("/"), match["of"]) for file in seen if (match := form.fullmatch(file.name))]
    classes = {name for _, name in found}
    inside = [file for file in seen if re.match(rf"(data/)?{re.escape(split)}/", file.name)]
    if len(classes) < 2 or len({depth for depth, _ in found}) > 1:
        return (), ()
    if not all(form.fullmatch(file.name) for file in inside):
        return (), ()
    return tuple(inside), tuple(sorted(classes))
