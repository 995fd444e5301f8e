"""Fed-HeLLo's ablation of strategies and geometries as data."""

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods.allocation import PATTERNS
from fedlora_kit.papers.fed_hello import grid, strategies
from fedlora_kit.study.claims import judge_all

ALL = list(PATTERNS)


def results(value):
    """value: (strategy, pattern) -> accuracy."""
    return pd.DataFrame(
        [
            {
                "split": "pat_10",
                "strategy": strategy,
                "pattern": pattern,
                "dataset": "digits",
                "task": "digits",
                "seed": seed,
                "accuracy_best": value(strategy, pattern) + 0.1 * seed * len(strategy + pattern),
            }
            for strategy in strategies.STRATEGIES
            for pattern in PATTERNS
            for seed in range(3)
        ]
    )


def test_every_strategy_meets_every_pattern_on_one_split():
    s = strategies.setting("smoke")
    made = strategies.cells(s, ALL)
    assert len({c.spec.canonical() for c in made}) == len(made) == 3 * 4 * len(s.seeds)
    assert {c.coords["split"] for c in made} == {"pat_10"}
    for c in made:
        assert c.spec.method.settings["pattern"] == c.coords["pattern"]
        assert c.spec.method.name == strategies.STRATEGIES[c.coords["strategy"]]


def test_fed_hello_itself_is_the_run_of_table_2():
    s = strategies.setting("smoke")
    table2 = {c.spec.canonical() for c in grid.cells(grid.PROFILES["smoke"])}
    shared = [c for c in strategies.cells(s, ALL) if c.spec.canonical() in table2]
    assert {(c.coords["strategy"], c.coords["pattern"]) for c in shared} == {("fim", "bottleneck")}
    assert len(shared) == len(s.seeds)


def test_the_claims():
    order = {"gd": 0, "rgd": 5, "fim": 10}
    good = results(lambda strategy, pattern: 50 + order[strategy] + 5 * (pattern == "bottleneck"))
    assert {j.verdict.status for j in judge_all(strategies.claims(), good)} == {"reproduced"}
    bad = results(lambda strategy, pattern: 50 - order[strategy] - 5 * (pattern == "bottleneck"))
    assert {j.verdict.status for j in judge_all(strategies.claims(), bad)} == {"not reproduced"}
    part = judge_all(strategies.claims(), good[good["pattern"] != "triangle"])
    assert {j.claim.id for j in part if j.verdict.status == "not testable"} == {
        "rgd_above_gd_triangle",
        "bottleneck_above_triangle",
    }


def test_the_last_scores_of_the_runs_that_have_any():
    class Entry:
        history = (
            {"round": 2, "layer_scores": [4.0, 1.0]},
            {"round": 4, "layer_scores": [1.0, 2.0]},
            {"round": 5},
        )

    class Run:
        entry = Entry()

    cell = strategies.cells(strategies.setting("smoke", seeds=1), ["triangle"])[-1]
    (row,) = strategies.last_scores([(cell, Run())]).to_dict("records")
    assert row == {"pattern": "triangle", "seed": 0, "round": 5, "layer 0": 0.5, "layer 1": 1.0}
    assert strategies.last_scores([])["pattern"].tolist() == ["none"]


def test_parameters_are_checked():
    assert strategies.chosen_patterns(None) == ALL
    for bad, kind in ((["spindle"], UnknownName), ([], BadValue), (["uniform", "uniform"], BadValue)):
        with pytest.raises(kind):
            strategies.chosen_patterns(bad)
    with pytest.raises(UnknownName, match="split"):
        strategies.setting("smoke", split="harsh")
    assert "4 layers" in " ".join(strategies.deviations(strategies.setting("smoke")))
