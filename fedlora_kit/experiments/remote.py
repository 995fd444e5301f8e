"""A store of runs at any address that fsspec knows: a shared folder, an object store, memory.

::

    <url>/<key>/manifest.json         the entry's manifest, written last: with it the run is there
    <url>/<key>/<digest>/<file>       the entry's files; the folder is named by the manifest's SHA-256
    <url>/.checkpoints/<key>/         the newest two checkpoints of a run under way

Object stores know no lock and no rename, and here none is needed: a writer writes into a folder of its own,
one object makes it visible, and manifests and checkpoints carry their own digests. Two writers of one run do
not mix, and what was half written when a machine died is not seen. Nothing is ever trained or read here in
place: `RemoteStore.fetch` brings an entry into the local `Store`, every file compared with its manifest.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import entry as entries_
from fedlora_kit.experiments.atomic import DamageWarning, from_json, sha256, to_json, write_bytes
from fedlora_kit.experiments.checkpoints import KEEP, NAME, PART, CheckpointFolder, named_files
from fedlora_kit.experiments.entry import Damaged, Entry
from fedlora_kit.experiments.store import Store

_KEY = re.compile(r"[0-9a-f]{16}")
_SUFFIXES = {".json", ".jsonl", ".safetensors", ".md"}  # what a run leaves; anything else is refused
_SMALL = 4 << 20  # bytes that a manifest or a description may have
_BLOCK = 1 << 20


class RemoteStore:
    """Finished runs, and the checkpoints of runs under way, at an address that several machines reach.

    Args:
        url: ``/a/shared/folder``, ``file:///a/folder``, ``s3://bucket/folder``, ...; made at the first write.
            How to get in (keys, endpoints) is fsspec's own configuration, never a part of the address.

    Raises:
        BadValue: fsspec knows no such address.
        FedloraError: fsspec needs a further package for it.
    """

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        shown, remedy = re.sub(r"//[^/@]*@", "//", url), "name a folder, or for example s3://bucket/runs"
        if not url.strip():
            raise BadValue("the address of the store is empty", remedy)
        try:
            self._fs, root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise FedloraError(f"store {shown}: {error}", "install the package that it names") from error
        except ValueError as error:
            raise BadValue(f"store {shown}: {error}", remedy) from error
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        #: the address; a folder's is absolute, so that another process finds the same one
        self.url = self._fs.unstrip_protocol(root) if self._local else url
        self.shown = self.url if self._local else shown

    def keys(self, among: Iterable[str] | None = None) -> list[str]:
        """Keys of the published runs, ascending; only those of ``among`` if given."""
        wanted = None if among is None else set(among)
        found = [k for k in self._names(self._root) if (_KEY.fullmatch(k) if wanted is None else k in wanted)]
        return [key for key in found if self._fs.exists(f"{self._folder(key)}/{entries_.MANIFEST}")]

    def publish(self, entry: Entry) -> None:
        """Make a finished run visible to all, at once and whole; then drop its checkpoints here.

        A run that is here already is replaced (a reader sees the one or the other).

        Raises:
            FedloraError: the local entry is damaged.
            OSError: the address cannot be written.
        """
        folder = self._folder(entry.key)
        try:
            manifest = (entry.path / entries_.MANIFEST).read_bytes()
            for name, record in entries_.read_manifest(entry.path, entry.key).items():
                data = (entry.path / name).read_bytes()
                if sha256(data) != record["sha256"]:
                    raise Damaged(f"{name} has another content")
                self._write(f"{folder}/{_place(manifest)}/{name}", data)
        except (Damaged, FileNotFoundError) as error:
            raise FedloraError(f"entry {entry.path} is damaged: {error}", "run it again") from error
        self._write(f"{folder}/{entries_.MANIFEST}", manifest)
        self.drop_checkpoints(entry.key)

    def fetch(self, key: str, store: Store, spec: Mapping[str, Any] | None = None) -> Entry | None:
        """Bring a run into a local store; ``None`` if it is not here.

        Every file is compared with the manifest before the entry appears in ``store``. An entry that does not
        fit is left alone with a `DamageWarning`, and counts as absent: a missing, changed, larger or unknown
        file, a name that leads out of the folder, a manifest of another run, a description other than
        ``spec``. A digest says that nothing was changed on the way, not who trained the run.

        Raises:
            FedloraError: the disk has no room for it.
        """
        folder = self._folder(key)
        try:
            manifest = self._small(f"{folder}/{entries_.MANIFEST}")
        except FileNotFoundError:
            return None
        except Damaged as error:
            self._refuse(key, error)
            return None
        here = f"{folder}/{_place(manifest)}"
        try:
            description = self._small(f"{here}/spec.json")
            given = from_json(description)
            if not isinstance(given, dict):
                raise Damaged("spec.json is no description")
            if spec is not None and description != (to_json(dict(spec), indent=2) + "\n").encode():
                raise Damaged("spec.json describes another run")
            with store.work(key, given) as work:
                if work.entry is None:
                    target = work.dir / "fetched"
                    shutil.rmtree(target, ignore_errors=True)
                    try:
                        with disk_guard(store.root):
                            self._download(key, here, manifest, target)
                        own = {entries_.MANIFEST, "spec.json"}
                        work.finish({p.name: p for p in target.iterdir() if p.name not in own})
                    finally:
                        shutil.rmtree(target, ignore_errors=True)
                return work.entry
        except (Damaged, BadValue, FileNotFoundError, ValueError, RecursionError) as error:
            self._refuse(key, error)
            return None

    def checkpoint_rounds(self, key: str) -> list[int]:
        """Rounds of a run under way that have a checkpoint here, ascending."""
        names = self._names(self._checkpoints(key))
        return sorted(int(found[1]) for name in names if (found := NAME.fullmatch(name)))

    def publish_checkpoint(self, key: str, folder: CheckpointFolder, round_index: int) -> None:
        """Copy a checkpoint here, first the client files that it needs; then the newest two remain."""
        place = self._checkpoints(key)
        here = self._names(place)
        for name in folder.files(round_index):
            if name not in here:  # named by its content: the same name is the same file
                self._write(f"{place}/{name}", (folder.folder / name).read_bytes())
        path = folder.path(round_index)
        self._write(f"{place}/{path.name}", path.read_bytes())
        rounds = self.checkpoint_rounds(key)
        try:
            needed = {name for kept in rounds[-KEEP:] for name in self._checkpoint_files(key, kept)}
        except (ValueError, FileNotFoundError):  # one is damaged: keep all
            return
        old = {self._checkpoint(key, index) for index in rounds[:-KEEP]}
        old |= {f"{place}/{name}" for name in here if PART.fullmatch(name) and name not in needed}
        for unneeded in old:
            with suppress(OSError):  # another writer of the same run may have removed it
                self._fs.rm_file(unneeded)

    def fetch_checkpoints(self, key: str, folder: CheckpointFolder) -> None:
        """Copy the checkpoints here into ``folder``, which checks their digests when it loads one.

        What vanishes meanwhile, or has no room on the disk, is left out.
        """
        folder.folder.mkdir(parents=True, exist_ok=True)
        for round_index in self.checkpoint_rounds(key):
            self._copy_checkpoint(key, folder.path(round_index))
            with suppress(ValueError, FileNotFoundError):
                for name in filter(PART.fullmatch, folder.files(round_index)):
                    if not (folder.folder / name).exists():
                        self._copy_checkpoint(key, folder.folder / name)

    def drop_checkpoints(self, key: str) -> None:
        """Remove the checkpoints of a run; what cannot be removed stays and hinders nobody."""
        folder = self._checkpoints(key)
        with suppress(OSError, NotImplementedError):
            for name in self._names(folder):  # not rm(recursive): that reads patterns into the address
                self._fs.rm_file(f"{folder}/{name}")
            self._fs.rmdir(folder)

    def _download(self, key: str, here: str, manifest: bytes, target: Path) -> None:
        """The files that ``manifest`` names, and no others, as the folder ``target``; verified."""
        target.mkdir(parents=True)
        (target / entries_.MANIFEST).write_bytes(manifest)
        files = entries_.read_manifest(target, key)  # refuses names that lead out of the folder
        for name in files:
            if PurePosixPath(name).suffix not in _SUFFIXES:
                raise Damaged(f"{name} is no file of a run")
        found = {path[len(here) + 1 :] for path in self._fs.find(here)}
        if found != files.keys():
            raise Damaged(f"missing or unexpected: {', '.join(sorted(found ^ files.keys()))}")
        total = sum(record["bytes"] for record in files.values())
        if total > shutil.disk_usage(target).free:
            raise FedloraError(
                f"run {key} has {total} bytes, for which {target} has no room", "free some space there"
            )
        for name, record in files.items():
            place = target / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                self._copy(f"{here}/{name}", place, record["bytes"])
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise Damaged(f"{name} is a file and a folder") from error
        entries_.verify(target, key)

    def _copy(self, source: str, target: Path, size: int) -> None:
        left = size
        with self._fs.open(source, "rb") as remote, target.open("xb") as local:
            while block := remote.read(_BLOCK):
                left -= len(block)
                if left < 0:  # do not fill the disk to find that out
                    raise Damaged(f"{target.name} is larger than the manifest says")
                local.write(block)

    def _small(self, path: str) -> bytes:
        if self._fs.info(path)["size"] > _SMALL:
            raise Damaged(f"{path.rsplit('/', 1)[1]} has more than {_SMALL} bytes")
        data: bytes = self._fs.cat_file(path)
        return data

    def _write(self, path: str, data: bytes) -> None:
        if self._local:
            write_bytes(Path(path), data)
        else:  # object stores show an object when it is whole; elsewhere its digest tells
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, data)

    def _names(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()  # other machines write here
        try:
            return sorted(path.rstrip("/").rsplit("/", 1)[1] for path in self._fs.ls(folder, detail=False))
        except FileNotFoundError:
            return []

    def _folder(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise BadValue(f"run key {key!r}", "a key is 16 hex digits (0-9, a-f)")
        return f"{self._root}/{key}"

    def _checkpoints(self, key: str) -> str:
        self._folder(key)
        return f"{self._root}/.checkpoints/{key}"

    def _copy_checkpoint(self, key: str, target: Path) -> None:
        path = f"{self._checkpoints(key)}/{target.name}"
        with suppress(FileNotFoundError):
            if self._fs.info(path)["size"] < shutil.disk_usage(target.parent).free:
                write_bytes(target, self._fs.cat_file(path))

    def _checkpoint_files(self, key: str, round_index: int) -> dict[str, str]:
        with self._fs.open(self._checkpoint(key, round_index), "rb") as file:
            return named_files(file)

    def _checkpoint(self, key: str, round_index: int) -> str:
        return f"{self._checkpoints(key)}/{CheckpointFolder(Path()).path(round_index).name}"

    def _refuse(self, key: str, why: object) -> None:
        warnings.warn(
            f"run {key} in {self.shown} is damaged or half published ({why}); it is not used",
            DamageWarning,
            stacklevel=3,
        )


def _place(manifest: bytes) -> str:
    return sha256(manifest)[:16]
