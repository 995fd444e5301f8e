"""Runs of many notebooks in one warm pool: order, errors that stop nobody, no process that stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedlora_kit
from fedlora_kit.batch import pool as notebooks
from fedlora_kit.batch.forked import context as server
from fedlora_kit.batch.order import Order, Todo
from fedlora_kit.batch.progress import LiveTable, PlainLines, Reporter
from fedlora_kit.batch.status import Status
from fedlora_kit.cli import app
from fedlora_kit.engines import batch as batches
from fedlora_kit.engines import local_engine as engine
from fedlora_kit.engines.batch import Batch
from fedlora_kit.engines.local_engine import Trained, train_items
from fedlora_kit.engines.stages import Training
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import planned_runs, runs_of
from fedlora_kit.running.places import Places
from fedlora_kit.running.pools import WarmPool
from fedlora_kit.running.training import Outcome, work

GRID = {"ffa-lora/gsm8k": {"seeds": 2, "device": "cpu", "output_dir": "figures"}}
PLAIN = {"start_here": {"seeds": 1, "device": "cpu"}}


def done(spec, store):
    """An entry as a run leaves it; the loss falls with the learning rate."""
    scores = {part: {"final": 0.5, "loss": 1 / spec.local.lr} for part in ("holdout", "test", "validation")}
    with store.work(spec.key(), spec.model_dump(mode="json")) as work:
        work.finish({"results.json": {"scores": scores}, "provenance.json": {}, "history.jsonl": []})
    return Outcome("finished", 2.0)


class Stand:
    """A pool that does each run at once, as told; counts how often it was started and ended."""

    def __init__(self, outcome=done):
        self.outcome, self.specs, self.started, self.closed = outcome, [], [], 0

    def __call__(self, processes, gpu):
        assert gpu == ""
        self.started.append(processes)
        return self

    def submit(self, function, description, modules, key, device, root, force):
        assert (function, modules, device, force) == (work, [], "cpu", False)
        spec, future = RunSpec.parse(description), Future()
        assert spec.key() == key
        self.specs.append(spec)
        try:
            future.set_result(self.outcome(spec, Store(Path(root))))
        except BrokenProcessPool as error:
            future.set_exception(error)
        return future

    def close(self):
        self.closed += 1


def spread(items, stand, **options):
    return train_items(items, "smoke", pool=stand, **options)


# --- order ------------------------------------------------------------------------------------------------


def test_the_grid_goes_first_then_what_it_chooses_and_the_longest_of_the_rest(monkeypatch):
    monkeypatch.setenv("FEDLORA_JOBS", "1")
    stand = Stand()
    trained = spread({**PLAIN, **GRID}, stand)
    planned, plain = (
        planned_runs("ffa-lora/gsm8k", "smoke", seeds=2),
        planned_runs("start_here", "smoke", seeds=1),
    )
    grid, chosen, rest = planned.specs(), planned.chosen(Store()), plain.specs()
    assert {s.key() for s in stand.specs[: len(grid)]} == {s.key() for s in grid}
    wanted = {s.key() for s in [*grid, *chosen, *rest]}
    assert sorted(s.key() for s in stand.specs) == sorted(wanted)  # each once
    later = [batches.rough_seconds(s) for s in stand.specs[len(grid) :]]
    assert later == sorted(later, reverse=True)
    assert (trained.finished, trained.failed, trained.left, trained.unplanned) == (len(wanted), 0, {}, {})
    assert (stand.started, stand.closed) == ([1], 1)


def test_what_is_finished_starts_no_pool():
    spread({**PLAIN, **GRID}, Stand())
    again = Stand()
    assert spread({**PLAIN, **GRID}, again) == Trained(0, 0, {}, {})
    assert again.started == []
    assert spread({"ffa-lora/figure1": {}, "own/mine": {"seeds": 3}}, again).unplanned == {}
    assert again.started == []


def test_a_run_of_unknown_length_begins_early(monkeypatch):
    specs = runs_of("start_here", "smoke", seeds=1)
    lengths = dict(zip([s.key() for s in specs], [1.0, 5.0, None, 3.0], strict=True))
    stand = Stand()
    batch = Batch(Store(), Places(1, Store().root, stand), seconds=lambda s: lengths[s.key()])
    batch.add(specs, "cpu")
    while batch.step():
        pass
    assert [lengths[s.key()] for s in stand.specs] == [None, 5.0, 3.0, 1.0]


# --- what goes wrong --------------------------------------------------------------------------------------


def test_an_error_stops_no_other_run_and_is_left_to_the_notebook():
    specs = runs_of("start_here", "smoke", seeds=1)

    def outcome(spec, store):
        return Outcome("error", 0.1, "no such file") if spec == specs[0] else done(spec, store)

    trained = spread(PLAIN, Stand(outcome))
    assert trained.left == {specs[0].key(): "no such file"}
    assert trained.finished == len(specs) - 1
    assert [Store().status(s.key()) for s in specs] == ["absent"] + ["finished"] * (len(specs) - 1)


def test_a_grid_with_an_error_chooses_nothing():
    grid = planned_runs("ffa-lora/gsm8k", "smoke", seeds=2).specs()

    def outcome(spec, store):
        return Outcome("error", 0.1, "x") if spec == grid[0] else done(spec, store)

    stand, seen = Stand(outcome), []
    spread(GRID, stand, tell=seen.append)
    assert len(stand.specs) == len(grid)
    assert seen[-1].total > seen[-1].ended  # what it would have chosen has not been trained


def test_a_run_that_diverges_is_a_failure_and_is_not_trained_again():
    specs = runs_of("start_here", "smoke", seeds=1)

    def outcome(spec, store):
        if spec != specs[0]:
            return done(spec, store)
        with store.work(spec.key(), {}) as work:
            work.fail({"error": "loss became NaN"})
        return Outcome("failed", 0.1, "loss became NaN")

    trained = spread(PLAIN, Stand(outcome))
    assert (trained.finished, trained.failed, trained.left) == (len(specs) - 1, 1, {})
    again = Stand(outcome)
    spread(PLAIN, again)
    assert again.started == []


def test_an_item_that_cannot_be_planned_stops_no_other():
    stand = Stand()
    trained = spread({"ffa-lora/table1": {"tasks": ["nothing"]}, **PLAIN}, stand)
    assert "nothing" in trained.unplanned["ffa-lora/table1"]
    assert trained.finished == len(runs_of("start_here", "smoke", seeds=1))


def test_what_only_the_notebook_knows_or_nobody_has_stays_with_it(monkeypatch):
    monkeypatch.setattr(batches, "external", lambda _: True)
    stand = Stand()
    assert len(spread(PLAIN, stand).left) == len(runs_of("start_here", "smoke", seeds=1))

    def missing(_):
        raise FedloraError("the data is not here")

    monkeypatch.setattr(RunSpec, "key", missing)
    assert spread({**PLAIN, **GRID}, stand) == Trained(0, 0, {}, {})
    assert stand.started == []


def test_an_entry_that_cannot_be_read_is_left_to_its_notebook(monkeypatch):
    spread(PLAIN, Stand())

    def other_format(*_):
        raise FedloraError("it has another format")

    monkeypatch.setattr(Store, "load", other_format)
    stand = Stand()
    assert len(spread(PLAIN, stand).left) == len(runs_of("start_here", "smoke", seeds=1))
    assert stand.started == []


def test_a_killed_process_leaves_its_runs_and_the_others_go_on_one_at_a_time(monkeypatch):
    monkeypatch.setenv("FEDLORA_JOBS", "2")
    killer = []

    def outcome(spec, store):
        if not killer or killer == [spec]:
            killer[:] = [spec]
            raise BrokenProcessPool
        return done(spec, store)

    stand = Stand(outcome)
    trained = spread(PLAIN, stand)
    specs = runs_of("start_here", "smoke", seeds=1)
    assert set(trained.left) == {killer[0].key()}
    assert trained.finished == len(specs) - 1  # also what ended at the same moment
    assert stand.started == [2, 1]
    assert stand.closed == 2


def test_processes_that_are_always_killed_end_the_training():
    def outcome(spec, store):
        raise BrokenProcessPool

    stand = Stand(outcome)
    trained = spread({**PLAIN, **GRID}, stand)
    assert len(stand.started) == 3
    known = {
        s.key()
        for item, p in (("start_here", 1), ("ffa-lora/gsm8k", 2))
        for s in planned_runs(item, "smoke", seeds=p).specs()
    }
    assert set(trained.left) == known


def test_an_interruption_ends_the_processes():
    def outcome(spec, store):
        raise KeyboardInterrupt

    stand = Stand(outcome)
    with pytest.raises(KeyboardInterrupt):
        spread(PLAIN, stand)
    assert stand.closed == 1


# --- progress ---------------------------------------------------------------------------------------------


def test_the_time_to_go_is_the_estimate_scaled_by_what_was_measured():
    seen, specs = [], runs_of("start_here", "smoke", seeds=1)
    batch = Batch(Store(), Places(1, Store().root, Stand()), seen.append, seconds=lambda _: 0.5)
    batch.add(specs, "cpu")
    assert batch.progress().remaining is None
    while batch.step():
        pass
    # each takes 2 s, four times its estimate
    seen = [t for t in seen if t.remaining is not None]
    assert {(t.ended, t.total) for t in seen} == {(n, 4) for n in (1, 2, 3, 4)}
    assert [t.remaining for t in seen] == [pytest.approx(2.0 * (4 - t.ended), abs=0.5) for t in seen]


def test_runs_that_are_still_to_be_chosen_count():
    seen = []
    spread(GRID, Stand(), tell=seen.append)
    assert {t.total for t in seen} == {len(runs_of("ffa-lora/gsm8k", "smoke", seeds=2))}
    assert seen[-1].ended == seen[-1].total


def test_the_reporters_show_runs_and_not_cells(monkeypatch):
    import io

    from rich.console import Console

    lines = []
    plain = PlainLines(lines.append)
    for n in (0, 1, 4):
        plain.training(Training(n, 1, 4, 60.0, None if n == 0 else 30.0))
    assert lines == [
        "[0/4] training runs: 1:00 elapsed, about ? to go, 1 failed",
        "[4/4] training runs: 1:00 elapsed, about 0:30 to go, 1 failed",
    ]
    out = io.StringIO()
    table = LiveTable(Console(file=out, force_terminal=True, width=120))
    table.training(Training(3, 0, 4, 60.0, 20.0))
    table.begin(2)
    table.close()
    assert "3 of 4, 1:00 elapsed, about 0:20 to go" in out.getvalue()


# --- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "trains"),
    [
        (("start_here", "ffa-lora/gsm8k"), True),
        (("start_here",), False),
        (("start_here", "ffa-lora/gsm8k", "--timeout", "600"), False),
    ],
)
def test_several_notebooks_are_trained_for(tmp_path, monkeypatch, words, trains):
    asked, started = [], []

    def training(items, profile, **_):
        asked.append((list(items), profile, items["start_here"]["seeds"]))
        return Trained(1, 0, {"0" * 16: "no such file"}, {"ffa-lora/gsm8k": "BadValue: no"})

    def start(item, crashed, *_):
        started.append(item.id)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "train_items", training)
    monkeypatch.setattr(notebooks, "_start", start)
    result = CliRunner().invoke(
        app, ["reproduce", *words, "--set", "seeds=2", "--output", str(tmp_path / "out")]
    )
    assert asked == ([(["start_here", "ffa-lora/gsm8k"], "smoke", 2)] if trains else [])
    assert len(started) == 1
    assert ("ffa-lora/gsm8k trains its runs itself: BadValue: no" in result.output) == trains
    assert ("1 runs are left to their notebooks" in result.output) == trains


@pytest.mark.parametrize(
    ("jobs", "trained", "cores", "at_once"),
    [(None, True, 3, 3), (None, False, 3, 1), (1, True, 3, 1), (None, True, 9, 4)],
)
def test_notebooks_at_a_time(tmp_path, monkeypatch, jobs, trained, cores, at_once):
    monkeypatch.setattr(notebooks, "cores", lambda: cores)
    monkeypatch.setattr(notebooks, "_MEMORY", 1)
    running, most = [], []

    class Process:
        exitcode = 0

    def start(item, *_):
        child = notebooks._Child(
            item, Process(), None, None, None, notebooks.Running(item.id, 0.0, 9.0), None
        )
        running.append(child)
        most.append(len(running))
        return child

    def collect(child):
        running.remove(child)
        return Status(child.item.id, "ok")

    for name, stand in (("_start", start), ("_collect", collect), ("_look", lambda _: None), ("_TICK", 0.0)):
        monkeypatch.setattr(notebooks, name, stand)
    items = [
        type("I", (), {"id": f"p/{n}", "kind": "table", "notebook": "start_here.ipynb"})() for n in range(6)
    ]
    order = Order(items, jobs=jobs, place=tmp_path)
    todo = Todo(order, [(item, Status(item.id, "failed")) for item in items], [], [])
    notebooks.run(todo, trained, Reporter())
    assert max(most) == at_once


# --- processes --------------------------------------------------------------------------------------------


def test_a_warm_process_trains_what_a_local_run_gives(tmp_path):
    spec = RunSpec.parse(
        {
            "model": {"backbone": "kit/image-tiny", "lora": {"rank": 2, "alpha": 4}},
            "data": {"task": "digits", "train_limit": 60, "eval_limit": 20},
            "split": {"clients": 2},
            "method": {"name": "lora"},
            "local": {"lr": 0.2, "steps": 2, "batch_size": 4},
            "rounds": {"rounds": 2},
        }
    )
    store = Store(tmp_path / "warm")
    bad = spec.model_copy(update={"local": spec.local.model_copy(update={"lr": 1e30})})
    server()
    pool = WarmPool(1, log=tmp_path / "log")
    try:
        ends = [
            pool.submit(work, s.model_dump(mode="json"), [], s.key(), "cpu", str(store.root), False)
            for s in (spec, bad)
        ]
        good, diverged = (end.result(timeout=120) for end in ends)
    finally:
        pool.close()
    assert good.status == "finished"
    assert diverged.status == "failed"
    assert "NaN" in diverged.error
    entry, here = store.load(spec.key()), run(spec, device="cpu", store=Store(tmp_path / "here"))
    for name in ("history.jsonl", "results.json", "adapter/adapter_model.safetensors"):
        assert (entry.path / name).read_bytes() == (here.path / name).read_bytes()


def test_other_errors_are_told(tmp_path, monkeypatch):
    def breaking(*_, **__):
        raise ZeroDivisionError("x")

    monkeypatch.setattr(run_module, "run_federation", breaking)
    spec = runs_of("start_here", "smoke", seeds=1)[0]
    description, key = spec.model_dump(mode="json"), spec.key()
    assert work(description, [], key, "cpu", str(tmp_path), False).error == "ZeroDivisionError: x"
    assert work(description, [], key, "nonsense", str(tmp_path), False).status == "error"
    assert "other code" in work(description, [], "0" * 16, "cpu", str(tmp_path), False).error


def test_processes_import_the_package_of_the_one_that_asks(tmp_path, monkeypatch):
    """Whatever lies in the folder that the command is given in."""
    (tmp_path / "fedlora_kit").mkdir()
    (tmp_path / "fedlora_kit" / "__init__.py").write_text("")
    (tmp_path / "fedlora_kit" / "errors.py").write_text("class BadValue: ...")
    program = (
        "import inspect, sys\n"  # without `if __name__ == '__main__'`: the processes do not run it
        "sys.path.insert(0, sys.argv[1])\n"
        "from fedlora_kit.running.pools import WarmPool\n"
        "from fedlora_kit.errors import BadValue\n"
        "pool = WarmPool(1, preload=('fedlora_kit.errors',))\n"
        "print(pool.submit(inspect.getsourcefile, BadValue).result())\n"
        "pool.close()\n"
    )
    root = Path(fedlora_kit.__file__).resolve().parent.parent
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "command.py").write_text(program)
    command = [sys.executable, str(tmp_path / "bin" / "command.py"), str(root)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(root / "fedlora_kit" / "errors.py"), done.stderr


@pytest.mark.parametrize(
    ("trained", "together"),
    [
        (Trained(1, 0, {}, {"x": "y"}), True),
        (Trained(1, 0, {"0": "killed"}, {}), False),
        (Trained(1, 0, {}, {}, on_cpu=False), False),
    ],
)
def test_notebooks_run_side_by_side_where_that_is_safe(trained, together):
    assert trained.side_by_side == together


def test_a_process_that_dies_breaks_its_pool_and_the_next_one_works():
    server()
    for end in (lambda pid: (os._exit, 3), lambda pid: (os.kill, pid, signal.SIGKILL)):
        pool = WarmPool(1)
        try:
            pid = pool.submit(os.getpid).result(timeout=60)
            with pytest.raises(BrokenProcessPool):
                pool.submit(*end(pid)).result(timeout=60)
        finally:
            pool.close()
        assert not _lives(pid)


SCRIPT = """
import os, sys, time
from fedlora_kit.running.pools import WarmPool
pool = WarmPool(2, preload=())
try:
    pids = {pool.submit(os.getpid).result()}
    busy = pool.submit(time.sleep, 100)
    while len(pids) < 2:
        pids.add(pool.submit(os.getpid).result())
    print(*pids, flush=True)
    busy.result()
except KeyboardInterrupt:
    pool.close()
    print("closed", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_stays_behind(how):
    root = str(Path(engine.__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    first = process.stdout.readline().split()
    assert len(first) == 2
    servers = {_parent(int(pid)) for pid in first}
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
        assert process.communicate(timeout=30)[0].strip() == "closed"
    else:
        process.send_signal(how)
        process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in [*map(int, first), *servers]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in [*map(int, first), *servers] if _lives(pid)]


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_warm_process_has_the_variables_of_now_not_those_of_its_server(monkeypatch):
    from multiprocessing import forkserver

    forkserver._forkserver._stop()
    monkeypatch.setenv("FEDLORA_HUB", "/was/there")
    server()
    monkeypatch.delenv("FEDLORA_HUB")
    pool = WarmPool(1)
    try:
        assert pool.submit(os.getenv, "FEDLORA_HUB").result(timeout=120) is None
    finally:
        pool.close()
