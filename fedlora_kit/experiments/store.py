"""The store of runs: ``<root>/<key>/`` is a finished run, whole and never changed again.

Beside them lie ``.work/<key>/`` (runs under way: description and checkpoints), ``.failed/<key>.json``,
``.locks/`` and ``.damaged/<key>-<n>/`` (entries that no longer fit their manifest, kept to be looked at).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

from fedlora_kit import disk
from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import entry as entries_
from fedlora_kit.experiments.atomic import (
    DamageWarning,
    from_json,
    remove_leftovers,
    set_aside,
    sync_folder,
    write_json,
)
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.entry import Content, Damaged, Entry, OtherFormat
from fedlora_kit.experiments.locks import KeyLock, is_held
from fedlora_kit.paths import runs_dir

__all__ = ["Content", "Entry", "Status", "Store", "Unfinished", "Work"]

Status = Literal["absent", "running", "interrupted", "finished", "failed"]

_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Unfinished:
    """A run that has begun and is not finished.

    Attributes:
        key: 16 hex digits.
        status: "running", "interrupted" or "failed".
        spec: its description; ``None`` if that cannot be read any more.
        round_index: the last round with a checkpoint, counted from 0; ``None`` before the first.
        failure: what :meth:`Work.fail` recorded; ``None`` unless it failed.
    """

    key: str
    status: Status
    spec: dict[str, Any] | None
    round_index: int | None
    failure: dict[str, Any] | None


class Work:
    """A run that this process holds the lock of.

    Attributes:
        key, spec: of the run.
        dir: the run's own folder, kept until it is finished; free for scratch files (not ``entry``,
            ``checkpoints``, ``spec.json``).
        entry: the finished run, if there is one already: then there is nothing to train.
        failure: the record of an earlier attempt that failed, or ``None``.
    """

    def __init__(self, store: Store, key: str, spec: dict[str, Any], entry: Entry | None) -> None:
        self.key, self.spec, self.entry = key, spec, entry
        self.dir = store.root / ".work" / key
        self.failure = None if entry else store.failure(key)
        self._store = store

    @cached_property
    def checkpoints(self) -> CheckpointFolder:
        """The run's round checkpoints."""
        return CheckpointFolder(self.dir / "checkpoints")

    def finish(self, files: Mapping[str, Content]) -> Entry:
        """Turn the run into an entry, all at once, and drop its checkpoints and any failure record.

        Args:
            files: name -> content. Needed: ``results.json``, ``provenance.json``, ``history.jsonl``; usual:
                ``privacy.json``, ``adapter`` (a folder). ``spec.json`` is added.

        Raises:
            BadValue: a name outside the entry, a part missing, a content that cannot be kept.
            FedloraError: the run is finished already, or the disk is full; then the checkpoints remain.
        """
        if self.entry is not None:
            raise FedloraError(f"run {self.key} is finished already", "look at work.entry before training")
        if "spec.json" in files:
            raise BadValue("spec.json among the files of finish()", "leave it out: the store writes it")
        staging = self.dir / "entry"
        with disk_guard(self.dir):
            _remove(staging)
            try:
                entries_.build(staging, self.key, {"spec.json": self.spec, **files})
            except BaseException:
                _remove(staging)
                raise
            self.entry = self._store._publish(self.key, staging)
        return self.entry

    def fail(self, info: Mapping[str, Any]) -> None:
        """Record that the run cannot be finished, e.g. ``{"error": ..., "round": 3, "client": 1}``.

        The checkpoints stay, so that :meth:`Store.clear_failure` and a new start go on from them.
        """
        folder, name = self._store.root / ".failed", f"{self.key}.json"
        remove_leftovers(folder, name)
        self.failure = dict(info)
        write_json(folder / name, self.failure)


class Store:
    """The runs under one folder.

    Args:
        root: the folder; ``fedlora_kit.paths.runs_dir()`` if ``None``. Made at the first write.
        say: where the line goes that tells of waiting for another process; standard error if ``None``.

    Raises:
        BadValue: ``root``, or what FEDLORA_RUNS names, cannot be a folder.
    """

    def __init__(self, root: Path | None = None, say: Callable[[str], None] | None = None) -> None:
        self.root = disk.folder(str(root), "the root of the store") if root is not None else runs_dir()
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))

    def status(self, key: str) -> Status:
        """Where a run stands, by the names of its files alone; :meth:`load` verifies a finished one."""
        path = self._path(key)
        if (path / entries_.MANIFEST).is_file():
            return "finished"
        if is_held(self._lock(key).path):
            return "running"
        if (self.root / ".failed" / f"{key}.json").exists():
            return "failed"
        return "interrupted" if (self.root / ".work" / key).is_dir() else "absent"

    def load(self, key: str) -> Entry | None:
        """The finished run ``key``, every file compared with its manifest; ``None`` if there is none.

        An entry that does not fit is moved to ``.damaged/<key>-<n>/`` with a
        :class:`~fedlora_kit.experiments.atomic.DamageWarning`, and counts as absent.

        Raises:
            OtherFormat: another version of this package wrote it.
        """
        path = self._path(key)
        reason = entries_.fault(path, key)
        if reason is None:
            return self._entry(key)
        lock = self._lock(key)
        try:
            if lock.try_acquire():
                return self._load_locked(key)
            # Its owner has verified it too, and replaces it or just has.
            return self._entry(key) if entries_.fault(path, key) is None else None
        except OSError as error:
            self._warn(f"entry {path} is damaged ({reason}); it is not used, and cannot be moved: {error}")
            return None
        finally:
            lock.release()

    @contextmanager
    def work(self, key: str, spec: dict[str, Any]) -> Iterator[Work]:
        """Hold the run ``key`` for this process alone, from start to finish.

        If another process holds it, one line says so, and this call waits. Afterwards look at ``work.entry``
        first: it is set if the run is finished (by whomever), and then nothing may be trained. Leaving the
        block without :meth:`Work.finish` keeps the checkpoints; the status is then "interrupted".

        Raises:
            BadValue: ``key`` is not 16 hex digits.
            FedloraError: the store cannot be written.
        """
        lock = self._lock(self._path(key).name)
        with disk_guard(self.root):
            lock.acquire(self._say)
        try:
            with disk_guard(self.root):
                work = Work(self, key, spec, self._load_locked(key))
                if work.entry is not None:
                    self._tidy(key)  # an owner killed between publishing and tidying
                else:
                    write_json(work.dir / "spec.json", spec)
            yield work
        finally:
            lock.release()

    def failure(self, key: str) -> dict[str, Any] | None:
        """What :meth:`Work.fail` recorded for ``key``, or ``None``."""
        path = self.root / ".failed" / f"{self._path(key).name}.json"
        try:
            record = from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            record = None
        return (
            record if isinstance(record, dict) else {"error": f"unknown: the record {path.name} is damaged"}
        )

    def clear_failure(self, key: str) -> None:
        """Forget that ``key`` failed; its checkpoints stay."""
        (self.root / ".failed" / f"{self._path(key).name}.json").unlink(missing_ok=True)

    def entries(self) -> Iterator[Entry]:
        """The finished runs in order of key, in one pass.

        Verifies the small files that a list shows (description, summary, provenance), not the rest. One that
        does not fit is left out with a warning, and left where it is.
        """
        for key in self._keys(self.root):
            path = self.root / key
            try:
                if path.is_symlink():
                    raise Damaged("it is a link")
                entries_.verify_files(path, entries_.read_manifest(path, key), entries_.SUMMARY)
            except Damaged as error:
                self._warn(f"entry {path} is damaged ({error}); left out")
                continue
            except OtherFormat as error:
                self._warn(f"{error.problem}; left out")
                continue
            yield Entry(key, path)

    def unfinished(self) -> Iterator[Unfinished]:
        """Runs that are under way, were interrupted or failed, in order of key."""
        keys = {*self._keys(self.root / ".work"), *self._keys(self.root / ".failed", ".json")}
        for key in sorted(keys):
            status = self.status(key)
            if status in ("finished", "absent"):
                continue
            folder = self.root / ".work" / key
            try:
                spec = from_json((folder / "spec.json").read_bytes())
            except (OSError, ValueError):
                spec = None
            rounds = CheckpointFolder(folder / "checkpoints").rounds()
            failure = self.failure(key) if status == "failed" else None
            yield Unfinished(key, status, spec, rounds[-1] if rounds else None, failure)

    def _path(self, key: str) -> Path:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise BadValue(f"run key {key!r}", "a key is 16 hex digits (0-9, a-f)")
        return self.root / key

    def _lock(self, key: str) -> KeyLock:
        return KeyLock(self.root / ".locks" / f"{key}.lock")

    def _keys(self, folder: Path, suffix: str = "") -> list[str]:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        keys = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
        return sorted(key for key in keys if _KEY.fullmatch(key))

    def _load_locked(self, key: str) -> Entry | None:
        """:meth:`load` for the one who holds the lock."""
        path = self._path(key)
        reason = entries_.fault(path, key)
        if reason is None:
            return self._entry(key)
        aside = set_aside(path, (self.root / ".damaged" / f"{key}-{n}" for n in count(1)))
        self._warn(f"entry {path} is damaged ({reason}); it is not used, and kept as {aside}")
        return None

    def _entry(self, key: str) -> Entry | None:
        return Entry(key, self.root / key) if os.path.lexists(self.root / key) else None

    def _publish(self, key: str, staging: Path) -> Entry:
        path = self.root / key
        try:
            os.rename(staging, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            # Something without the lock put a folder here. A whole entry of this key is this run.
            if self._load_locked(key) is None:
                os.rename(staging, path)
        sync_folder(self.root)
        self._tidy(key)
        return Entry(key, path)

    def _tidy(self, key: str) -> None:
        self.clear_failure(key)
        _remove(self.root / ".work" / key)

    @staticmethod
    def _warn(text: str) -> None:
        warnings.warn(text, DamageWarning, stacklevel=3)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
