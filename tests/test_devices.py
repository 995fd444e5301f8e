"""A GPU that is not there: asked for, needed, or hidden."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from typer.testing import CliRunner, Result

from fedlora_kit import devices
from fedlora_kit.cli import app, doctor
from fedlora_kit.engines import without_gpu as warning
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import duration
from fedlora_kit.papers.runs_of import planned_items, runs_of
from fedlora_kit.planning.rate import Rate, given_rate
from fedlora_kit.running.places import default_jobs
from fedlora_kit.study import rates as speeds
from fedlora_kit.study.plan import plan

ITEM = "lessons/lora_and_fedavg"
ROOT = Path(__file__).resolve().parent.parent
RATE = given_rate(0.01)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, and without a driver."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "gpu_hidden", lambda: False)
    monkeypatch.setattr(doctor, "gpu_hidden", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The item's notebook, in a home of its own; running it is an error that shows."""
    parameters = 'profile: str = "smoke"\ndevice: str = "auto"\nseeds: int = 3\noutput_dir: str = "figures"\n'
    node = nbformat.v4.new_notebook()
    node.cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(1)"),
    ]
    path = tmp_path / "notebooks" / f"{ITEM}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(node, path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "backbones").symlink_to(ROOT / "data" / "backbones")
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.setattr(speeds, "rates", lambda tflops, device: lambda spec: RATE)
    monkeypatch.chdir(tmp_path)
    return path


def call(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.exception, result.output)
    return result


@pytest.mark.parametrize("name", ["auto", "cpu", " cpu "])
def test_what_is_here_is_taken(name: str) -> None:
    devices.check_device(name)


@pytest.mark.parametrize(
    ("version", "hidden", "visible", "said"),
    [
        (None, False, None, "there is no GPU"),
        (None, True, None, "there is a GPU, but PyTorch here is the build for CPUs"),
        ("13.0", True, None, "PyTorch cannot use the GPU"),
        ("13.0", False, None, "no GPU is found here"),
        ("13.0", True, "", "CUDA_VISIBLE_DEVICES hides"),
    ],
)
def test_a_gpu_that_is_not_here_is_an_error_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, version: str | None, hidden: bool, visible: str | None, said: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.version, "hip", None)
    for module in (devices, doctor):
        monkeypatch.setattr(module, "gpu_hidden", lambda: hidden)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(BadValue, match=said) as raised:
        devices.check_device("cuda")
    assert "device=cpu" in raised.value.remedy
    check = doctor.device()
    assert said in check.found
    assert "fedlora plan --profile small" in check.found
    assert (check.verdict == "warn", bool(check.remedy)) == (hidden, hidden)


def test_a_number_beyond_the_last_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices.check_device("cuda:1")
    with pytest.raises(BadValue, match="there are 2 GPUs"):
        devices.check_device("cuda:2")
    with pytest.raises(BadValue, match="unknown device 'cdua'"):
        devices.check_device("cdua")


def test_a_driver_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert devices.gpu_hidden()


@pytest.mark.parametrize(
    "words",
    [
        ("reproduce", ITEM, "--set", "device=cuda"),
        ("reproduce", ITEM, "--set", "device=cuda:1", "-p", "paper"),
        ("reproduce", ITEM, "--set", "device=cuda", "--shard", "1/2"),
        ("plan", ITEM, "--device", "cuda"),
    ],
)
def test_the_command_line_refuses_a_missing_gpu_before_anything_runs(
    notebook: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    result = call(*words, "--output", "out", code=2) if "plan" not in words else call(*words, code=2)
    assert result.stderr.startswith("error: device=cuda")
    assert "  -> device=auto or device=cpu" in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_the_warning_gives_the_plans_time() -> None:
    given = {ITEM: {"seeds": 2}}
    total = plan("small", planned_items("small", given), lambda spec: RATE).totals
    said = warning.slow_without_gpu("small", given, lambda spec: RATE)
    assert said is not None
    assert f"profile small has {total.missing} runs to train" in said
    assert f"about {duration(3600 * total.device_hours)} on" in said
    assert f"{default_jobs()} go at a time" in said
    assert "\n" not in said
    half = warning.slow_without_gpu("small", given, lambda spec: RATE, share=2)
    assert half is not None
    assert duration(1800 * total.device_hours) in half
    assert f"{total.missing} runs to train, 1 of 2 shares here, " in half


def test_planning_that_fails_is_no_warning_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    def rate(spec: object) -> None:
        raise ZeroDivisionError("a broken clock")

    caplog.set_level(logging.DEBUG, "fedlora_kit")
    assert warning.slow_without_gpu("small", {ITEM: {"seeds": 1}}, rate) is None  # type: ignore[arg-type]
    (record,) = [r for r in caplog.records if r.name == warning.__name__]
    assert record.levelname == "DEBUG"
    assert "a broken clock" in caplog.text


def test_there_is_no_warning_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []

    def rate(spec: object) -> Rate:
        measured.append(spec)
        return RATE

    given = {ITEM: {"seeds": 1}}
    assert warning.slow_without_gpu("smoke", given, rate) is None
    assert warning.slow_without_gpu("small", {ITEM: {"seeds": 1, "device": "cpu"}}, rate) is None
    assert warning.slow_without_gpu("small", {"own/mine": {}}, rate) is None
    assert warning.slow_without_gpu("small", {ITEM: {"nothing": 1}}, rate) is None
    store = Store()
    for spec in runs_of(ITEM, "small", seeds=1):
        with store.work(spec.key(), {}) as work:
            work.finish({"results.json": {}, "history.jsonl": [], "provenance.json": {}})
    assert warning.slow_without_gpu("small", given, rate) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert warning.slow_without_gpu("small", {ITEM: {"seeds": 2}}, rate) is None
    assert measured == []


def test_a_batch_warns_once_and_runs(notebook: Path, tmp_path: Path) -> None:
    words = ("reproduce", ITEM, "--set", "seeds=2", "--output", "out", "-p")
    result = call(*words, "small")
    assert result.stderr.count("warning: no GPU here: profile small has") == 1
    assert (tmp_path / "out/small" / ITEM / "status.json").is_file()
    assert call(*words, "small").stderr == "", "nothing is run"
    assert call("-q", *words, "small", "--force").stderr == ""
