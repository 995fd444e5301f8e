"""Runs that are killed, waited for, damaged, out of disk, or of another version: what is left and said."""

import ctypes
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import toy
from store_tools import FILES, KEY, OTHER, SPEC, child, finish, killed, tree, until, wait

from fedlora_kit.batch.folders import Staging
from fedlora_kit.batch.order import Order
from fedlora_kit.batch.pipeline import reproduce
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import entry as entries
from fedlora_kit.experiments.atomic import DamageWarning, sha256
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.entry import OtherFormat
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.running import many, places

ROOT = Path(__file__).resolve().parent.parent
PRIVATE = {"epsilon": 5.0, "delta": 1e-3, "clip": 1.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    hub = tmp_path_factory.mktemp("world") / "hub"
    toy.build_mirror(hub)
    return hub


@pytest.fixture
def spec(world, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(world))
    toy.enter(world)
    return RunSpec.parse(toy.description(privacy=PRIVATE))


def same_end(one, other):
    names = ("history.jsonl", "results.json", "privacy.json", "spec.json")
    files, others = tree(one.path), tree(other.path)
    assert files.keys() == others.keys()
    for name in files:
        if name in names or name.startswith("adapter/"):
            assert files[name] == others[name], name


def stopped_after(store, spec, round_index):
    """The run up to the checkpoint of a round, as an interrupt leaves it."""
    save = CheckpointFolder.save

    def told(self, index, *rest):
        path = save(self, index, *rest)
        if index == round_index:
            raise KeyboardInterrupt
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", told)
        with pytest.raises(KeyboardInterrupt):
            run(spec, store=store)
    return CheckpointFolder(store.root / ".work" / spec.key() / "checkpoints")


# --- killed ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_stores_and_batches_killed_at_random_moments():
    """The documented command with one kill of each; `python tools/kill_test.py` does fifty."""
    # a process of its own: what it forks must not take over the fork server of the tests
    words = [sys.executable, str(ROOT / "tools/kill_test.py"), "--kills", "1", "--json"]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = {one["kind"]: one for one in json.loads(done.stdout)}
    assert set(figures) == {"runs", "store", "batches"}
    assert all(one["kills"] == 1 and one["finished"] for one in figures.values())


def test_a_killed_training_process_is_one_clear_error(world, tmp_path, monkeypatch):
    description = {
        "model": {"backbone": "kit/text-tiny"},
        "data": {"task": "polarity", "train_limit": 40, "eval_limit": 10},
        "split": {"partitioner": "iid", "clients": 2},
        "method": {"name": "lora"},
        "local": {"lr": 0.1},
    }
    monkeypatch.setattr(places, "work", killed)
    specs = [RunSpec.parse({**description, "seed": seed}) for seed in (0, 1)]
    with pytest.raises(FedloraError, match=r"was killed(.|\n)*FEDLORA_JOBS=1"):
        many.run_all(specs, jobs=2, store=Store(tmp_path / "runs"), device="cpu")


# --- two processes want the same run --------------------------------------------------------------------


def test_one_trains_and_the_other_waits_and_takes_what_is_there(spec, tmp_path):
    def body(name):
        def go():
            lines = (tmp_path / name).open("w", buffering=1)
            store = Store(tmp_path / "runs", say=lambda line: print("waits", line, file=lines))
            save = CheckpointFolder.save

            def slowly(self, index, *rest):
                print("trains", index, file=lines)
                until(lambda: any("waits" in p.read_text() for p in tmp_path.glob("log-*")))
                return save(self, index, *rest)

            CheckpointFolder.save = slowly
            print("ends", run(spec, device="cpu", store=store).key, file=lines)

        return go

    with child(body("log-one")) as one, child(body("log-two")) as two:
        assert wait(one) == wait(two) == 0
    logs = sorted(((tmp_path / n).read_text() for n in ("log-one", "log-two")), key=lambda t: "trains" in t)
    assert [line.split()[0] for line in logs[0].splitlines()] == ["waits", "ends"]
    assert [line.split()[0] for line in logs[1].splitlines()] == ["trains"] * 3 + ["ends"]


def test_the_one_who_waits_takes_over_when_the_owner_is_killed(spec, tmp_path):
    def owner():
        save = CheckpointFolder.save

        def told(self, index, *rest):
            path = save(self, index, *rest)
            if index == 1:
                (tmp_path / "there").touch()
                time.sleep(600)
            return path

        CheckpointFolder.save = told
        run(spec, device="cpu", store=Store(tmp_path / "runs"))

    def heir():
        store = Store(tmp_path / "runs", say=lambda line: (tmp_path / "waits").write_text(line))
        run(spec, device="cpu", store=store)

    with child(owner) as first:
        until((tmp_path / "there").exists)
        with child(heir) as second:
            until((tmp_path / "waits").exists)
            os.kill(first, signal.SIGKILL)
            assert wait(second) == 0
        wait(first)
    assert f"waiting for process {first}" in (tmp_path / "waits").read_text()
    end = Store(tmp_path / "runs").load(spec.key())
    assert end.provenance["resumed_after_round"] == 1
    same_end(end, run(spec, device="cpu", store=Store(tmp_path / "whole")))


# --- a damaged checkpoint -------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [(2,), (1, 2)])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(spec, tmp_path, damaged):
    store = Store(tmp_path / "cut")
    folder = stopped_after(store, spec, 2)
    assert folder.rounds() == [1, 2]
    for index in damaged:
        data = bytearray(folder.path(index).read_bytes())
        data[-3] ^= 1
        folder.path(index).write_bytes(data)
    with pytest.warns(DamageWarning) as seen:
        end = run(spec, store=store)
    assert len(seen) == len(damaged)
    assert end.provenance["resumed_after_round"] == (1 if damaged == (2,) else None)
    same_end(end, run(spec, store=Store(tmp_path / "whole")))


def test_a_checkpoint_of_another_format_is_not_taken(spec, tmp_path):
    store = Store(tmp_path / "cut")
    folder = stopped_after(store, spec, 2)
    data = folder.path(2).read_bytes().replace(b'"format":"1"', b'"format":"9"')
    blank = re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"' + b"0" * 64 + b'"', data)
    folder.path(2).write_bytes(blank.replace(b"0" * 64, sha256(blank).encode(), 1))
    with pytest.warns(DamageWarning, match="is of format 9, and this version reads format 1"):
        assert run(spec, store=store).provenance["resumed_after_round"] == 1


# --- a full disk ----------------------------------------------------------------------------------------


def small_disk(place, size):
    """Mount a tmpfs of so many bytes for this process alone; the errno if that is not permitted, else 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER | CLONE_NEWNS
        return ctypes.get_errno()
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)
    done = libc.mount(b"none", str(place).encode(), b"tmpfs", 0, f"size={size}".encode())
    return ctypes.get_errno() if done else 0


def fill(ballast):
    """Write until there is no room."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(spec, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()

    def body():
        if small_disk(disk, 400 * 2**10):
            os._exit(77)
        store, ballast = Store(disk / "runs"), disk / "ballast"
        save = CheckpointFolder.save

        def filling(self, index, *rest):
            if index == 2:  # two rounds are safe by now
                fill(ballast)
            return save(self, index, *rest)

        CheckpointFolder.save = filling
        try:
            run(spec, device="cpu", store=store)
        except FedloraError as error:
            (tmp_path / "said").write_text(str(error))
        CheckpointFolder.save = save
        (one,) = store.unfinished()
        assert (one.status, one.round_index) == ("interrupted", 1)
        ballast.unlink()
        end = run(spec, device="cpu", store=store)
        assert end.provenance["resumed_after_round"] == 1
        same_end(end, run(spec, device="cpu", store=Store(tmp_path / "whole")))

    with child(body) as pid:
        code = wait(pid)
    if code == 77:
        pytest.skip("no small disk to be had")
    assert code == 0
    said = (tmp_path / "said").read_text()
    assert "no space left" in said
    assert str(disk) in said
    assert "0.0 MiB free" in said
    assert "FEDLORA_RUNS" in said


def test_a_batch_on_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    from test_batch import Item, write_notebook

    def full(self, status):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    write_notebook(tmp_path, "p/one", "import os\nos.kill(os.getppid(), 9)")  # the notebook's process dies
    monkeypatch.setattr(Staging, "fail", full)
    with pytest.raises(FedloraError, match=r"no space left.*p/one.*MiB free"):
        reproduce(Order([Item("p/one")]))


# --- another version ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [0, 2])
def test_an_entry_of_another_format_is_refused_with_a_remedy_and_left_alone(tmp_path, form):
    store = Store(tmp_path / "runs")
    finish(store)
    finish(store, OTHER)
    files = entries.read_manifest(store.root / KEY, KEY)
    (store.root / KEY / "manifest.json").write_bytes(entries._manifest(KEY, files, form))
    before = tree(store.root)
    with pytest.raises(
        OtherFormat, match=rf"is of format {form}, and .* reads format 1(.|\n)*version that wrote"
    ):
        store.load(KEY)
    with pytest.raises(OtherFormat), store.work(KEY, SPEC):
        pytest.fail("entered")
    with pytest.warns(DamageWarning, match=f"{KEY} is of format {form}"):
        assert [entry.key for entry in store.entries()] == [OTHER]
    assert tree(store.root) == before  # nothing was moved


def test_a_format_alone_does_not_save_a_damaged_manifest(tmp_path):
    store = Store(tmp_path / "runs")
    finish(store)
    path = store.root / KEY / "manifest.json"
    path.write_text(
        path.read_text().replace('"format": 1', '"format": 2')
    )  # its digest does not fit any more
    with pytest.warns(DamageWarning, match="was changed"):
        assert store.load(KEY) is None


def test_the_error_of_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path / "runs")
    finish(store, OTHER)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.work(KEY, SPEC) as work, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FedloraError, match="MiB free"):
            work.finish(FILES)
    assert store.load(OTHER) is not None
