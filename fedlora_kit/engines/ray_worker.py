"""What a worker does: one run into a folder of its own, and its result into the store that all share.

Knows nothing of Ray. A job and its reply are JSON texts, so that no object crosses between machines.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlora_kit import paths
from fedlora_kit.devices import hide_gpus
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import own_code
from fedlora_kit.experiments.atomic import DamageWarning, from_json, to_json
from fedlora_kit.experiments.checkpoints import Checkpoint, CheckpointFolder
from fedlora_kit.experiments.remote import RemoteStore
from fedlora_kit.experiments.run import RunFailed
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store, Work
from fedlora_kit.running import training
from fedlora_kit.running.training import Outcome, attempt

if TYPE_CHECKING:
    import torch

#: variables that a worker takes from the one who sent the job, unless its own machine sets them; a token for
#: the Hub is none of them, as a job's text can be read
PASSED_ON = ("FEDLORA_HUB", "FEDLORA_HOME", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT")


def job_text(spec: RunSpec, key: str, url: str, device: str, checkpoint_seconds: float) -> str:
    """A run as a worker gets it.

    Args:
        url: of the `RemoteStore` that takes the result.
        device: "cpu" or "cuda".
        checkpoint_seconds: the newest checkpoint is published when the last one is this old; 0: each round.
    """
    folder = paths.working_folder()
    given = {**({"FEDLORA_HOME": str(folder)} if folder else {}), **os.environ}
    return json.dumps(
        {
            "spec": json.loads(spec.canonical()),
            "key": key,
            "url": url,
            "device": device,
            "checkpoint_seconds": checkpoint_seconds,
            "own": [str(path) for path in own_code.files()],
            "environment": {name: given[name] for name in PASSED_ON if name in given},
        }
    )


def train(text: str, node: str) -> str:
    """Do the job of a `job_text`; never raises for what a run can do wrong.

    The run is trained by the ordinary run function, from the newest checkpoint that is here or published.

    Args:
        node: name of the machine, 0-9, a-f; machines that share a disk then do not share the scratch folder.

    Returns:
        For `read_reply`.
    """
    wanted = json.loads(text)
    for name, value in wanted["environment"].items():
        os.environ.setdefault(name, value)
    scratch = _scratch() / node / wanted["key"]
    outcome = attempt(lambda: _train(wanted, scratch))
    if outcome.status in ("finished", "failed"):
        shutil.rmtree(scratch, ignore_errors=True)  # else its checkpoints help the next try
    return to_json({**vars(outcome), "cause": None})


def read_reply(text: str) -> Outcome:
    """What `train` returned."""
    return Outcome(**from_json(text))


def _train(wanted: Mapping[str, Any], scratch: Path) -> Entry:
    _import_own(wanted["own"])
    spec = RunSpec.parse(wanted["spec"])
    key = spec.key()
    if key != wanted["key"]:
        raise FedloraError(
            f"run {wanted['key']} is run {key} on this machine: its code, libraries, data or backbone differ",
            "install the same version of the kit and the same requirements.lock on all machines, and give "
            "them the same mirror (FEDLORA_HUB), backbones (data/ of FEDLORA_HOME) and files of your own",
        )
    remote = RemoteStore(wanted["url"])
    store = PublishingStore(scratch, remote, wanted["checkpoint_seconds"])
    # An earlier try may have published it and been lost before it could say so.
    entry = remote.fetch(key, store, spec.model_dump(mode="json"))
    if entry is None:
        if wanted["device"] == "cpu":
            hide_gpus()
        try:
            entry = training.train(spec, wanted["device"], store)
        except RunFailed:
            remote.drop_checkpoints(key)
            raise
        remote.publish(entry)
    return entry


def _import_own(paths: Sequence[str]) -> None:
    """What `--with` named where the job was made."""
    for path in paths:
        if not Path(path).exists():
            raise FedloraError(
                f"{path}, which the command names by --with, is not on the machine {platform.node()}",
                "put it on a file system that all machines share, at the same path",
            )
    own_code.name_files(map(Path, paths))


class PublishedCheckpoints(CheckpointFolder):
    """A run's checkpoints, of which now and then one is published for machines that come after this one.

    Args:
        every: seconds between two that are published.
    """

    def __init__(self, folder: Path, key: str, remote: RemoteStore, every: float) -> None:
        super().__init__(folder)
        self._key, self._remote, self._every = key, remote, every
        self._published = time.monotonic()

    def save(
        self,
        round_index: int,
        tensors: dict[str, torch.Tensor],
        meta: dict[str, Any],
        files: Mapping[str, str] | None = None,
    ) -> Path:
        """As `CheckpointFolder.save`. A store that cannot be reached costs a warning, not the run."""
        path = super().save(round_index, tensors, meta, files)
        if time.monotonic() - self._published >= self._every:
            try:
                self._remote.publish_checkpoint(self._key, self, round_index)
            except OSError as error:
                warnings.warn(f"checkpoint {path.name} could not be published: {error}", stacklevel=2)
            self._published = time.monotonic()
        return path

    def load_latest(self) -> Checkpoint | None:
        """The newest whole one of those here and those published."""
        try:
            self._remote.fetch_checkpoints(self._key, self)
        except OSError as error:
            warnings.warn(f"published checkpoints cannot be read: {error}", DamageWarning, stacklevel=2)
        return super().load_latest()


class PublishingStore(Store):
    """A local store whose runs go on from published checkpoints, and publish theirs."""

    def __init__(self, root: Path, remote: RemoteStore, checkpoint_seconds: float) -> None:
        super().__init__(root)
        self._remote, self._every = remote, checkpoint_seconds

    @contextmanager
    def work(self, key: str, spec: dict[str, Any]) -> Iterator[Work]:
        """As `Store.work`, with `PublishedCheckpoints`."""
        with super().work(key, spec) as work:
            folder = work.dir / "checkpoints"
            work.checkpoints = PublishedCheckpoints(folder, key, self._remote, self._every)
            yield work


def _scratch() -> Path:
    """Where this machine's workers keep runs under way: ``FEDLORA_SCRATCH``, or a folder of this user's own.

    Raises:
        FedloraError: the folder is somebody else's.
    """
    named = os.environ.get("FEDLORA_SCRATCH")
    if named:
        return Path(named).expanduser().resolve()
    folder = Path(tempfile.gettempdir(), f"fedlora-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise FedloraError(f"{folder} belongs to somebody else", "name a folder in FEDLORA_SCRATCH")
    return folder
