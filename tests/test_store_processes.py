"""The store of runs: processes killed at any moment, and several at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable

import pytest
import torch
from store_tools import FILES, KEY, OTHER, SPEC, child, finish, killing, tree, until, wait

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.atomic import DamageWarning
from fedlora_kit.experiments.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", say=lambda line: pytest.fail(f"waited: {line}"))


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
