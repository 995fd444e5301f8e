"""The preliminary experiment: its runs, ratios and claims."""

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue
from fedlora_kit.models.components import AXES
from fedlora_kit.papers.fedlora_optimizer import preliminary, setting
from fedlora_kit.papers.fedlora_optimizer.variation import REFERENCES
from fedlora_kit.study.claims import judge_all


def results(direction, magnitude):
    """Values by factor, a little different for each seed."""
    return pd.DataFrame(
        [
            {
                "task": task,
                "steps": 5,
                "module": f"layers.{layer}.q",
                "layer": layer,
                "factor": factor,
                "direction": direction[factor] * (1 + 0.01 * seed),
                "magnitude": magnitude[factor] * (1 + 0.01 * seed),
                "axis": axis,
                "reference": reference,
                "seed": seed,
            }
            for axis in AXES
            for reference in REFERENCES
            for seed in range(3)
            for task in ("qa", "ie")
            for layer in (0, 1)
            for factor in "AB"
        ]
    )


def test_ratios_are_those_of_the_means():
    found = preliminary.ratios(results({"A": 0.34, "B": 0.2}, {"A": 0.01, "B": 0.41}))
    assert len(found) == 2 * len(AXES) * len(REFERENCES) * 3
    by_cell = found.groupby("cell")["ratio"].agg(["min", "max"])
    assert by_cell.loc["direction variation A/B"].tolist() == pytest.approx([1.7, 1.7])
    assert by_cell.loc["magnitude variation B/A"].tolist() == pytest.approx([41, 41])


def test_the_claims_and_the_contrary_one():
    as_published = judge_all(preliminary.claims(), results({"A": 0.34, "B": 0.2}, {"A": 0.01, "B": 0.41}))
    assert {j.claim.id for j in as_published if j.verdict.status != "reproduced"} == {"contrary"}
    other = judge_all(preliminary.claims(), results({"A": 0.1, "B": 0.2}, {"A": 0.01, "B": 0.41}))
    assert {j.claim.id for j in other if j.verdict.status == "reproduced"} == {
        "contrary",
        *(f"magnitude_{axis}_{reference}" for axis in AXES for reference in REFERENCES),
    }


def test_the_runs_are_points_of_one_trajectory():
    s = setting.setting("fedlora-optimizer/preliminary", "smoke", seeds=2)
    made = preliminary.specs(s, preliminary.sweep_points("smoke"))
    assert [(seed, steps) for seed, steps, _ in made] == [(k, p) for k in (0, 1) for p in (5, 15, 40)]
    for seed, steps, spec in made:
        assert (spec.seed, spec.local.steps, spec.rounds.rounds) == (seed, steps, 1)
        assert spec.method.name == "local-only"
    same = {spec.model_copy(update={"local": made[0][2].local}).canonical() for k, _, spec in made if k == 0}
    assert len(same) == 1  # but for the steps, they are one run
    assert preliminary.figure(results({"A": 1, "B": 2}, {"A": 1, "B": 2})).axes
    for bad in ([5], [5, 5], [0, 5], [9, 5]):
        with pytest.raises(BadValue, match="points"):
            preliminary.sweep_points("smoke", bad)
