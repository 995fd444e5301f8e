"""How a finished folder takes the place of the one before: whole, or not at all.

A notebook writes into ``DIR/<profile>/.staging/<run>/new/<item>``; at the end that folder is renamed into
its place. The folder that was there waits under ``.staging/<run>/old/<item>`` for a moment, so that a crash
between the two renames can be undone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedlora_kit.batch.status import FAILED, OK, Status, digests, read_status, write_status
from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.locks import KeyLock
from fedlora_kit.numerals import size
from fedlora_kit.reporting.outputs import item_folder

EARLIER = "earlier"
"""Inside the folder of a failed item: the outputs of its last successful run."""
LOG_FILE, NOTEBOOK_FILE = "notebook.log", "notebook.ipynb"
_STAGING = ".staging"
_LEAST_FREE = 50 * 2**20  # bytes


class Staging:
    """The scratch folder of one run of one item, beside the place of its outputs.

    Args:
        item, profile, output_dir: as for `reporting.outputs.ItemOutputs`.
        run: a name for the scratch folder that no other run at the same time has.
    """

    def __init__(self, item: str, profile: str, output_dir: str | Path, run: str) -> None:
        self.item, self.profile = item, profile
        self.final = item_folder(item, profile, output_dir)
        self.base = item_folder("x", profile, output_dir).parent
        self.root = self.base / _STAGING / run
        self.output_dir = self.root / "new"
        self.folder = item_folder(item, profile, self.output_dir)

    def open(self) -> None:
        """Make the folder, empty."""
        shutil.rmtree(self.root, ignore_errors=True)
        with disk_guard(self.folder):
            self.folder.mkdir(parents=True)

    def written(self) -> list[str]:
        """Names of the files that the notebook itself has written, beside its log and its executed self."""
        return [path.name for path in self.folder.iterdir() if path.name not in (NOTEBOOK_FILE, LOG_FILE)]

    def succeed(self, status: Status) -> Status:
        """Put the outputs in place with a status that holds their digests."""
        return self._place(Status(**{**vars(status), "status": OK, "files": digests(self.folder)}))

    def fail(self, status: Status) -> Status:
        """Put notebook, log and status in place; what else the failed run wrote is dropped.

        Outputs of the last successful run move to ``earlier/``: kept, and not to be mistaken for new ones.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name not in (NOTEBOOK_FILE, LOG_FILE):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        earlier = self.final if _is_ok(self.final) else self.final / EARLIER
        if earlier.is_dir():
            shutil.copytree(earlier, self.folder / EARLIER)
        return self._place(Status(**{**vars(status), "status": FAILED, "files": digests(self.folder)}))

    def drop(self) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _place(self, status: Status) -> Status:
        write_status(self.folder, status)
        with disk_guard(self.final):
            self.final.parent.mkdir(parents=True, exist_ok=True)
            if self.final.exists():
                old = self.root / "old" / self.item
                old.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.final, old)
            os.replace(self.folder, self.final)
        self.drop()
        return status


@contextmanager
def exclusive(profile: str, output_dir: str | Path) -> Iterator[Path]:
    """Hold ``DIR/<profile>`` for this process; tidies what an earlier, killed one left. Yields the folder.

    Raises:
        FedloraError: another process holds it, it cannot be written, or there is hardly any disk space.
    """
    base = item_folder("x", profile, output_dir).parent
    lock = KeyLock(base / ".lock")
    with disk_guard(base):
        held = lock.try_acquire()
    if not held:
        raise FedloraError(
            f"another fedlora reproduce is writing to {base}",
            "wait for it, or name another folder with --output",
        )
    try:
        free = shutil.disk_usage(base).free
        if free < _LEAST_FREE:
            raise FedloraError(
                f"no disk space: {size(free)} free at {base}",
                "free some, or name a folder on another disk with --output (and FEDLORA_RUNS for the store)",
            )
        _recover(base)
        yield base
    finally:
        lock.release()


def _recover(base: Path) -> None:
    """Undo a swap that was cut in half, then remove all scratch folders (nobody else runs: the lock is
    ours).
    """
    staging = base / _STAGING
    for status in list(staging.glob("*/old/**/status.json")):
        old = status.parent
        item = old.relative_to(staging).parts[2:]
        final = base.joinpath(*item)
        if old.name != EARLIER and not final.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(old, final)
    shutil.rmtree(staging, ignore_errors=True)


def _is_ok(folder: Path) -> bool:
    status = read_status(folder)
    return status is not None and status.status == OK
