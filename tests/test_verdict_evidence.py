"""From a verdict and from an ε to the runs, against the verdict's own figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.reporting.evidence import Evidence, sources
from fedlora_kit.reporting.tables import Table, read_table
from fedlora_kit.reporting.verdict_evidence import trace_claim, trace_ledger
from fedlora_kit.study.claims import Claim, judge_all, mean_difference, smaller_drop, to_json
from fedlora_kit.study.known_methods import look

PLACES = [(m, t, seed) for m in ("lora", "ffa-lora") for t in ("a", "b") for seed in (0, 1, 2)]


def results(values: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame(PLACES, columns=["method", "task", "seed"])
    frame["key"] = [f"{i:016x}" for i in range(len(frame))]
    return frame.assign(accuracy=values, epsilon=[v / 10 for v in values])


def table(frame: pd.DataFrame, name: str, folder: Path) -> Table:
    frame.to_csv(folder / f"{name}.csv", index=False)
    return read_table(folder / f"{name}.csv")


def traced(claim: Claim, frame: pd.DataFrame, known: Table, change: float = 0.0) -> Evidence | None:
    (record,) = json.loads(to_json(judge_all([claim], frame)))
    figures = {**record["evidence"], "difference": record["evidence"].get("difference", 0.0) + change}
    return trace_claim(record, figures, sources([known]), "p")


def above(**settings: object) -> Claim:
    sides = {"better": {"method": "lora"}, "worse": {"method": "ffa-lora"}}
    return Claim("c", "t", "s", "f", lambda frame: mean_difference(frame, "accuracy", **sides, **settings))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=12, max_size=12))
def test_a_difference_names_both_sides_and_is_computed_anew(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    frame = results(values)
    known = table(frame, "results", tmp_path_factory.mktemp("t"))
    found = traced(above(), frame, known)
    assert found is not None
    assert "checked" in found.said
    assert [(run[0], run[3]) for run in found.runs] == [
        (row.key, look(row.method).title) for row in frame.itertuples()
    ]
    assert [float(run[2]) for run in found.runs] == pytest.approx(values)
    other = traced(above(), frame, known, change=1e-3)
    assert other is not None
    assert "checked" not in other.said


@pytest.mark.parametrize("left_out", ["not finite", "absent on one side", "a cell absent"])
def test_an_incomplete_seed_is_left_out_as_the_verdict_leaves_it_out(tmp_path: Path, left_out: str) -> None:
    frame = results([float(v) for v in np.random.default_rng(1).uniform(0, 100, 12)])
    if left_out == "not finite":
        frame.loc[1, "accuracy"] = np.nan
    else:
        at = (frame["method"] == "lora") & (frame["seed"] == 1)
        frame = frame[~(at & (frame["task"] == "a"))] if left_out == "a cell absent" else frame[~at]
    found = traced(above(), frame, table(frame, "results", tmp_path))
    assert found is not None
    assert "; checked." in found.said
    assert "1 incomplete seeds left out" in found.said
    assert len(found.runs) == len(frame)


def test_another_rule_names_the_runs_without_calling_them_checked(tmp_path: Path) -> None:
    frame = results([float(v) for v in range(12)])
    drop = Claim(
        "c",
        "t",
        "s",
        "f",
        lambda f: smaller_drop(
            f,
            "accuracy",
            better={"method": "lora"},
            worse={"method": "ffa-lora"},
            before={"task": "a"},
            after={"task": "b"},
        ),
    )
    found = traced(drop, frame, table(frame, "results", tmp_path))
    assert found is not None
    assert len(found.runs) == 12
    assert "could not be recomputed" in found.said


@pytest.mark.parametrize(
    "reason", ["no result for method=x", "slope 2 [1, 3]", "accuracy: (depth=3) − (depth=4)"]
)
def test_a_verdict_that_names_no_runs_has_none(tmp_path: Path, reason: str) -> None:
    known = sources([table(results([1.0] * 12), "results", tmp_path)])
    assert trace_claim({"reason": reason, "status": "undecided", "text": "t"}, {}, known, "p") is None


def test_values_of_another_round_are_not_shown(tmp_path: Path) -> None:
    frame = pd.concat([results([v + r for v in range(12)]).assign(round=r) for r in (1, 2)])
    frame = frame[["method", "task", "seed", "key", "round", "accuracy"]]
    found = traced(above(), frame[frame["round"] == 1], table(frame, "curves", tmp_path), change=1.0)
    assert found is not None
    assert {run[2] for run in found.runs} == {""}


def test_an_epsilon_leads_to_the_runs_whose_largest_it_is(tmp_path: Path) -> None:
    frame = results([float(v) for v in np.random.default_rng(0).uniform(1, 9, 12)])
    largest = frame.groupby("method", sort=False)["epsilon"].max().reset_index().assign(sigma=0.5, T=16)
    ledger = table(largest, "privacy", tmp_path)
    found = list(trace_ledger(ledger, sources([table(frame, "results", tmp_path)]), "p"))
    assert ledger.links == {(0, 1): "#p-0-1", (1, 1): "#p-1-1"}
    for one, method in zip(found, largest["method"], strict=True):
        assert [run[0] for run in one.runs] == list(frame["key"][frame["method"] == method])
    wrong = table(largest.assign(epsilon=0.1), "privacy", tmp_path)
    assert list(trace_ledger(wrong, sources([table(frame, "results", tmp_path)]), "p")) == []
