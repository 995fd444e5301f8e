"""What of the Hub a mirror needs for items: models, data sets, and what has to be put there by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models.backbones import backbone
from fedlora_kit.planning.plan import model_bytes, task_bytes

#: files of a model that loading reads: configuration, tokenizer, image preprocessing, safetensors weights
MODEL_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|preprocessor_config|model\.safetensors\.index)\.json"
    r"|vocab\.txt|merges\.txt|tokenizer\.model|model(-\d{5}-of-\d{5})?\.safetensors"
)
#: the kit's backbones that are built from a mirror's own data -> the tasks whose data that is
BUILT_FROM = {
    "kit/text-mirror": ("sst2", "qnli"),
    "kit/image-mirror": ("cifar100",),
    "kit/causal-mirror": ("gsm8k",),
    "kit/instruct-mirror": ("dolly", "natural_instructions"),
}


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
        how: "copy" (one file, byte for byte), "join" (tables one after the other) or "convert" (JSON lines).
    """

    place: str
    sources: tuple[RemoteFile, ...]
    how: Literal["copy", "join", "convert"] = "copy"

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(source.size for source in self.sources)


@dataclass(frozen=True)
class Wanted:
    """What a mirror needs.

    Attributes:
        pieces: from the Hub.
        by_hand: sentences about what is not on the Hub, or is built on the machine itself.
    """

    pieces: tuple[Piece, ...]
    by_hand: tuple[str, ...]


def wanted(specs: Iterable[RunSpec]) -> Wanted:
    """What runs need that neither the package nor the repository holds."""
    pieces: dict[tuple[str, ...], Piece] = {}
    by_hand: dict[str, None] = {}
    tasks: dict[str, None] = {}
    for spec in specs:
        known = backbone(spec.model.backbone)
        tasks.update(dict.fromkeys(spec.tasks()))
        if not known.name.startswith("kit/"):
            pieces[("model", known.name)] = Piece("model", known.name, known.revision)
        elif known.name in BUILT_FROM:
            tasks.update(dict.fromkeys(BUILT_FROM[known.name]))
            by_hand[f"build {known.name} from the mirror: fedlora backbones build {known.name}"] = None
    for name in tasks:
        kind = get_task(name)
        if kind.loader is not None:
            continue
        if kind.layout == "task_files":
            files = ", ".join(f"{label}.json" for label in kind.label_names)
            by_hand[
                f"{kind.hub_id} is no table on the Hub: put {files} from github.com/{kind.hub_id}, folder "
                f"tasks, into datasets/{kind.hub_id}/tasks of the mirror"
            ] = None
        else:
            key = ("dataset", kind.hub_id, kind.config, *splits(kind))
            pieces[key] = Piece("dataset", kind.hub_id, kind.revision, kind)
    return Wanted(tuple(pieces.values()), tuple(by_hand))


def splits(kind: Task) -> list[str]:
    """The splits of the source that a task reads."""
    return [kind.train_split] if kind.held_out else sorted({kind.train_split, *kind.eval_splits.values()})


def targets(piece: Piece, files: Iterable[RemoteFile]) -> list[Target]:
    """Which files of a repository become which files of the mirror.

    Raises:
        FedloraError: safetensors weights, or a split, are not among them.
    """
    files = sorted(files, key=lambda file: file.name)
    if piece.kind == "model":
        return _of_model(piece, files)
    assert piece.task is not None
    return [_of_split(piece, piece.task, split, files) for split in splits(piece.task)]


def _of_model(piece: Piece, files: list[RemoteFile]) -> list[Target]:
    chosen = [file for file in files if MODEL_FILES.fullmatch(file.name)]
    names = {file.name for file in chosen}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise FedloraError(
            f"{piece.title} has no config.json with safetensors weights",
            "only safetensors are taken: other formats may hold code; name a revision that has them",
        )
    if "model.safetensors" in names:  # whole: the parts would be the same weights again
        chosen = [f for f in chosen if "-of-" not in f.name and f.name != "model.safetensors.index.json"]
    return [Target(f"models/{piece.repo}/{file.name}", (file,)) for file in chosen]


def _of_split(piece: Piece, kind: Task, split: str, files: list[RemoteFile]) -> Target:
    folder = "/".join(filter(None, ["datasets", kind.hub_id, kind.config]))
    place = f"{folder}/{split}.parquet"
    config = f"(?:{re.escape(kind.config)}/)?" if kind.config else "(?:[^/]+/)?"
    parts = rf"(?:data/)?{config}(?:data/)?{re.escape(split)}(-\d{{5}}-of-(\d{{5}})(-[0-9a-f]+)?)?\.parquet"
    found = [(file, match) for file in files if (match := re.fullmatch(parts, file.name))]
    own = [pair for pair in found if kind.config and f"{kind.config}/" in pair[0].name]
    found = own or found
    folders = {file.name.rpartition("/")[0] for file, _ in found}
    if len(folders) == 1:
        told = {int(match[2]) for _, match in found if match[2]}
        if told and told != {len(found)}:
            raise FedloraError(
                f"{piece.title}: split {split} has {len(found)} of {max(told)} parts",
                "the repository is not complete at that revision; name another one",
            )
        tables = tuple(file for file, _ in found)
        return Target(place, tables, "copy" if len(tables) == 1 else "join")
    lines = [file for file in files if "/" not in file.name and file.name.endswith(".jsonl")]
    if len(lines) == 1 and split == kind.train_split and kind.held_out:  # a data set of one split, as lines
        return Target(place, tuple(lines), "convert")
    raise FedloraError(
        f"{piece.title} has no table of split {split} that the kit can read",
        f"put it into the mirror by hand, as {place}",
    )
