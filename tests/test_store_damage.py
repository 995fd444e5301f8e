"""The store of runs: damaged files and full disks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from store_tools import FILES, KEY, OTHER, SPEC, finish, tree

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.atomic import DamageWarning
from fedlora_kit.experiments.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", say=lambda line: pytest.fail(f"waited: {line}"))


# --- damage ---------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def as_link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent / "elsewhere")


DAMAGE = {
    "flip": flip,
    "truncate": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "append": lambda path: path.open("ab").write(b"\n"),
    "delete": Path.unlink,
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "link": as_link,
    "folder": lambda path: (path.unlink(), path.mkdir()),
}
NAMES = [
    "spec.json",
    "history.jsonl",
    "results.json",
    "provenance.json",
    "privacy.json",
    "adapter/adapter_model.safetensors",
    "manifest.json",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_is_noticed_and_set_aside(store, name, damage):
    finish(store)
    DAMAGE[damage](store.root / KEY / name)
    kept = tree(store.root / KEY)
    with pytest.warns(DamageWarning, match=rf"{KEY} is damaged .*kept as .*{KEY}-1"):
        assert store.load(KEY) is None
    assert store.status(KEY) == "absent"
    assert tree(store.root / ".damaged" / f"{KEY}-1") == kept  # moved, not deleted
    finish(store)
    assert store.load(KEY) is not None


def plant(store: Store, what: str) -> None:
    entry = store.root / KEY
    if what == "file":
        (entry / "extra.py").write_text("")
    elif what == "deep file":
        (entry / "adapter" / "extra").write_text("")
    elif what == "empty folder":
        (entry / "extra").mkdir()
    elif what == "link":
        (entry / "extra").symlink_to("/etc/hostname")
    elif what == "entry is a link":
        entry.rename(store.root.parent / "moved")
        entry.symlink_to(store.root.parent / "moved")
    elif what == "entry is a file":
        shutil.rmtree(entry)
        entry.write_text("")
    elif what == "entry of another key":
        shutil.rmtree(entry)
        finish(store, OTHER)
        (store.root / OTHER).rename(entry)
    elif what == "manifest with a way out":
        (store.root / "outside").write_text("x")
        manifest = json.loads((entry / "manifest.json").read_text())
        manifest["files"]["../outside"] = {"bytes": 1, "sha256": atomic.sha256(b"x")}
        (entry / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "what",
    [
        "file",
        "deep file",
        "empty folder",
        "link",
        "entry is a link",
        "entry is a file",
        "entry of another key",
        "manifest with a way out",
    ],
)
def test_what_does_not_belong_is_noticed(store, what):
    finish(store)
    plant(store, what)
    with pytest.warns(DamageWarning, match=f"{KEY}-1"):
        assert store.load(KEY) is None
    assert os.path.lexists(store.root / ".damaged" / f"{KEY}-1")


def test_every_bit_of_the_manifest_counts(store):
    finish(store)
    path = store.root / KEY / "manifest.json"
    good = path.read_bytes()
    for index in range(0, len(good), 9):
        path.write_bytes(good[:index] + bytes([good[index] ^ (1 << index % 8)]) + good[index + 1 :])
        with pytest.warns(DamageWarning):
            assert store.load(KEY) is None
        (store.root / ".damaged" / f"{KEY}-1").rename(store.root / KEY)
    path.write_bytes(good)
    assert store.load(KEY) is not None


def test_damage_is_numbered_and_work_starts_anew(store):
    for count in (1, 2, 3):
        finish(store)
        flip(store.root / KEY / "results.json")
        with pytest.warns(DamageWarning, match=f"{KEY}-{count}"), store.work(KEY, SPEC) as work:
            assert work.entry is None


def test_a_list_of_runs_survives_damage(store):
    finish(store)
    finish(store, OTHER)
    flip(store.root / KEY / "results.json")
    with pytest.warns(DamageWarning, match=f"{KEY} is damaged"):
        assert [entry.key for entry in store.entries()] == [OTHER]
    assert (store.root / KEY).exists()


def test_an_entry_damaged_after_loading_is_not_read(store):
    finish(store)
    entry = store.load(KEY)
    flip(entry.path / "history.jsonl")
    with pytest.raises(FedloraError, match=r"history\.jsonl does not fit"):
        _ = entry.history


# --- full disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_full_disk_at_the_end_loses_nothing(store, monkeypatch, function):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.work(KEY, SPEC) as work:
        work.checkpoints.save(3, {"b": torch.ones(1)}, {})
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(FedloraError, match=r"no space left(.|\n)*FEDLORA_RUNS"):
                work.finish(FILES)
        assert work.entry is None
    assert store.status(KEY) == "interrupted"
    with store.work(KEY, SPEC) as work:
        assert work.checkpoints.load_latest().round_index == 3
        work.finish(FILES)


def test_a_native_writer_on_a_full_disk(store):
    def writer(path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with store.work(KEY, SPEC) as work, pytest.raises(FedloraError, match="no space left"):
        work.finish({**FILES, "adapter": writer})


REAL_FULL_DISK = """
import sys
from pathlib import Path
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.store import Store
store, key = Store(Path(sys.argv[1]) / "runs"), "0" * 16
small = {"history.jsonl": [], "results.json": {}, "provenance.json": {}}
with store.work(key, {}) as work:
    try:
        work.finish({**small, "adapter/x": bytes(2 << 20)})
    except FedloraError as error:
        assert "no space left" in str(error) and str(store.root) in str(error), error
    else:
        raise SystemExit("the disk was not full")
    assert sorted(p.name for p in work.dir.iterdir()) == ["spec.json"]
    work.finish({**small, "adapter/x": bytes(100)})
assert store.load(key) is not None
print("checked")
"""


def test_a_disk_that_is_really_full(tmp_path):
    mount = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    done = subprocess.run(
        [*command, tmp_path, sys.executable, REAL_FULL_DISK], capture_output=True, text=True, check=False
    )
    if done.returncode and "Traceback" not in done.stderr and "disk was not" not in done.stderr:
        pytest.skip(f"no small disk to be had: {done.stderr.strip()}")
    assert done.stdout == "checked\n", done.stderr
