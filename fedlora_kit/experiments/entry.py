"""A finished run as a folder: its files, the manifest that vouches for them, and how to read them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.atomic import from_json, sha256, sha256_file, sync_tree, to_json

MANIFEST = "manifest.json"
SUMMARY = ("spec.json", "results.json", "provenance.json")
"""The small files that a list of runs reads."""

_FORMAT = 1
"""Of the entry: names and form of its files, and of the manifest. Raised by a change that an older version of
this package would misread."""
_MOST_MANIFEST = 64 * 2**20  # bytes; a real one has some hundred a file
_MOST_READ = 2**30  # bytes of a file that is read as a whole: history and descriptions, not the adapter

Content = bytes | str | dict[str, Any] | list[Any] | Path | Callable[[Path], object]
"""What becomes a file or folder of an entry: bytes; text; a JSON value (a list under a name ending in
``.jsonl``: one item a line); a file or folder to copy; or a function that writes the path it is given."""


class Damaged(Exception):
    """Why an entry cannot be trusted. Internal to the store, which sets such an entry aside."""


class OtherFormat(FedloraError):
    """An entry that another version of this package wrote. It is left where it is."""


@dataclass(frozen=True)
class Entry:
    """A finished run in the store; everything is read at first use and compared with the manifest.

    Attributes:
        key: 16 hex digits.
        path: the entry's folder.
    """

    key: str
    path: Path

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The run's description."""
        return self._object("spec.json")

    @cached_property
    def results(self) -> dict[str, Any]:
        """The run's summary: final, mean of the last 10, best, ... as the runner wrote it."""
        return self._object("results.json")

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Versions, commit, device, time, memory: see ``provenance.collect``."""
        return self._object("provenance.json")

    @cached_property
    def privacy(self) -> dict[str, Any] | None:
        """The privacy ledger; ``None`` for a run without DP."""
        return self._object("privacy.json") if "privacy.json" in self._files else None

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One dict a recorded round, in order."""
        return [from_json(line) for line in self._read("history.jsonl").splitlines()]

    @property
    def adapter_dir(self) -> Path:
        """The adapter's folder in PEFT format, for ``PeftModel.from_pretrained``.

        Raises:
            FedloraError: the run kept no adapter.
        """
        if not any(name.startswith("adapter/") for name in self._files):
            raise FedloraError(
                f"run {self.key} kept no adapter", f"it holds: {', '.join(sorted(self._files))}"
            )
        return self.path / "adapter"

    @cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        try:
            return read_manifest(self.path, self.key)
        except Damaged as error:
            raise self._damaged(error) from error

    def _object(self, name: str) -> dict[str, Any]:
        value = from_json(self._read(name))
        if not isinstance(value, dict):
            raise BadValue(f"{name} of run {self.key} is no JSON object", "a dict")
        return value

    def _read(self, name: str) -> bytes:
        if name not in self._files:
            raise FedloraError(f"run {self.key} has no {name}", f"it holds: {', '.join(self._files)}")
        if self._files[name]["bytes"] > _MOST_READ:
            raise self._damaged(f"{name} has {self._files[name]['bytes']} bytes")
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise self._damaged(f"{name} is missing") from error
        if sha256(data) != self._files[name]["sha256"]:
            raise self._damaged(f"{name} does not fit the manifest")
        return data

    def _damaged(self, why: object) -> FedloraError:
        return FedloraError(
            f"entry {self.path} is damaged: {why}",
            "run its notebook again: the entry is set aside and replaced",
        )


def fault(folder: Path, key: str) -> str | None:
    """What is wrong with the entry in ``folder``; ``None`` if nothing, or if there is none.

    Raises:
        OtherFormat: nothing is wrong that could be told: another version wrote it.
    """
    if not os.path.lexists(folder):
        return None
    try:
        verify(folder, key)
    except Damaged as error:
        return str(error)
    return None


def check_name(name: str) -> None:
    """Raise ``BadValue`` unless ``name`` is a plain relative path such as ``adapter/adapter_config.json``."""
    path = PurePosixPath(name)
    bad = not name or path.is_absolute() or ".." in path.parts or str(path) != name or name == "."
    if bad or "\\" in name or "\0" in name or name == MANIFEST:
        raise BadValue(f"file name {name!r}", f"a relative path without '..', other than {MANIFEST}")


def read_manifest(folder: Path, key: str) -> dict[str, dict[str, Any]]:
    """File name -> {"bytes", "sha256"}; raises :class:`Damaged` unless it is exactly what the store wrote.

    Raises:
        OtherFormat: it is of another format than this version's.
    """
    try:
        about = (folder / MANIFEST).lstat()
        if not stat.S_ISREG(about.st_mode):
            raise Damaged(f"{MANIFEST} is no plain file")
        if about.st_size > _MOST_MANIFEST:
            raise Damaged(f"{MANIFEST} has {about.st_size} bytes")
        data = (folder / MANIFEST).read_bytes()
        content = from_json(data)
        form = content.get("format")
        if isinstance(form, int) and form != _FORMAT and data == _manifest(key, content["files"], form):
            raise OtherFormat(
                f"entry {folder} is of format {form}, and this version of fedlora-kit reads format {_FORMAT}",
                "use the version that wrote it (its provenance.json names it), or name another folder in "
                "FEDLORA_RUNS and train the run anew",
            )
        files: dict[str, dict[str, Any]] = content["files"]
        for name, record in files.items():
            check_name(name)
            if set(record) != {"bytes", "sha256"}:
                raise Damaged(f"{MANIFEST} has an unknown record")
        if data != _manifest(key, files):
            raise Damaged(f"{MANIFEST} was changed, or belongs to another run")
    except FileNotFoundError as error:
        raise Damaged(f"{MANIFEST} is missing") from error
    except (ValueError, TypeError, KeyError, AttributeError, NotADirectoryError, BadValue) as error:
        raise Damaged(f"{MANIFEST} cannot be read") from error
    return files


def verify(folder: Path, key: str) -> None:
    """Compare every file with the manifest; raises :class:`Damaged` that says what is wrong."""
    if folder.is_symlink() or not folder.is_dir():
        raise Damaged("it is no folder")
    expected = read_manifest(folder, key)
    found = _walk(folder)
    found.discard(MANIFEST)
    for what, names in (("missing", expected.keys() - found), ("unexpected", found - expected.keys())):
        if names:
            raise Damaged(f"{what}: {', '.join(sorted(names))}")
    verify_files(folder, expected, expected)


def verify_files(folder: Path, expected: Mapping[str, Mapping[str, Any]], names: Collection[str]) -> None:
    """Compare the named files alone (a list of runs reads a few small ones)."""
    for name in names:
        path = folder / name
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise Damaged(f"{name} is no plain file")
            if name not in expected or found.st_size != expected[name]["bytes"]:
                raise Damaged(f"{name} has another size")
            if sha256_file(path) != expected[name]["sha256"]:
                raise Damaged(f"{name} has another content")
        except FileNotFoundError as error:
            raise Damaged(f"{name} is missing") from error


def build(folder: Path, key: str, files: Mapping[str, Content]) -> None:
    """Write an entry's files and manifest into the new ``folder`` and flush all of it to the disk.

    Raises:
        BadValue: a name or a content that cannot be kept, or a missing part.
    """
    for name in files:
        check_name(name)
    if lacking := [name for name in (*SUMMARY, "history.jsonl") if name not in files]:
        raise BadValue(f"run {key} lacks {', '.join(lacking)}", "give it to finish()")
    folder.mkdir()
    for name, content in files.items():
        _put(folder / name, content)
    try:
        names = sorted(_walk(folder))
    except Damaged as error:
        raise BadValue(
            f"run {key}: {error}", "an entry holds plain files and folders that are not empty"
        ) from error
    records = {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256_file(folder / n)} for n in names}
    (folder / MANIFEST).write_bytes(_manifest(key, records))
    sync_tree(folder)


def _put(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, "utf-8", newline="")
    elif isinstance(content, Path):
        if content.is_dir():
            shutil.copytree(content, path, symlinks=True)
        else:
            shutil.copyfile(content, path)
    elif isinstance(content, list) and path.suffix == ".jsonl":
        path.write_text("".join(to_json(row) + "\n" for row in content), "utf-8")
    elif isinstance(content, (dict, list)):
        path.write_text(to_json(content, indent=2) + "\n", "utf-8")
    elif callable(content):
        content(path)
    else:
        raise BadValue(
            f"{path.name}: a {type(content).__name__} cannot be kept", "bytes, text, JSON, path, function"
        )


def _walk(folder: Path) -> set[str]:
    """Names of the files below ``folder``; links, devices and empty folders are :class:`Damaged`."""
    names: set[str] = set()
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError as error:
                raise Damaged(f"missing: {path.relative_to(folder).as_posix()}") from error
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise Damaged(f"unexpected: {path.relative_to(folder).as_posix()} is no plain file")
        if not folders and not files:
            raise Damaged(f"unexpected: {Path(where).relative_to(folder).as_posix()} is an empty folder")
        names |= {Path(where, name).relative_to(folder).as_posix() for name in files}
    return names


def _manifest(key: str, files: Mapping[str, Any], form: int = _FORMAT) -> bytes:
    """The one spelling of a manifest; it carries a digest of itself, so that no flipped bit goes unseen."""
    body = {"format": form, "key": key, "files": {name: files[name] for name in sorted(files)}}
    return (to_json({**body, "sha256": sha256(to_json(body).encode())}, indent=1) + "\n").encode()
