"""Building a mirror: files of the Hub at pinned revisions, checked, in the layout that loading reads.

A file comes to its place in one step, after its digest was compared; until then it lies in ``.fetch/`` of the
mirror. What is in place is listed in ``DIGESTS.json``, with where it came from, and not fetched again while
it fits that list.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedlora_kit import mirror, paths
from fedlora_kit.batch.fetch_plan import Piece, RemoteFile, Target, targets
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.atomic import disk_guard, sync_file, sync_folder, write_json
from fedlora_kit.numerals import size

STAGING = ".fetch"


class Source(Protocol):
    """Where files come from; `hub_source.HubSource` is one."""

    def look(self, piece: Piece) -> tuple[str, list[RemoteFile]]:
        """The revision that is meant (its commit), and the repository's files there."""
        ...

    def download(self, piece: Piece, revision: str, file: RemoteFile, folder: Path) -> Path:
        """Bring a file below ``folder``; an earlier call may have left half of it there."""
        ...


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


def look(pieces: Sequence[Piece], source: Source) -> list[Job]:
    """Ask the source for every piece; nothing is downloaded.

    Raises:
        FedloraError: it cannot be reached, or a piece is not there in a form that is taken.
    """
    jobs = []
    for piece in pieces:
        revision, files = source.look(piece)
        jobs.append(Job(piece, revision, tuple(targets(piece, files))))
    return jobs


def missing(jobs: Sequence[Job], hub: Path) -> list[tuple[Job, Target]]:
    """What is not in place yet, or does not fit the list any more."""
    listed = mirror.listed(hub)
    return [
        (job, target)
        for job in jobs
        for target in job.targets
        if not _in_place(hub, target, listed.get(target.place), _origin(job, target))
    ]


def fetch(
    jobs: Sequence[Job], hub: Path, source: Source, say: Callable[[str], object] = print
) -> list[Target]:
    """Bring what is missing into the mirror; the files that were fetched.

    May be interrupted at any moment, and called again.

    Raises:
        FedloraError: a download failed, or is not what the Hub told; the disk is full.
    """
    todo = missing(jobs, hub)
    for number, (job, target) in enumerate(todo, 1):
        say(f"[{number}/{len(todo)}] {target.place} ({size(target.size)})")
        with disk_guard(hub):
            _one(job, target, hub, source)
    shutil.rmtree(hub / STAGING, ignore_errors=True)
    return [target for _, target in todo]


def _one(job: Job, target: Target, hub: Path, source: Source) -> None:
    place = paths.inside(hub, target.place)
    work = paths.inside(hub, f"{STAGING}/{job.piece.kind}/{job.piece.repo}/{job.revision}")
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
        _TABLES[target.how](parts, ready)
    digest, size = mirror.file_sha256(ready), ready.stat().st_size
    sync_file(ready)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(ready, place)
    sync_folder(place.parent)
    record = {"sha256": digest, "bytes": size, "from": _origin(job, target)}
    write_json(hub / mirror.LIST, {"format": 1, "files": {**mirror.listed(hub), target.place: record}})
    for file in parts[1:] if target.how == "copy" else parts:
        file.unlink(missing_ok=True)


def _origin(job: Job, target: Target) -> dict[str, Any]:
    """Where a file of the mirror came from, as the list keeps it."""
    names = [source.name for source in target.sources]
    return {"repo": job.piece.repo, "revision": job.revision, "files": names, "how": target.how}


def _in_place(hub: Path, target: Target, record: dict[str, Any] | None, origin: dict[str, Any]) -> bool:
    file = paths.inside(hub, target.place)
    if record is None or record.get("from") != origin or not file.is_file():
        return False
    return bool(file.stat().st_size == record["bytes"] and mirror.file_sha256(file) == record["sha256"])


def _compare(job: Job, remote: RemoteFile, file: Path) -> None:
    """Compare a download with what the Hub told; one that differs is thrown away."""
    size = file.stat().st_size
    fits = size == remote.size
    if fits and remote.sha256:
        fits = mirror.file_sha256(file) == remote.sha256
    elif fits and remote.blob:
        data = file.read_bytes()
        fits = hashlib.sha1(b"blob %d\0" % size + data, usedforsecurity=False).hexdigest() == remote.blob
    if not fits:
        file.unlink()
        raise FedloraError(
            f"{remote.name} of {job.piece.title} came damaged: {size} bytes of {remote.size}, or of another "
            "digest than the Hub tells",
            "it was thrown away; the same command fetches it again",
        )


def _join(parts: Sequence[Path], to: Path) -> None:
    """Tables one after the other, piece by piece, so that large ones need no memory."""
    import pyarrow.parquet

    first = pyarrow.parquet.ParquetFile(parts[0])
    with pyarrow.parquet.ParquetWriter(to, first.schema_arrow) as writer:
        for part in parts:
            for batch in pyarrow.parquet.ParquetFile(part).iter_batches():
                writer.write_batch(batch)


def _convert(parts: Sequence[Path], to: Path) -> None:
    """JSON lines as a table."""
    import pandas as pd

    pd.read_json(parts[0], lines=True, dtype=False).to_parquet(to, index=False)


_TABLES: dict[str, Callable[[Sequence[Path], Path], None]] = {"join": _join, "convert": _convert}
