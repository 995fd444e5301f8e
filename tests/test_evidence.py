"""From a number to its runs: against pandas' own selection, and what is said where no mean gives it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_tools import fill_store, key

from fedlora_kit.experiments.store import Store
from fedlora_kit.reporting.evidence import Evidence, keys, sources, trace, trace_cell
from fedlora_kit.reporting.runs import curves, run_data
from fedlora_kit.reporting.tables import Table, read_table
from fedlora_kit.study.grid import mean_std_table


def table(frame: pd.DataFrame, name: str, folder: Path) -> Table:
    frame.to_csv(folder / f"{name}.csv", index=False)
    return read_table(folder / f"{name}.csv")


def results(values: list[float]) -> pd.DataFrame:
    places = [
        (s, e, m, seed) for s in ("iid", "mild") for e in ("6", "none") for m in "ab" for seed in (0, 1)
    ]
    frame = pd.DataFrame(places, columns=["split", "eps", "method", "seed"])
    frame["key"] = [f"{i:016x}" for i in range(len(frame))]
    frame["accuracy"] = values
    frame["accuracy_best"] = [v + 5 for v in values]
    return frame


def linked(one: Table, known: Table) -> dict[tuple[int, int], Evidence]:
    found = {e.id: e for e in trace(one, sources([known]), "p")}
    assert {address[1:] for address in one.links.values()} == set(found)
    return {place: found[address[1:]] for place, address in one.links.items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=16, max_size=16))
def test_every_number_of_a_table_names_its_runs(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("t")
    frame = results(values)
    printed = mean_std_table(frame, rows=["eps", "method"], column="split", value="accuracy_best")
    shown = table(printed, "table", folder)
    found = linked(shown, table(frame, "results", folder))
    assert len(found) == 8
    for (i, j), evidence in found.items():
        row = printed.iloc[i]
        chosen = frame[
            (frame["eps"] == row["eps"])
            & (frame["method"] == row["method"])
            & (frame["split"] == shown.header[j])
        ]
        assert [run[0] for run in evidence.runs] == list(chosen["key"])
        assert "accuracy_best" in evidence.said
        assert evidence.said.endswith("checked.")


def test_headings_that_are_no_values_are_found_by_the_digits(tmp_path: Path) -> None:
    frame = results([float(v) for v in range(16)])
    wide = mean_std_table(frame[frame["eps"] == "none"], rows=["method"], column="split")
    wide = wide.rename(columns={"iid": "equal shares", "mild": "a bit apart"})
    found = linked(table(wide, "table", tmp_path), table(frame, "results", tmp_path))
    assert [run[0] for run in found[0, 2].runs] == [f"{i:016x}" for i in (12, 13)]


def test_a_number_that_no_mean_gives_is_not_called_one(tmp_path: Path) -> None:
    frame = results([float(v) for v in range(16)])
    other = pd.DataFrame({"method": ["a", "b"], "gain": ["99.125 ± 0.5", "–"]})
    found = linked(table(other, "gains", tmp_path), table(frame, "results", tmp_path))
    assert list(found) == [(0, 1)]
    assert "no plain mean" in found[0, 1].said
    assert len(found[0, 1].runs) == 8
    assert {run[2] for run in found[0, 1].runs} == {""}


def test_numbers_of_others_lead_to_no_runs_of_ours(tmp_path: Path) -> None:
    frame = results([float(v) for v in range(16)])
    theirs = pd.DataFrame({"method": ["a"], "accuracy": [87.11]})
    assert linked(table(theirs, "rounds_official", tmp_path), table(frame, "results", tmp_path)) == {}


def test_a_table_by_run_leads_to_each_run(tmp_path: Path) -> None:
    known = table(results([1.0] * 16), "results", tmp_path)
    assert list(trace(known, sources([known]), "p")) == []
    assert known.links[3, known.header.index("key")] == f"#run-{3:016x}"
    assert keys([known]) == [f"{i:016x}" for i in range(16)]


def test_a_diverged_run_is_told_of(tmp_path: Path) -> None:
    frame = results([50.0, np.nan, *map(float, range(14))])
    printed = mean_std_table(frame[frame["eps"] == "6"], rows=["method"], column="split")
    found = linked(table(printed, "table", tmp_path), table(frame, "results", tmp_path))
    assert printed.iloc[0]["iid"].startswith("50.00")
    assert "over 1 of 2 runs" in found[0, 1].said


def test_a_cell_of_the_comparison(tmp_path: Path) -> None:
    known = sources([table(results([float(v) for v in range(16)]), "results", tmp_path)])
    cell = {"split": "iid", "eps": "6", "method": "b"}
    found = trace_cell(cell, "2.5", "2", "2.50", known, "c0")
    assert found is not None
    assert [run[0] for run in found.runs] == [f"{i:016x}" for i in (2, 3)]
    assert "The mean of accuracy over 2 runs" in found.said
    wrong = trace_cell(cell, "2.6", "2", "2.60", known, "c1")
    assert wrong is not None
    assert "no plain mean" in wrong.said
    whole = trace_cell({"cell": "gain over baseline"}, "1.0", "2", "1", known, "c2")
    assert whole is not None
    assert len(whole.runs) == 16
    assert trace_cell(cell, "2.5", "2", "2.5", [], "c3") is None


def test_of_a_table_over_rounds_the_last_one_counts(tmp_path: Path) -> None:
    rows = [("a", 0, "0" * 16, r, 10.0 * r) for r in (1, 2, 3)]
    known = table(
        pd.DataFrame(rows, columns=["method", "seed", "key", "round", "accuracy"]), "curves", tmp_path
    )
    assert [row["accuracy"] for row in sources([known])[0].rows] == ["30.0"]


def test_curves_are_thinned_with_both_ends_kept() -> None:
    history = [
        {"round": i, "train_loss": 1 / (i + 1), "eval": {"test": {"accuracy": i / 1000, "loss": np.nan}}}
        for i in range(1000)
    ]
    found = curves(history, points=50)
    assert set(found) == {"train loss", "test accuracy"}
    line = found["test accuracy"]
    assert len(line) == 50
    assert (line[0], line[-1]) == ([1, 0.0], [1000, 0.999])
    assert [at for at, _ in line] == sorted({at for at, _ in line})
    assert curves([{"round": 0, "train_loss": None}]) == {}


def test_what_runs_share_is_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill_store(store)
    data = run_data([key("lora", "iid", s) for s in range(3)] * 2 + ["f" * 16], store)
    runs = data["runs"]
    assert len(runs) == 4
    assert runs["f" * 16] == {"problem": "not in the store of this machine"}
    methods = {runs[key("lora", "iid", s)]["spec"]["method"] for s in range(3)}
    assert len(methods) == 1
    assert data["pool"][methods.pop()] == {"name": "lora"}
    json.dumps(data, allow_nan=False)
