"""The store of runs: whole or absent, whatever happens to the process, the disk or the files."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.atomic import DamageWarning
from fedlora_kit.experiments.store import Store

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
SPEC = {"method": "fedit", "rounds": 4, "lr": 0.1}
FILES = {
    "history.jsonl": [{"round": 0, "loss": 0.5}, {"round": 1, "loss": float("nan")}],
    "results.json": {"final": 81.25, "best": 82.5},
    "provenance.json": {"wall_seconds": 1.5},
    "privacy.json": {"epsilon": 6.0},
    "adapter": lambda path: (
        path.mkdir(),
        (path / "adapter_model.safetensors").write_bytes(bytes(range(256))),
    ),
}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", say=lambda line: pytest.fail(f"waited: {line}"))


def finish(store: Store, key: str = KEY, **changes) -> None:
    with store.work(key, SPEC) as work:
        work.finish({**FILES, **changes})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@contextmanager
def child(body: Callable[[], None]) -> Iterator[int]:
    """A forked process that runs ``body``; killed at the block's end if it still lives."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            warnings.simplefilter("ignore")
            body()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


# --- the life of a run ----------------------------------------------------------------------------------


def test_a_run_from_absent_to_finished(store):
    assert store.status(KEY) == "absent"
    assert store.load(KEY) is None
    with store.work(KEY, SPEC) as work:
        assert work.entry is None
        assert work.failure is None
        assert store.status(KEY) == "running"
        work.checkpoints.save(0, {"b": torch.ones(2)}, {})
        entry = work.finish(FILES)
        assert work.entry is entry
    assert store.status(KEY) == "finished"
    loaded = store.load(KEY)
    assert loaded == entry
    assert loaded.path == store.root / KEY
    assert loaded.spec == SPEC
    assert loaded.results == FILES["results.json"]
    assert loaded.history[0] == {"round": 0, "loss": 0.5}
    assert str(loaded.history[1]["loss"]) == "nan"
    assert loaded.privacy == {"epsilon": 6.0}
    assert loaded.provenance == {"wall_seconds": 1.5}
    assert (loaded.adapter_dir / "adapter_model.safetensors").read_bytes() == bytes(range(256))
    assert tree(store.root).keys() == {f"{KEY}/{n}" for n in tree(loaded.path)}  # no work, no lock left
    assert json.loads((loaded.path / "manifest.json").read_text())["key"] == KEY


def test_a_finished_run_is_not_worked_on_again(store):
    finish(store)
    before = tree(store.root)
    with store.work(KEY, SPEC) as work:
        assert work.entry.results == FILES["results.json"]
        with pytest.raises(FedloraError, match="finished already"):
            work.finish(FILES)
    assert tree(store.root) == before


def test_optional_parts(store):
    history = [{"round": 0}]
    few = {name: FILES[name] for name in ("results.json", "provenance.json")} | {"history.json": history}
    with store.work(KEY, SPEC) as work:
        work.finish(few)
    entry = store.load(KEY)
    assert entry.privacy is None
    assert entry.history == history
    with pytest.raises(FedloraError, match="kept no adapter"):
        _ = entry.adapter_dir


def test_contents_of_every_kind(store, tmp_path):
    source = tmp_path / "adapter_source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "x.bin").write_bytes(b"\0\1")
    finish(
        store,
        adapter=source,
        **{"a/b.txt": "zeile\r\nσ", "raw": b"\xff", "copy": source / "deep" / "x.bin", "l.json": [1]},
    )
    files = tree(store.load(KEY).path)
    assert files["adapter/deep/x.bin"] == files["copy"] == b"\0\1"
    assert files["a/b.txt"] == "zeile\r\nσ".encode()
    assert files["raw"] == b"\xff"
    assert json.loads(files["l.json"]) == [1]
    assert source.exists()


def test_an_exception_leaves_the_run_interrupted_and_it_goes_on(store):
    def stopped():
        with store.work(KEY, SPEC) as work:
            work.checkpoints.save(2, {"b": torch.tensor([2.5])}, {"losses": [0.1, float("inf")]})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert store.status(KEY) == "interrupted"
    (one,) = store.unfinished()
    assert (one.key, one.status, one.spec, one.round_index, one.failure) == (
        KEY,
        "interrupted",
        SPEC,
        2,
        None,
    )
    with store.work(KEY, SPEC) as work:
        latest = work.checkpoints.load_latest()
        assert latest.tensors["b"].item() == 2.5
        assert latest.meta == {"losses": [0.1, float("inf")]}
        work.finish(FILES)
    assert list(store.unfinished()) == []


def test_a_failure_is_kept_shown_and_cleared(store):
    record = {"error": "loss became NaN", "round": 3, "client": 1, "value": float("inf")}
    with store.work(KEY, SPEC) as work:
        work.checkpoints.save(2, {}, {})
        work.fail(record)
    assert store.status(KEY) == "failed"
    assert store.failure(KEY) == record
    (one,) = store.unfinished()
    assert (one.status, one.failure, one.round_index) == ("failed", record, 2)
    with store.work(KEY, SPEC) as work:
        assert work.failure == record
        assert store.status(KEY) == "running"
    store.clear_failure(KEY)
    store.clear_failure(KEY)
    assert store.failure(KEY) is None
    assert store.status(KEY) == "interrupted"
    with store.work(KEY, SPEC) as work:
        work.fail(record)
        work.finish(FILES)
    assert store.status(KEY) == "finished"
    assert store.failure(KEY) is None


def test_a_damaged_failure_record_still_says_failed(store):
    with store.work(KEY, SPEC) as work:
        work.fail({"error": "x"})
    (store.root / ".failed" / f"{KEY}.json").write_text("{")
    assert store.status(KEY) == "failed"
    assert "damaged" in store.failure(KEY)["error"]


def test_entries_and_unfinished_come_in_order_of_key(store):
    generator = random.Random(1)
    keys = [f"{generator.getrandbits(64):016x}" for _ in range(12)]
    for key in keys[:8]:
        finish(store, key)
    for key in keys[8:]:
        with store.work(key, SPEC):
            pass
    (store.root / "notes").mkdir()
    (store.root / "README").write_text("")
    assert [entry.key for entry in store.entries()] == sorted(keys[:8])
    assert [one.key for one in store.unfinished()] == sorted(keys[8:])


def test_entries_read_no_big_file(store):
    finish(store)
    (store.root / KEY / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged, but not looked at")
    assert [entry.results["final"] for entry in store.entries()] == [81.25]


def test_an_empty_store(tmp_path):
    store = Store(tmp_path / "none")
    assert list(store.entries()) == list(store.unfinished()) == []
    assert store.failure(KEY) is None
    assert not (tmp_path / "none").exists()  # looking makes nothing


def test_the_default_root(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_RUNS", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"


def test_the_store_alone_does_not_import_torch():
    code = "import sys, fedlora_kit.experiments.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "",
        "..",
        "../../etc/passwd0",
        "0123456789ABCDEF",
        "0123456789abcde",
        KEY + "\n",
        KEY + "0",
        "/" + KEY,
        7,
    ],
)
def test_keys_are_sixteen_hex_digits(store, key):
    for call in (store.status, store.load, store.failure, store.clear_failure):
        with pytest.raises(BadValue, match="16 hex digits"):
            call(key)
    with pytest.raises(BadValue, match="16 hex digits"), store.work(key, SPEC):
        pytest.fail("entered")
    assert not store.root.exists()


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/../../x", "", ".", "a//b", "./a", "manifest.json", "spec.json", "a\\b", "a\0b"],
)
def test_file_names_stay_inside(store, name):
    with store.work(KEY, SPEC) as work:
        with pytest.raises(BadValue):
            work.finish({**FILES, name: b""})
        assert not (work.dir / "entry").exists()
    assert store.status(KEY) == "interrupted"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"results.json": {"x": object()}}, "object"),
        ({"adapter": lambda path: path.mkdir()}, "empty folder"),
        ({"adapter": lambda path: path.symlink_to("/etc")}, "no plain file"),
        ({"adapter": lambda path: os.mkfifo(path)}, "no plain file"),
        ({"adapter": 7}, "int"),
    ],
)
def test_contents_that_cannot_be_kept(store, change, word):
    with store.work(KEY, SPEC) as work:
        work.checkpoints.save(0, {}, {})
        with pytest.raises(BadValue, match=word):
            work.finish({**FILES, **change})
        work.finish(FILES)  # and nothing was lost by it
    assert store.load(KEY) is not None


@pytest.mark.parametrize("name", ["history.jsonl", "results.json", "provenance.json"])
def test_an_entry_without_its_parts_is_refused(store, name):
    with store.work(KEY, SPEC) as work, pytest.raises(BadValue, match=name.partition(".")[0]):
        work.finish({other: content for other, content in FILES.items() if other != name})


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedloraError, match="is no folder"), Store(tmp_path / "file").work(KEY, SPEC):
        pass


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
small = {"history.json": [], "results.json": {}, "provenance.json": {}}
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


# --- killed at any moment -------------------------------------------------------------------------------


def train(store: Store, key: str = KEY, rounds: int = 3) -> None:
    """A toy run whose end depends on every round; goes on from the latest checkpoint."""
    with store.work(key, SPEC) as work:
        if work.entry is not None:
            return
        latest = work.checkpoints.load_latest()
        start, x = (
            (0, torch.tensor([1.0, 2.0])) if latest is None else (latest.round_index + 1, latest.tensors["x"])
        )
        history = [] if latest is None else latest.meta["history"]
        for index in range(start, rounds):
            x = (x * 1.7 + index).sin()
            history.append({"round": index, "value": x[0].item()})
            work.checkpoints.save(index, {"x": x}, {"history": history})
        data = {"results.json": history[-1], "history.jsonl": history, "provenance.json": {}}
        work.finish({**data, "adapter/a.bin": x.numpy().tobytes()})


CALLS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "open")


def killing(count: int) -> Callable[[], None]:
    """Make this process kill itself at its ``count``-th call that touches the disk."""
    left = [count]

    def wrap(function):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))


def test_killed_before_any_step_it_ends_bit_identical(tmp_path):
    reference = Store(tmp_path / "reference")
    train(reference)
    expected = tree(reference.root)
    kills, step = 0, 0
    while True:
        step += 1
        store = Store(tmp_path / f"s{step}")

        def body(store=store, step=step):
            killing(step)
            train(store)

        with child(body) as pid:
            code = wait(pid)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing half-written may even look like damage
            seen = store.load(KEY)
            assert seen is None or tree(seen.path) == tree(reference.root / KEY)
            assert (seen is not None) == (store.status(KEY) == "finished")
            assert store.status(KEY) != "running"
            assert [entry.key for entry in store.entries()] == ([KEY] if seen else [])
            train(store)
        assert tree(store.root) == expected, f"killed before step {step}"
        shutil.rmtree(store.root)
    assert kills > 60  # the run really was cut at many places


def test_killed_at_random_moments(tmp_path):
    moments = random.Random(5)
    store = Store(tmp_path / "runs")
    reference = Store(tmp_path / "reference")
    keys = [f"{value:016x}" for value in range(2000)]
    train(reference, keys[0])
    expected = tree(reference.root / keys[0])
    expected.pop("manifest.json")  # holds the key

    def body():
        for key in keys:
            train(store, key)

    for _ in range(20):
        with child(body) as pid:
            time.sleep(moments.uniform(0.01, 0.12))
            os.kill(pid, signal.SIGKILL)
            wait(pid)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            done = [entry.key for entry in store.entries()]
            assert all(store.load(key) for key in done)
            assert len(list(store.unfinished())) <= 1
    train(store, keys[len(done)])
    done = [entry.key for entry in store.entries()]
    assert 0 < len(done) == len(set(done))
    for key in done:
        files = tree(store.root / key)
        files.pop("manifest.json")
        assert files == expected


# --- several processes ----------------------------------------------------------------------------------


def test_of_two_processes_one_works_and_the_other_sees_it_finished(tmp_path):
    def body(name: str, other: str) -> Callable[[], None]:
        def run():
            log = (tmp_path / name).open("w", buffering=1)
            with Store(tmp_path / "runs", say=lambda line: print("says", line, file=log)).work(
                KEY, SPEC
            ) as work:
                if work.entry is not None:
                    print("sees", work.entry.results["by"], file=log)
                    return
                print("works", os.getpid(), file=log)
                until(lambda: (tmp_path / other).exists() and (tmp_path / other).read_text())
                work.finish({**FILES, "results.json": {"by": os.getpid()}})

        return run

    with child(body("one", "two")) as one, child(body("two", "one")) as two:
        assert wait(one) == wait(two) == 0
    logs = sorted(((tmp_path / name).read_text().splitlines() for name in ("one", "two")), key=len)
    assert len(logs[0]) == 1
    worker = logs[0][0].removeprefix("works ")
    assert logs[1] == [
        f"says run {KEY}: waiting for process {worker}, which is working on it",
        f"sees {worker}",
    ]


def test_many_processes_never_hold_one_key_together(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    store = Store(tmp_path / "runs", say=lambda line: None)

    def body():
        for _ in range(25):
            with store.work(KEY, SPEC):
                value = int(counter.read_text())
                time.sleep(0.0005)
                counter.write_text(str(value + 1))

    with child(body) as a, child(body) as b, child(body) as c, child(body) as d:
        assert [wait(pid) for pid in (a, b, c, d)] == [0] * 4
    assert counter.read_text() == "100"


def test_threads_wait_for_each_other_and_a_thread_does_not_wait_for_itself(store):
    store = Store(store.root, say=lambda line: lines.append(line))
    lines: list[str] = []
    order: list[str] = []

    def other():
        with store.work(KEY, SPEC):
            order.append("other")

    with store.work(KEY, SPEC):
        thread = threading.Thread(target=other)
        thread.start()
        until(lambda: lines)
        order.append("first")
        with pytest.raises(FedloraError, match="already being worked on"), store.work(KEY, SPEC):
            pass
        with store.work(OTHER, SPEC):  # another key is free
            pass
    thread.join(10)
    assert order == ["first", "other"]
    assert len(lines) == 1


@pytest.mark.parametrize("heir", [False, True], ids=["alone", "with a child that lives on"])
def test_a_dead_owner_holds_nothing(store, heir):
    read, write = os.pipe()

    def body():
        with store.work(KEY, SPEC) as work:
            work.checkpoints.save(1, {}, {})
            grandchild = os.fork() if heir else 0
            if heir and grandchild == 0:
                time.sleep(20)
                os._exit(0)
            os.write(write, f"{grandchild}\n".encode())
            time.sleep(20)

    with child(body) as pid:
        grandchild = int(os.read(read, 20))
        assert store.status(KEY) == "running"
        assert [one.status for one in store.unfinished()] == ["running"]
        os.kill(pid, signal.SIGKILL)
        wait(pid)
    try:
        assert store.status(KEY) == "interrupted"
        with store.work(KEY, SPEC) as work:  # the fixture fails the test if this waits
            assert work.checkpoints.rounds() == [1]
            work.finish(FILES)
    finally:
        if grandchild:
            os.kill(grandchild, signal.SIGKILL)


def test_looking_does_not_disturb_an_owner(store):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            store.status(KEY)
            store.load(KEY)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(40):
            with store.work(KEY, SPEC):
                pass
    finally:
        stop.set()
        thread.join(10)


def test_a_folder_put_there_without_the_lock(store, tmp_path):
    finish(Store(tmp_path / "copy"))
    with store.work(KEY, SPEC) as work:
        shutil.copytree(tmp_path / "copy" / KEY, store.root / KEY)  # a whole entry, e.g. by rsync
        assert work.finish(FILES).path == store.root / KEY
    with store.work(OTHER, SPEC) as work:
        (store.root / OTHER).mkdir()
        (store.root / OTHER / "junk").write_text("")
        with pytest.warns(DamageWarning, match=f"{OTHER}-1"):
            work.finish(FILES)
    assert store.load(KEY) is not None
    assert store.load(OTHER) is not None
