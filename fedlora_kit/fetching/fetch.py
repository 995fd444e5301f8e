"""Building a mirror: files of the Hub at pinned revisions, checked, in the layout that loading reads.

A file comes to its place in one step, after its digest was compared; until then it lies in ``.fetch/`` of the
mirror. What is in place is listed in ``DIGESTS.json``, with where it came from, and not fetched again while
it fits that list. A file that somebody put there by hand is kept. A piece that cannot be had does not stop
the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fedlora_kit import mirror, paths
from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.atomic import sync_file, sync_folder, write_json
from fedlora_kit.fetching import in_mirror
from fedlora_kit.fetching import tables as fetch_tables
from fedlora_kit.fetching.plan import Listing, Piece, RemoteFile, Target, targets
from fedlora_kit.hub_errors import Unreachable
from fedlora_kit.numerals import size

STAGING = ".fetch"
#: pieces in a row without an answer, after which the others are not asked for: each would wait as long
PATIENCE = 2


class Source(Protocol):
    """Where files come from; `hub_source.HubSource` is one. All of it raises `FedloraError`."""

    def look(self, piece: Piece) -> Listing:
        """What the repository holds at the piece's revision."""

    def check_access(self, piece: Piece, revision: str, file: RemoteFile) -> None:
        """Raise the error with which a download would end at once; downloads nothing."""

    def download(self, piece: Piece, revision: str, file: RemoteFile, folder: Path) -> Path:
        """Bring a file below ``folder``; an earlier call may have left half of it there."""


@dataclass(frozen=True)
class Job:
    """One repository of a fetch: its commit, and the mirror's files that it becomes."""

    piece: Piece
    revision: str
    targets: tuple[Target, ...]

    @property
    def size(self) -> int:
        """Bytes to download, if nothing is there yet."""
        return sum(target.size for target in self.targets)

    def origin(self, target: Target) -> dict[str, Any]:
        """Where a file of the mirror comes from, as the mirror's list keeps it."""
        names = [source.name for source in target.sources]
        return {"repo": self.piece.repo, "revision": self.revision, "files": names, "how": target.how}

    def state(self, target: Target, hub: Path) -> in_mirror.State:
        """How a file of the mirror is there."""
        return in_mirror.state(hub, target, self.origin(target))


@dataclass(frozen=True)
class Missed:
    """A piece that cannot be had, and why."""

    piece: Piece
    error: FedloraError


@dataclass(frozen=True)
class Survey:
    """What the source has of the pieces.

    Attributes:
        jobs: what can be had.
        held: pieces that the source does not give, and that the mirror has.
        missed: the others.
    """

    jobs: list[Job]
    held: list[Piece]
    missed: list[Missed]


def look(pieces: Sequence[Piece], source: Source, hub: Path) -> Survey:
    """Ask the source for every piece; nothing is downloaded."""
    jobs: list[Job] = []
    held: list[Piece] = []
    turns = _Turns()

    def ask(piece: Piece) -> None:
        listing = source.look(piece)
        job = Job(piece, listing.commit, tuple(targets(piece, listing.files)))
        todo = [target for _, target in missing([job], hub)]
        if todo and listing.gated:
            source.check_access(piece, job.revision, todo[0].sources[0])
        _check_tables(job, [target for target in job.targets if target not in todo], hub)
        jobs.append(job)

    def is_held(piece: Piece) -> bool:
        whole = in_mirror.holds(hub, piece)
        held.extend([piece] if whole else [])
        return whole

    for piece in pieces:
        turns.take(piece, partial(ask, piece), partial(is_held, piece))
    return Survey(jobs, held, turns.missed)


def missing(jobs: Sequence[Job], hub: Path) -> list[tuple[Job, Target]]:
    """What is not in place yet, or does not fit the list any more."""
    return [(job, t) for job in jobs for t in job.targets if job.state(t, hub) == "missing"]


def by_hand(jobs: Sequence[Job], hub: Path) -> list[tuple[Job, Target]]:
    """What is in place, not listed, and not known to be the source's own file."""
    there = [(job, t) for job in jobs for t in job.targets if job.state(t, hub) == "by hand"]
    return [(j, t) for j, t in there if t.how != "copy" or not in_mirror.same(hub / t.place, t.sources[0])]


def fetch(
    jobs: Sequence[Job],
    hub: Path,
    source: Source,
    say: Callable[[str], object] = print,
    missed: Sequence[Missed] = (),
) -> tuple[list[Target], list[Missed]]:
    """Bring what is missing into the mirror: the files that were fetched, and all pieces that were not.

    May be interrupted at any moment, and called again.

    Args:
        missed: what `look` could not find; what an earlier call began of it is kept.

    Raises:
        FedloraError: the disk is full, or cannot be written.
    """
    done: list[Target] = []
    turns, todo = _Turns(missed), missing(jobs, hub)
    kept = by_hand(jobs, hub)

    def bring(job: Job, own: Sequence[Target]) -> None:
        for target in own:
            say(f"[{todo.index((job, target)) + 1}/{len(todo)}] {target.place} ({size(target.size)})")
            _one(job, target, hub, source)
            done.append(target)
        _check_tables(job, own, hub)

    with disk_guard(hub):
        for job in jobs:
            for target in job.targets:  # put there by hand, and the source's own
                if job.state(target, hub) == "by hand" and (job, target) not in kept:
                    _list(hub, job, target, hub / target.place)
            own = [target for owner, target in todo if owner is job]
            if own:
                turns.take(job.piece, partial(bring, job, own))
    _clear(hub, [job for job in jobs if all(each.piece is not job.piece for each in turns.missed)])
    if not turns.missed:
        shutil.rmtree(hub / STAGING, ignore_errors=True)
    return done, turns.missed


def _clear(hub: Path, whole: Sequence[Job]) -> None:
    """Remove what is left of finished jobs; what was begun of others is kept for the next call."""
    for job in whole:
        shutil.rmtree(_work(hub, job), ignore_errors=True)
    for folder, _, _ in os.walk(hub / STAGING, topdown=False):
        with suppress(OSError):  # not empty
            os.rmdir(folder)


class _Turns:
    """Pieces one after the other: one that cannot be had is noted, and the next one is tried."""

    def __init__(self, missed: Sequence[Missed] = ()) -> None:
        self.missed = list(missed)
        self._silent = 0

    def take(self, piece: Piece, do: Callable[[], None], is_held: Callable[[], bool] = lambda: False) -> None:
        """Do one; where that fails and ``is_held()``, nothing is missed."""
        try:
            if self._silent >= PATIENCE:
                raise Unreachable(
                    f"{piece.title} was not asked for: the Hub gave no answer for the pieces before it",
                    "the remedy is theirs",
                )
            do()
            self._silent = 0
        except FedloraError as error:
            self._silent = self._silent + 1 if isinstance(error, Unreachable) else 0
            try:
                if not is_held():
                    self.missed.append(Missed(piece, error))
            except FedloraError as of_no_use:
                self.missed.append(Missed(piece, of_no_use))


def _work(hub: Path, job: Job) -> Path:
    return paths.inside(hub, f"{STAGING}/{job.piece.kind}/{job.piece.repo}/{job.revision}")


def _one(job: Job, target: Target, hub: Path, source: Source) -> None:
    place, work = paths.inside(hub, target.place), _work(hub, job)
    parts = []
    for remote in target.sources:
        paths.inside(work, remote.name)  # a name from outside
        work.mkdir(parents=True, exist_ok=True)
        file = source.download(job.piece, job.revision, remote, work)
        _compare(job, remote, file)
        parts.append(file)
    ready = parts[0]
    if target.how != "copy":
        ready = work / "made.parquet"
        fetch_tables.make(target.how, parts, ready, target.classes)
    sync_file(ready)
    _list(hub, job, target, ready)  # first: what is in place and not listed counts as put there by hand
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(ready, place)
    sync_folder(place.parent)
    for file in parts[1:] if target.how == "copy" else parts:
        file.unlink(missing_ok=True)


def _list(hub: Path, job: Job, target: Target, file: Path) -> None:
    """Write a file of the mirror into its list."""
    digest, size = mirror.file_sha256(file), file.stat().st_size
    record = {"sha256": digest, "bytes": size, "from": job.origin(target)}
    write_json(hub / mirror.LIST, {"format": 1, "files": {**mirror.listed(hub), target.place: record}})


def _check_tables(job: Job, own: Sequence[Target], hub: Path) -> None:
    for target in own:
        if job.piece.task is not None:
            in_mirror.check_table(hub, target.place, job.piece.task)


def _compare(job: Job, remote: RemoteFile, file: Path) -> None:
    """Compare a download with what the Hub told; one that differs is thrown away."""
    if not in_mirror.same(file, remote):
        size = file.stat().st_size
        file.unlink()
        raise FedloraError(
            f"{remote.name} of {job.piece.title} came damaged: {size} bytes of {remote.size}, or of another "
            "digest than the Hub tells",
            "it was thrown away; the same command fetches it again",
        )
