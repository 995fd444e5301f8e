"""A real SuperLink and real SuperNodes on loopback: the same run, a node that dies, a parent that dies."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.flower import launch
from fedlora_kit.flower.bundle import write_app
from fedlora_kit.flower.guard import end, marked
from fedlora_kit.flower.launch import LocalFederation, ProcessEnded

HERE = importlib.util.find_spec("flwr") is not None


def real(test):
    """A test with real processes."""
    reason = "needs the extra: pip install 'fedlora-kit[flower]'"
    return pytest.mark.slow(pytest.mark.skipif(not HERE, reason=reason)(test))


def parsed(**changes):
    return RunSpec.parse(
        {
            "model": {"backbone": "kit/text-tiny", "lora": {"rank": 2, "alpha": 4}},
            "data": {"task": "polarity", "train_limit": 64, "eval_limit": 32},
            "split": {"partitioner": "iid", "clients": 4},
            "method": {"name": "fedsa-lora"},  # A is sent, B stays with the clients
            "local": {"lr": 0.2, "steps": 2, "batch_size": 4, "stack": "never"},
            "rounds": {"rounds": 2, "eval_every": 0},
            **changes,
        }
    )


def start(spec, tmp_path, **options):
    folder = tmp_path / "flower"
    folder.mkdir()
    store = Store(tmp_path / "spread")
    return LocalFederation(
        spec, **{"nodes": 2, "device": "cpu", "timeout": 300.0, "store": store, "folder": folder, **options}
    )


def left(tmp_path):
    return marked(f"FEDLORA_FLOWER_REPORT={tmp_path / 'flower' / 'report.json'}")


@real
def test_processes_give_the_run_of_one_process_bit_for_bit(tmp_path):
    spec, lines = parsed(), []
    alone = run(spec, device="cpu", store=Store(tmp_path / "alone"))
    with start(spec, tmp_path, say=lines.append) as local:
        spread = local.result()
    assert spread.results == alone.results  # adapter_digest is among them
    assert spread.history == alone.history
    assert spread.provenance["flower"]["nodes"] == 2
    assert [line.partition(",")[0] for line in lines] == [
        "2 SuperNodes",
        "round 1 of 2: 4 clients",
        "round 2 of 2: 4 clients",
    ]
    assert left(tmp_path) == []


@real
def test_a_node_that_dies_is_a_clear_error(tmp_path):
    with start(parsed(rounds={"rounds": 500}), tmp_path) as local:
        local.processes["SuperNode 1"].send_signal(signal.SIGKILL)
        with pytest.raises(ProcessEnded, match=r"SuperNode 1 ended .*killed by signal 9"):
            local.result()
    assert left(tmp_path) == []


@real
def test_nothing_is_left_when_the_command_is_killed(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(parsed().model_dump(mode="json")))
    program = "from fedlora_kit.cli import main; main()"
    command = [sys.executable, "-c", program, "federate", "--spec", str(file), "--device", "cpu"]
    # temporary files under a folder of this test, so that the processes can be told from others
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        wanted = {"flower-superlink", "flower-supernode"}
        assert within(120, lambda: wanted <= names(tmp_path))
    finally:
        process.kill()
        process.wait()
    assert within(20, lambda: not names(tmp_path))


def names(tmp_path):
    """Names of the processes of a federation whose folder lies under ``tmp_path``."""
    found = set()
    for folder in tmp_path.glob("fedlora-flower-*"):
        for pid in marked(f"FEDLORA_FLOWER_REPORT={folder / 'report.json'}"):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode().split("\0")
            except OSError:
                continue
            found |= {os.path.basename(word) for word in words[:2]}
    return found


def within(seconds, true):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.2)
    return true()


def test_the_app_holds_the_description_and_no_code(tmp_path):
    import tomllib

    spec = parsed()
    write_app(spec, tmp_path / "app", nodes=2, timeout=60)
    assert [p.name for p in (tmp_path / "app").iterdir()] == ["pyproject.toml"]
    app = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert RunSpec.parse(json.loads(app["config"]["spec"])) == spec
    assert all(name.startswith("fedlora_kit.flower.") for name in app["components"].values())


def test_the_command_writes_the_app_and_names_bad_input(tmp_path):
    from typer.testing import CliRunner

    from fedlora_kit.cli import app

    def called(*words):
        done = CliRunner().invoke(app, ["federate", *map(str, words)])
        return done.exit_code, done.output

    good, bad = tmp_path / "run.json", tmp_path / "bad.json"
    good.write_text(json.dumps(parsed().model_dump(mode="json")))
    code, said = called("--spec", good, "--app", tmp_path / "app", "--json")
    assert (code, json.loads(said)["nodes"]) == (0, 2)
    assert (tmp_path / "app" / "pyproject.toml").exists()
    assert "5 nodes for 4 clients" in called("--spec", good, "--nodes", "5", "--app", tmp_path / "x")[1]
    assert "cannot be read" in called("--spec", tmp_path / "none.json")[1]
    bad.write_text("{")
    assert "is no JSON" in called("--spec", bad)[1]
    bad.write_text('{"models": 1}')
    code, said = called("--spec", bad)
    assert (code, "unknown key 'models'" in said) == (2, True)
    bad.write_text(json.dumps(parsed(method={"name": "ditto"}).model_dump(mode="json")))
    assert "stages" in called("--spec", bad, "--app", tmp_path / "x")[1]
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="marks are read from /proc")
def test_marked_processes_end_whoever_their_parent_is():
    """The shell starts a sleeper in a session of its own and ends: only the mark leads to it."""
    name = "FEDLORA_FLOWER_REPORT"
    value = f"/nowhere/{os.getpid()}-{time.monotonic_ns()}"
    program = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, name: value}, check=True)
    mark = f"{name}={value}"
    assert within(10, lambda: len(marked(mark)) == 1)  # its environment shows once it has begun
    end(f"{mark}0", [], signal.SIGKILL)  # another's mark
    assert len(marked(mark)) == 1
    end(mark, [], signal.SIGKILL)
    assert within(10, lambda: not marked(mark))


def test_without_flower_there_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FedloraError, match="Flower is not installed"):
        launch.federate(parsed())
