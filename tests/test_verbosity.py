"""--quiet and --verbose: what is said, where, and that nothing of it outlives the command."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import nbformat
import pytest
from cli_tools import LARGE_DELTA
from typer.testing import CliRunner, Result

from fedlora_kit.batch.order import Order
from fedlora_kit.batch.progress import Running
from fedlora_kit.batch.run_log import RunLog, device_text
from fedlora_kit.batch.status import OK, UNCHANGED, Status
from fedlora_kit.cli import app
from fedlora_kit.cli.verbosity import _BARS, LOGGER
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.items import find
from fedlora_kit.papers.runs_of import runs_of
from fedlora_kit.running.many import run_all


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    node = nbformat.v4.new_notebook()
    parameters = 'profile: str = "smoke"\ndevice: str = "auto"\noutput_dir: str = "figures"\n'
    node.cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(1)"),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(node, tmp_path / "notebooks" / "start_here.ipynb")
    return tmp_path


def state() -> list[object]:
    """What a command could leave behind."""
    logger = logging.getLogger(LOGGER)
    return [logger.level, logger.propagate, list(logger.handlers), *(os.environ.get(name) for name in _BARS)]


def call(*words: str, code: int = 0) -> Result:
    before = state()
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.exception, result.output)
    assert state() == before
    assert ("ignore", None, Warning, None, 0) not in warnings.filters
    return result


def test_the_options_stand_before_and_after_every_command() -> None:
    for words in (
        (),
        ("reproduce",),
        ("runs",),
        ("backbones",),
        ("backbones", "build"),
        ("replay", "fed-hello"),
    ):
        said = call(*words, "--help").stdout
        assert (said.count("-q, --quiet"), said.count("-v, --verbose")) == (1, 1), words


@pytest.mark.parametrize("words", [("-v", "runs"), ("runs", "-v"), ("-v", "runs", "-v"), ("runs", "-vv")])
def test_verbose_says_where_the_store_lies_and_leaves_the_output_alone(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.stdout == call("runs").stdout
    assert result.stderr.count(f"store of runs: {Store().root}") == 1
    assert call("runs").stderr == ""


@pytest.mark.parametrize("words", [("-q", "-v", "runs"), ("-q", "runs", "-v"), ("-v", "runs", "-q")])
def test_quiet_and_verbose_exclude_each_other(words: tuple[str, ...]) -> None:
    assert "exclude each other" in call(*words, code=2).stderr


@pytest.mark.parametrize("words", [("-q", *LARGE_DELTA), (*LARGE_DELTA, "--quiet")])
def test_quiet_leaves_out_warnings_and_keeps_results_and_errors(words: tuple[str, ...]) -> None:
    loud, quiet = call(*LARGE_DELTA), call(*words)
    assert "warning: delta" in loud.stderr
    assert (quiet.stdout, quiet.stderr) == (loud.stdout, "")
    assert "error: no run" in call("-q", "show", "abc", code=2).stderr


def test_a_quiet_batch_prints_its_report_and_nothing_else(home: Path) -> None:
    page = home / "figures/smoke/index.html"
    assert call("-q", "reproduce", "start_here").output == f"report: {page}\n"
    assert call("reproduce", "start_here", "-q").output == f"report: {page}\n"
    assert "Nothing has changed" in call("reproduce", "start_here").output


def test_a_verbose_batch_logs_device_and_unchanged_notebooks(home: Path) -> None:
    call("-q", "reproduce", "start_here")
    result = call("-v", "reproduce", "start_here", "--set", "device=cpu")
    assert "device: cpu" in result.stderr
    assert "start_here: running" in result.stdout
    again = call("reproduce", "start_here", "--set", "device=cpu", "-v")
    assert "start_here: unchanged, its notebook is not run" in again.stderr


def test_each_items_runs_are_logged_before_and_after(caplog: pytest.LogCaptureFixture) -> None:
    store, item = Store(), "lessons/lora_and_fedavg"
    specs = runs_of(item, "smoke", seeds=2)
    keys = list(dict.fromkeys(spec.key() for spec in specs))
    files = {"results.json": {}, "history.jsonl": [], "provenance.json": {}}

    def finish(key: str) -> None:
        with store.work(key, {}) as work:
            work.finish(files)

    finish(keys[0])
    caplog.set_level(logging.DEBUG, LOGGER)
    log = RunLog(Order(find(item), settings={"seeds": 2, "device": "cpu"}), lambda _: None, store=store)
    log.begin(3)
    log.start(Running(item, 0.0))
    assert f"{item}: 1 runs come from the store, {len(keys) - 1} are to be trained" in caplog.text
    assert f"run {keys[0]} ({specs[0].method.name} on" in caplog.text
    caplog.clear()
    finish(keys[1])
    log.end(Status(item, OK, "smoke"))
    assert f"{item}: 1 runs were trained, 1 were in the store" in caplog.text
    assert caplog.text.count(keys[1]) == 1
    assert keys[0] not in caplog.text
    caplog.clear()
    log.start(Running("own/mine", 0.0))
    log.end(Status("own/mine", OK, "smoke"))
    log.end(Status("own/other", UNCHANGED, "smoke"))
    assert "own/mine: its runs cannot be named beforehand" in caplog.text
    assert "own/other: unchanged" in caplog.text
    log.close()


def test_a_device_is_named() -> None:
    assert device_text("cpu").startswith("cpu, ")


def test_runs_that_are_asked_for_together_log_what_the_store_has(caplog: pytest.LogCaptureFixture) -> None:
    description = {
        "model": {"backbone": "kit/text-tiny"},
        "data": {"task": "polarity", "train_limit": 30, "eval_limit": 10},
        "split": {"partitioner": "iid", "clients": 2},
        "method": {"name": "lora"},
        "local": {"lr": 0.5, "steps": 1, "batch_size": 4},
        "rounds": {"rounds": 1},
    }
    spec = RunSpec.parse(description)
    caplog.set_level(logging.DEBUG, LOGGER)
    run_all([spec], device="cpu", jobs=1)
    assert f"runs: 0 from the store {Store().root}, 1 to train" in caplog.text
    assert "runs: 1 on the CPU, 0 on GPUs, 1 at a time" in caplog.text
    caplog.clear()
    run_all([spec, spec], device="cpu", jobs=1)
    assert "1 from the store" in caplog.text
    assert "0 to train" in caplog.text
    assert f"run {spec.key()} from the store" in caplog.text
