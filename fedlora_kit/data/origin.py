"""Which file, which commit, which table is a split of a task: one answer for loading and for keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from fedlora_kit import hub, mirror, paths
from fedlora_kit.data import natural_instructions
from fedlora_kit.data.task import Task
from fedlora_kit.errors import BadValue, FedloraError, UnknownName

#: endings of what is taken from a folder of images
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Origin:
    """Where one split of a task comes from.

    Attributes:
        kind: "loader" (built in, or handed over), "table" (in memory), "files" (the caller's own), "mirror",
            or "hub".
        split: of the source: the training split where the scored one is held out of it.
        files: those that hold it, in order; whether they are there is not looked at.
        root: the folder from which they are named; of images the one with the classes.
        table: of "table".
    """

    kind: Literal["loader", "table", "files", "mirror", "hub"]
    spec: Task
    split: str
    files: tuple[Path, ...] = ()
    root: Path | None = None
    table: Any = None

    @property
    def where(self) -> str:
        """Names it in an error."""
        source = self.spec.hub_id or f"task {self.spec.name}"
        if self.kind == "files":
            source = self.root.name if self.root else ", ".join(file.name for file in self.files[:3])
        return f"{source} ({self.split})"

    @property
    def remedy(self) -> str:
        """What to do about a value in it that cannot be used."""
        if self.kind in ("files", "table", "loader"):
            return "convert or leave out such rows where the data are made"
        return "the file is damaged or of another version; fetch it again"

    def digest(self) -> str:
        """What its content is, as a short text: files by their bytes, the Hub by its commit.

        Raises:
            FedloraError: a file is missing or is not what the mirror lists; the Hub tells no commit.
        """
        if self.kind == "hub":
            commit = hub.commit("dataset", self.spec.hub_id, self.spec.revision)
            return f"hub:{self.spec.hub_id}@{commit}"
        if self.kind == "table":
            self.check_columns(self.table.column_names)
            return f"table:{_rows(self.table, tuple(self.spec.source_columns))}"
        self.check()
        stats = [file.stat() for file in self.files]
        names = [file.relative_to(self.root).as_posix() if self.root else "" for file in self.files]
        told = zip(names, self.files, (s.st_size for s in stats), (s.st_mtime_ns for s in stats), strict=True)
        return f"{self.kind}:{_bytes(tuple(told))}"

    def check(self) -> None:
        """See that its files are there, and those of a mirror what its list says.

        Raises:
            FedloraError: one is not.
        """
        for file in self.files:
            if not file.is_file():
                raise self._missing(file)
            if self.kind == "mirror":
                mirror.check(file, revision=self.spec.revision)
        if self.kind == "files" and not self.files:
            raise BadValue(
                f"{self.root} holds no images in sub-folders ({', '.join(IMAGES)})",
                "put the images of each class into a folder of its own there",
            )

    def check_columns(self, there: Sequence[str]) -> None:
        """See that a table has the task's columns.

        Raises:
            FedloraError: it lacks one.
        """
        missing = [column for column in self.spec.source_columns if column not in there]
        if missing:
            own = "name the columns that it has: columns, label and group of `task_from`"
            raise FedloraError(
                f"{self.where} has no column {', '.join(missing)}; it has {', '.join(there)}",
                f"if it is the right data set, {own}; otherwise fetch it again"
                if self.kind in ("hub", "mirror")
                else own,
            )

    def _missing(self, file: Path) -> FedloraError:
        if self.kind == "files":
            return BadValue(
                f"task {self.spec.name}: there is no file {file}", "put it there, or name another one"
            )
        hub_dir = paths.hub_dir()
        place = file.relative_to(hub_dir) if hub_dir else file
        return FedloraError(
            f"the mirror has no {place} (data set {self.spec.hub_id})",
            "put that file into the folder named by FEDLORA_HUB, or unset FEDLORA_HUB to ask the Hub",
        )


def origin(spec: Task, split: str) -> Origin:
    """Where a split of a task comes from; nothing is read or asked.

    Raises:
        UnknownName: the task has no such split.
        FedloraError: a name leads out of the mirror; a task of task files has no mirror, or lacks one.
    """
    split = spec.train_split if spec.held_out else split
    if spec.loader is not None:
        return Origin("loader", spec, split)
    known: Mapping[str, Any] = spec.tables or spec.files
    if known and split not in known:
        raise UnknownName(f"split of task {spec.name!r}", split, known)
    if spec.tables:
        return Origin("table", spec, split, table=spec.tables[split])
    if spec.files and spec.form == "images":
        root = Path(spec.files[split][0])
        found = sorted(f for f in root.glob("*/**/*") if f.suffix.lower() in IMAGES and not hidden(f, root))
        return Origin("files", spec, split, tuple(found), root)
    if spec.files:
        return Origin("files", spec, split, tuple(map(Path, spec.files[split])))
    if spec.layout == "task_files":
        return Origin("mirror", spec, split, tuple(natural_instructions.task_files(spec)))
    mirrored = paths.hub_dir()
    if mirrored is None:
        return Origin("hub", spec, split)
    return Origin("mirror", spec, split, (paths.inside(mirrored, place(spec, split)),))


def place(spec: Task, split: str) -> str:
    """The path below a mirror of one split: ``datasets/<id>/<config>/<split>.parquet``."""
    return "/".join(filter(None, ["datasets", spec.hub_id, spec.config, f"{split}.parquet"]))


def hidden(path: Path, root: Path) -> bool:
    """Whether a file, or a folder above it and below ``root``, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


@lru_cache(maxsize=256)
def _bytes(files: tuple[tuple[str, Path, int, int], ...]) -> str:
    """Of files as (name that counts, path, size, time): 16 hex digits."""
    digest = hashlib.sha256()
    for name, file, _, _ in files:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(bytes.fromhex(mirror.file_sha256(file)))
    return digest.hexdigest()[:16]


def undecoded(table: Any, column: str) -> Any:
    """The table with a column of images as plain bytes and paths; without one, the table itself."""
    import datasets

    if isinstance(table.features[column], datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    return table


@lru_cache(maxsize=64)
def _rows(table: Any, columns: Sequence[str]) -> str:
    """Of the rows of a table in memory, and of the names of its classes: 16 hex digits."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column}{getattr(table.features[column], 'names', '')}".encode())
        for value in undecoded(table, column)[column]:
            if isinstance(value, dict):  # an image
                value = value.get("bytes") or Path(str(value.get("path"))).read_bytes()
            data = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
