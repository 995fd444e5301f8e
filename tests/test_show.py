"""`fedlora show` and `fedlora compare`: a run found by the beginning of its key, alone and beside another."""

from __future__ import annotations

import copy
import doctest
import json
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.store import Store
from fedlora_kit.reporting import one_run, two_runs

ROOT = Path(__file__).resolve().parent.parent
A, B, BROKEN, RUNNING = "aa00000000000001", "aa00000000000002", "b" * 16, "c" * 16
SPEC = {
    "model": {
        "backbone": "kit/text-tiny",
        "weights": "pretrained",
        "lora": {"rank": 8, "alpha": 16.0, "targets": ["q", "v"], "head": "frozen"},
    },
    "data": {"task": "polarity", "holdout": 50, "eval_limit": None},
    "split": {"partitioner": "dirichlet", "clients": 5, "settings": {"alpha": 0.3}},
    "method": {"name": "ffa-lora", "settings": {}},
    "local": {"optimizer": "sgd", "lr": 0.5, "steps": 10, "batch_size": 32},
    "rounds": {"rounds": 30, "cohort": 4},
    "privacy": {"epsilon": 6.0, "delta": 1e-5, "clip": 1.0},
    "seed": 7,
    "precision": "fp32",
}
HISTORY = [
    {
        "round": i,
        "cohort": [0, 1, 2, 3],
        "training_clients": 3,
        "train_loss": 1 / (i + 1),
        "bytes_up": 1000,
        "epsilon": 6 * (i + 1) / 30,
        **({"eval": {"validation": {"accuracy": 0.5 + i / 100, "loss": 0.7}}} if i % 3 == 2 else {}),
    }
    for i in range(30)
]  # fmt: skip
RESULTS = {
    "scores": {
        "validation": {
            "final": 0.79,
            "last10": 0.75,
            "best": 0.79,
            "best_round": 29,
            "loss": 0.7,
            "examples": 9,
        }
    },
    "local": {
        "accuracy": {"final": 0.6, "last10": 0.55, "best": 0.61, "clients": {"0": 0.6}},
        "examples": {"0": 4},
    },
    "trained_parameters": 8192,
    "bytes_up": 30_000,
    "client_sizes": [10, 40],
    "adapter_digest": "d1",
}
LEDGER = {
    "epsilon": 5.99,
    "delta": 1e-5,
    "accountant": "rdp",
    "sampling": "poisson",
    "target_epsilon": 6.0,
    "clip": 1.0,
    "sigma": 0.987,
    "sample_rate": 0.1,
    "steps": 300,
    "clients": [{"client": 0, "epsilon": 5.99}, {"client": 1, "epsilon": 4.5}],
}
ORIGIN = {
    "versions": {"torch": "2.13.0", "absent": None},
    "git": {"commit": "f" * 40, "dirty": True},
    "device": {"type": "cpu", "name": "a processor"},
    "peak_memory_bytes": {"process": 2**30, "cuda": None},
    "started_utc": "2026-01-31T12:00:00+00:00",
    "wall_seconds": 12.5,
    "resumed_after_round": 3,
    "source": "5" * 64,
}


def finish(key: str, spec: dict, results: dict = RESULTS, origin: dict = ORIGIN, **files: object) -> None:
    with Store().work(key, spec) as work:
        work.finish(
            {
                "results.json": results,
                "history.jsonl": HISTORY,
                "provenance.json": origin,
                "privacy.json": LEDGER,
                **files,
            }
        )


@pytest.fixture
def store() -> Store:
    """Two finished runs, one that failed and one that was interrupted."""
    import torch

    finish(A, SPEC)
    other = copy.deepcopy(SPEC) | {"privacy": None, "seed": 8}
    other["split"]["settings"] = {"alpha": 0.1}
    better = copy.deepcopy(RESULTS)
    better["scores"]["validation"]["final"] = 0.89
    finish(B, other, better, ORIGIN | {"versions": {"torch": "2.14.0"}})
    store = Store()
    with store.work(BROKEN, SPEC) as work:
        work.fail({"error": "loss became NaN", "round": 3, "client": 1})
    with store.work(RUNNING, SPEC) as work:
        work.checkpoints.save(4, {"w": torch.zeros(1)}, {"history": HISTORY[:5], "ledger": None})
    return store


def call(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.exception, result.output)
    return result


def test_doctests() -> None:
    assert doctest.testmod(one_run).failed == doctest.testmod(two_runs).failed == 0


# --- finding -----------------------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_of_its_key_or_a_path_into_its_folder(store: Store) -> None:
    for text in (A, B[:15] + "2", " B ", "bb", RUNNING[:3], f"data/runs/{A}/spec.json", f"data/runs/{A}/"):
        found = one_run.find_key(text, store)
        assert found.startswith(text.strip().lower()) or found == A
    assert one_run.known_keys(store) == sorted([A, B, BROKEN, RUNNING])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aa", f"2 keys: {A}, {B}"),
        ("d", "no run 'd'"),
        ("", "no key"),
        ("xyz", "no key"),
        ("a" * 17, "no key"),
    ],
)
def test_no_run_and_several_runs_are_one_clear_error(store: Store, text: str, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        one_run.find_key(text, store)
    result = call("show", text, code=2)
    assert said in result.stderr
    assert result.stdout == ""


def test_an_empty_store_has_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="fedlora runs"):
        one_run.find_key("a", Store(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


# --- show --------------------------------------------------------------------------------------------


def test_show_gives_description_history_privacy_and_provenance(store: Store) -> None:
    text = call("show", A).stdout
    for said in (
        f"run {A}: finished, {store.root / A}",
        "ffa-lora",
        "rank 8, α 16 on q v, head frozen",
        "polarity, held out for choosing: 50",
        "5, dirichlet (alpha=0.3)",
        "30 × 10 steps of 32 examples, cohort 4",
        "sgd, lr 0.5",
        "0.79 (round 30)",
        "8,192 trained parameters",
        "clients of 10 to 40 examples",
        "12 of 30 rounds",
        "3 of 4",
        "0.987",
        "2, ε from 4.5 to 5.99",
        "ffffffffffff, with changes",
        "after round 4",
        "1.1 GB (process)",
        "torch 2.13.0",
    ):
        assert said in text, said
    assert "absent" not in text
    curve = re.search(r"train loss +([▁-█]+)  1 -> 0.03333", text)
    assert curve is not None
    assert curve[1][0] == "█"
    assert curve[1][-1] == "▁"


def test_every_round_is_shown_on_request(store: Store) -> None:
    def rounds(*words: str) -> list[int]:
        return [
            int(m) for m in re.findall(r"^ +(\d+) +3 of 4 ", call("show", A, *words).stdout, re.MULTILINE)
        ]

    assert rounds("--rows", "0") == list(range(1, 31))
    assert rounds("--rows", "3") == [1, 15, 30]
    assert rounds("--rows", "1") == [1]
    assert len(rounds()) == 12
    assert "--rows" in call("show", A, "--rows", "-1", code=2).stderr


def test_show_as_json_is_the_whole_entry(store: Store) -> None:
    found = json.loads(call("show", A, "--json").stdout)
    assert found == {
        "key": A,
        "status": "finished",
        "path": str(store.root / A),
        "spec": SPEC,
        "results": RESULTS,
        "history": HISTORY,
        "privacy": LEDGER,
        "provenance": ORIGIN,
        "failure": None,
    }


def test_unfinished_runs_show_what_there_is_and_stay_untouched(store: Store) -> None:
    before = sorted(p for p in store.root.rglob("*"))
    assert "failed" in call("show", "b").stdout
    assert "loss became NaN" in call("show", "b").stdout
    running = json.loads(call("show", "c", "--json").stdout)
    assert (running["status"], len(running["history"]), running["results"]) == ("interrupted", 5, None)
    assert sorted(p for p in store.root.rglob("*")) == before
    for file in (store.root / ".work" / RUNNING / "checkpoints").glob("*.safetensors"):
        file.write_bytes(b"half a checkpoint")
    assert json.loads(call("show", "c", "--json").stdout)["history"] == []
    assert sorted(p for p in store.root.rglob("*")) == before


def test_a_damaged_run_is_said_to_be_and_left_where_it_is(store: Store) -> None:
    (store.root / A / "results.json").write_text("{}")
    with pytest.raises(FedloraError, match="damaged"):
        one_run.record(A, store)
    assert "does not fit the manifest" in call("show", A, code=1).stderr
    assert (store.root / A).is_dir()


def test_a_description_that_lacks_parts_is_still_shown() -> None:
    with Store().work("d" * 16, {"method": {"name": "x"}}) as work:
        work.finish({"results.json": {}, "history.jsonl": [], "provenance.json": {}})
    text = call("show", "d").stdout
    assert "trained without DP" in text
    assert "History" not in text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_bars_keep_the_order_of_the_values(values: list[float]) -> None:
    for plain, levels in ((False, "▁▂▃▄▅▆▇█"), (True, "_.-=+*#@")):
        drawn = [levels.index(c) for c in one_run.spark(values, plain)]
        assert len(drawn) == len(values)
        for (v, level), (w, other) in zip(
            list(zip(values, drawn, strict=True)), list(zip(values, drawn, strict=True))[1:], strict=False
        ):
            assert level <= other if v <= w else level >= other
        if max(values) > min(values):
            assert (drawn[values.index(max(values))], drawn[values.index(min(values))]) == (
                len(levels) - 1,
                0,
            )


def test_on_a_terminal_tables_are_fitted_to_its_width(store: Store) -> None:
    leader, follower = pty.openpty()
    code = "import sys; from fedlora_kit.cli import app; app(sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "60", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code, "compare", A, B], stdout=follower, env=env)
    os.close(follower)
    said = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    assert process.wait(30) == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.decode())
    assert "─" in plain
    table = plain[plain.index("Results") :].splitlines()
    assert max(map(len, table)) <= 60


# --- compare -----------------------------------------------------------------------------------------


def test_compare_names_what_differs_and_sets_the_results_side_by_side(store: Store) -> None:
    found = json.loads(call("compare", A, B, "--json").stdout)
    assert found["description"] == [
        {"field": "split.settings.alpha", "a": 0.3, "b": 0.1},
        *(
            {"field": f"privacy.{name}", "a": value, "b": "absent"}
            for name, value in SPEC["privacy"].items()  # type: ignore[attr-defined]
        ),
        {"field": "seed", "a": 7, "b": 8},
        {"field": "privacy", "a": "absent", "b": None},
    ]
    rows = {row["field"]: row for row in found["results"]}
    assert rows["scores.validation.final"]["difference"] == pytest.approx(0.1)
    assert rows["bytes_up"] == {"field": "bytes_up", "a": 30_000, "b": 30_000, "difference": 0}
    assert not any("clients" in field for field in rows)
    assert found["same_adapter"] is True
    assert {row["field"] for row in found["provenance"]} == {"versions.torch", "versions.absent"}
    text = call("compare", A, B).stdout
    assert "split.settings.alpha" in text
    assert "+0.1" in text
    assert "equal bit for bit" in text
    assert "local.lr" not in text, "what is the same is not listed"


def test_equal_descriptions_with_other_keys_are_explained(store: Store) -> None:
    finish("e" * 16, SPEC, origin=ORIGIN | {"source": "6" * 64})
    text = call("compare", A, "e").stdout
    assert "equal; the keys differ by the source" in text
    assert "6666" in text
    assert call("compare", A, A).stdout == f"Both are run {A}.\n"


def test_a_run_without_results_is_compared_as_far_as_it_goes(store: Store) -> None:
    text = call("compare", A, "b").stdout
    assert f"{BROKEN} is not finished" in text
    assert "0.79" in text
    assert "Results\n" not in call("compare", "b", "c").stdout
    assert json.loads(call("compare", A, "b", "--json").stdout)["same_adapter"] is None


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("xyz"), NESTED), st.dictionaries(st.sampled_from("xyz"), NESTED))
def test_differences_are_empty_for_equals_only_and_mirror_each_other(one: dict, two: dict) -> None:
    assert two_runs.differences(one, copy.deepcopy(one)) == []
    forth, back = two_runs.differences(one, two), two_runs.differences(two, one)
    assert {(d["field"], repr(d["a"]), repr(d["b"])) for d in forth} == {
        (d["field"], repr(d["b"]), repr(d["a"])) for d in back
    }
    assert bool(forth) or one == two
    for gap in two_runs.results(one, two):
        assert gap["difference"] is None or math.isclose(gap["b"] - gap["a"], gap["difference"])
