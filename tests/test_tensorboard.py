"""`fedlora tensorboard`: event files that say what the store says. Read back by TensorBoard itself."""

from __future__ import annotations

import doctest
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from fedlora_kit.cli import app
from fedlora_kit.experiments.store import Store
from fedlora_kit.reporting import event_files

A, B, FAILED = "aa00000000000001", "bb00000000000002", "c" * 16
SPEC = {"method": {"name": "ffa-lora"}, "data": {"task": "polarity"}, "local": {"lr": 0.5}, "seed": 3}
HISTORY = [
    {
        "round": i,
        "cohort": [0, 1],
        "training_clients": 2,
        "train_loss": 1 / (i + 1) if i else None,
        "bytes_up": 123_456_789 * i,
        "parameters_sent": [5, 5],
        "aggregation_gap": {"relative": 0.25 * i},
        **({"eval": {"validation": {"accuracy": 0.5 + i / 10, "loss": float("nan")}}} if i % 2 else {}),
        **({"local": {"clients": [0, 4], "examples": [7, 9], "accuracy": [0.25, 2.25]}} if i == 3 else {}),
    }
    for i in range(4)
]  # fmt: skip
ORIGIN = {"started_utc": "2026-01-31T12:00:00+00:00", "wall_seconds": 12.5}
EXPECTED = {
    "training_clients": [(1, 2), (2, 2), (3, 2), (4, 2)],
    "train_loss": [(2, 1 / 2), (3, 1 / 3), (4, 1 / 4)],
    "bytes_up": [(1, 0), (2, 123_456_789), (3, 2 * 123_456_789), (4, 3 * 123_456_789)],
    "aggregation_gap/relative": [(1, 0), (2, 0.25), (3, 0.5), (4, 0.75)],
    "eval/validation/accuracy": [(2, 0.6), (4, 0.8)],
    "local/accuracy": [(4, 1.25)],
}
installed = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the extra tensorboard is not installed"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    store = Store()
    for key, seed in ((A, 3), (B, 4)):
        with store.work(key, SPEC | {"seed": seed}) as work:
            work.finish({"results.json": {}, "history.jsonl": HISTORY, "provenance.json": ORIGIN})
    with store.work(FAILED, SPEC) as work:
        work.fail({"error": "loss became NaN", "round": 3, "client": 1})
    return tmp_path


def call(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.exception, result.output)
    return result


def results(home: Path, item: str, *keys: str) -> None:
    folder = home / "figures" / "smoke" / item
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text("seed,key,final\n" + "".join(f"0,{key},0.5\n" for key in keys))


def test_a_history_is_told_by_its_columns() -> None:
    found = event_files.scalars(HISTORY)
    assert found.keys() == EXPECTED.keys()
    for name, curve in EXPECTED.items():
        assert [step for step, _ in found[name]] == [step for step, _ in curve]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in curve]), name
    assert event_files.scalars([]) == {}
    assert doctest.testmod(event_files).failed == 0


@installed
def test_event_files_hold_the_stores_history_and_the_description(home: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert "2 runs written, 0 were there" in call("tensorboard", "--logdir", "logs").stdout
    assert sorted(p.name for p in (home / "logs").iterdir()) == [
        f"ffa-lora_polarity_seed3_{A}",
        f"ffa-lora_polarity_seed4_{B}",
    ]
    read = EventAccumulator(str(home / "logs" / f"ffa-lora_polarity_seed3_{A}"))
    read.Reload()
    history = Store().load(A).history  # type: ignore[union-attr]
    assert read.Tags()["scalars"] == list(event_files.scalars(history))
    for name, curve in event_files.scalars(history).items():
        events = read.Scalars(name)
        assert [e.step for e in events] == [step for step, _ in curve]
        assert np.array_equal([e.value for e in events], np.float32([value for _, value in curve])), name
        assert {e.wall_time for e in events} == {1769860812.5}
    (text,) = read.Tensors("description/text_summary")
    assert json.loads(text.tensor_proto.string_val[0].decode().strip("`json\n")) == SPEC
    (table,) = read.Tensors("hyperparameters/text_summary")
    assert b"| method | ffa-lora |" in table.tensor_proto.string_val[0]


@installed
def test_what_is_written_is_not_written_again(home: Path) -> None:
    call("tensorboard", "aa", "--logdir", "logs")
    (file,) = (home / "logs").rglob("*tfevents*")
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    found = json.loads(call("tensorboard", "--logdir", "logs", "--json").stdout)
    assert [name[-16:] for name in found["written"]] == [B]
    assert [name[-16:] for name in found["kept"]] == [A]
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert "0 runs written, 2 were there" in call("tensorboard", "--logdir", "logs").stdout
    call("tensorboard", "aa", "--logdir", "other")
    (same,) = (home / "other").rglob("*tfevents*")
    assert same.name == file.name


@installed
def test_runs_are_chosen_by_key_item_or_paper(home: Path) -> None:
    results(home, "start_here", A)
    results(home, "ffa-lora/table1", B, A, "d" * 16)

    def chosen(*words: str) -> list[str]:
        found = json.loads(call("-q", "tensorboard", *words, "--json").stdout)
        return [name[-16:] for name in (*found["written"], *found["kept"])]

    assert chosen("start_here") == [A]
    assert chosen("bb", "bb00", f"data/runs/{A}/") == [B, A]
    assert sorted(chosen("ffa-lora")) == [A, B]
    assert (home / "data" / "cache" / "tensorboard").is_dir()
    said = call("tensorboard", "ffa-lora/table1").stderr
    assert "warning: 1 runs that the tables of ffa-lora/table1 name are not in" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("c",), "is failed"),
        (("d",), "no run 'd'"),
        (("start_her",), "did you mean 'start_here'"),
        (("start_here",), "no run of start_here at profile smoke"),
        (("start_here", "-p", "smoky"), "unknown profile"),
    ],
)
def test_what_cannot_be_written_is_one_clear_error(home: Path, words: tuple[str, ...], said: str) -> None:
    result = call("tensorboard", *words, "--logdir", "logs", code=2)
    assert said in result.stderr
    assert not (home / "logs").exists()


def test_without_the_extra_the_error_names_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = call("tensorboard", "--logdir", "logs", code=1)
    assert "pip install 'fedlora-kit[tensorboard]'" in result.stderr
    assert result.stdout == ""
    assert not (home / "logs").exists()
