"""FFA-LoRA's Table 1 and Figure 1 as data: grids, choices, claims, and the noise in closed form."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from fedlora_kit.data import get_task
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.ffa_lora import figure1, table1
from fedlora_kit.papers.ffa_lora.claims import deviations
from fedlora_kit.papers.ffa_lora.grid import METHODS, SHARES, STAND_INS, as_published
from fedlora_kit.papers.ffa_lora.table1 import claims
from fedlora_kit.papers.lessons import start_here
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.grid import choose, mean_std_table

#: the columns of Table 1
PARTS = ["mnli-matched", "mnli-mismatched", "sst2", "qqp", "qnli"]

# --- Table 1 -------------------------------------------------------------------------------------


def test_the_paper_profile_holds_the_published_setting():
    """Every SEEN value of the notes."""
    s = table1.PROFILES["paper"]
    assert (s.backbone, s.ranks, s.alphas) == ("FacebookAI/roberta-large", (8,), (8.0,))
    assert (s.batch_size, s.rounds, s.steps, s.delta) == (200, 1000, 10, 1e-5)
    assert s.rates == {"lora": (0.01, 0.02, 0.05, 0.1), "ffa-lora": (0.1, 0.2, 0.5, 1.0)}
    assert s.clips == (2.0, 5.0, 10.0)
    assert s.epsilons == (None, 6.0, 3.0, 1.0)
    assert len(s.seeds) == 20
    assert SHARES[2] == ((0.1, 0.9), (0.9, 0.1), (0.5, 0.5))
    assert SHARES[3] == ((0.9, 0.05, 0.05), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9))
    parts = [part for task in s.tasks for part in get_task(task).parts]
    assert parts == PARTS
    ours = [part for task in STAND_INS.values() for part in get_task(task).parts]
    assert ours == ["entailment-matched", "entailment-mismatched", "polarity", "paraphrase", "answerable"]
    assert as_published(pd.DataFrame({"task": [*ours, "mine"]}))["task"].tolist() == [*PARTS, "mine"]


@pytest.mark.parametrize("profile", table1.PROFILES)
def test_profiles_change_size_never_logic(profile):
    s = table1.PROFILES[profile]
    assert s.epsilons == table1.PROFILES["paper"].epsilons
    assert len(s.tasks) == 4
    assert len(s.seeds) >= 3
    assert not set(s.seeds) & set(s.tuning_seeds)
    assert (s.ranks, s.alphas, s.delta) == ((8,), (8.0,), 1e-5)


def test_the_smoke_grid_names_only_what_is_on_the_machine():
    cells = table1.EXPERIMENT.grid(table1.EXPERIMENT.setting("smoke"))
    assert {c.spec.model.backbone for c in cells} == {"kit/text-tiny"}
    assert {c.spec.data.task for c in cells} == set(STAND_INS.values())
    assert {c.coords["eps"] for c in cells} == {"none", "6", "3", "1"}
    for c in cells:
        assert (c.spec.privacy is None) == (c.coords["eps"] == "none")
        assert c.spec.model.lora.head == "frozen"
        assert c.spec.split.partitioner == "label_shares"
        assert c.spec.seed in table1.PROFILES["smoke"].tuning_seeds


def test_overrides():
    s = table1.EXPERIMENT.setting(
        "smoke", seeds=2, tasks=["sst2"], epsilons=[0, 2.5], rates=[0.3], rounds=None
    )
    assert s.seeds == (0, 1)
    assert s.epsilons == (None, 2.5)
    assert s.rates == {"lora": (0.3,), "ffa-lora": (0.3,)}
    assert s.rounds == table1.PROFILES["smoke"].rounds
    for bad, kind in (
        ({"profile": "tiny"}, UnknownName),
        ({"profile": "smoke", "tasks": ["sst3"]}, UnknownName),
        ({"profile": "smoke", "seeds": 0}, BadValue),
        ({"profile": "smoke", "epsilons": [-1]}, BadValue),
        ({"profile": "smoke", "lr": 1}, UnknownName),
        ({"profile": "smoke", "tasks": []}, BadValue),
        ({"profile": "smoke", "rates": [0.1, 0.1]}, BadValue),
        ({"profile": "smoke", "rates": [math.inf]}, BadValue),
        ({"profile": "smoke", "tasks": ["sst2", "polarity"]}, BadValue),
    ):
        with pytest.raises(kind):
            table1.EXPERIMENT.setting(**bad)


def grid_rows(scores):
    return pd.DataFrame(
        [
            {"eps": "6", "method": "lora", "lr": lr, "clip": clip, "seed": seed, "key": "k", "score": score}
            for (lr, clip, seed), score in scores.items()
        ]
    )


def test_choosing_takes_the_best_mean_and_breaks_ties_downwards():
    scores = {
        (0.1, 2, 0): 80,
        (0.1, 2, 1): 70,
        (0.2, 2, 0): 76,
        (0.2, 2, 1): 76,
        (0.2, 5, 0): 76,
        (0.2, 5, 1): 76,
    }
    best = choose(grid_rows(scores), ["eps", "method"], ["lr", "clip"]).iloc[0]
    assert (best["lr"], best["clip"], best["score"]) == (0.2, 2, 76)


def test_a_setting_with_a_failed_run_cannot_win():
    scores = {(0.1, 2, 0): 60, (0.1, 2, 1): 60, (0.2, 2, 0): 99, (0.2, 2, 1): math.nan}
    assert choose(grid_rows(scores), ["eps", "method"], ["lr", "clip"]).iloc[0]["lr"] == 0.1


def test_where_every_setting_failed_the_smallest_stands_without_a_score():
    scores = {(0.2, 2, 0): math.nan, (0.1, 5, 0): math.nan, (0.1, 2, 0): math.nan}
    best = choose(grid_rows(scores), ["eps", "method"], ["lr", "clip"]).iloc[0]
    assert (best["lr"], best["clip"]) == (0.1, 2)
    assert math.isnan(best["score"])


def test_choosing_without_dp_has_no_clip():
    frame = grid_rows({(0.1, math.nan, 0): 60, (0.2, math.nan, 0): 70})
    assert choose(frame, ["eps", "method"], ["lr", "clip"]).iloc[0]["lr"] == 0.2


def results(effect=0.0, spread=1.0, seeds=6):
    """A synthetic frame of Table 1: `effect` points for FFA-LoRA under DP, `spread` times LoRA's noise."""
    rng = np.random.default_rng(1)
    rows = []
    for eps in ("none", "6", "3", "1"):
        for method in METHODS:
            for column in PARTS:
                for seed in range(seeds):
                    gain = effect if method == "ffa-lora" and eps != "none" else 0.0
                    noise = rng.normal() * (spread if method == "lora" else 1.0)
                    size = 1000 if method == "lora" else 500
                    rows.append(
                        {
                            "eps": eps,
                            "method": method,
                            "dataset": "x",
                            "task": column,
                            "seed": seed,
                            "key": "k",
                            "accuracy": 80 + gain + noise,
                            "trained_parameters": size,
                            "sent_bytes": 4 * size,
                        }
                    )
    return pd.DataFrame(rows)


def verdicts(frame):
    return {j.claim.id: j.verdict.status for j in judge_all(claims(), frame)}


def test_claims_can_come_out_either_way():
    there = verdicts(results(effect=10.0, spread=4.0))
    assert set(there.values()) == {"reproduced"}
    absent = verdicts(results(effect=-10.0, spread=0.25))
    assert {k for k, v in absent.items() if v == "reproduced"} == {"half_trained", "half_sent"}
    assert set(absent.values()) == {"reproduced", "not reproduced"}


def test_claims_are_not_testable_without_their_cells():
    frame = results()
    only = verdicts(frame[frame["eps"] != "3"])
    assert only["better_eps3"] == only["smaller_drop_eps3"] == "not testable"
    one_seed = verdicts(frame[frame["seed"] == 0])
    assert one_seed["better_eps6"] == "not testable"
    assert one_seed["half_sent"] == "reproduced"


def test_the_table_of_means():
    frame = results(seeds=3)
    frame.loc[frame.index[0], "accuracy"] = math.nan
    table = mean_std_table(frame, ["eps", "method"], "task")
    assert list(table.columns) == ["eps", "method", *PARTS]
    assert list(table["eps"]) == ["none", "none", "6", "6", "3", "3", "1", "1"]
    some = frame[(frame["eps"] == "6") & (frame["method"] == "lora") & (frame["task"] == "qqp")]["accuracy"]
    assert table.loc[2, "qqp"] == f"{some.mean():.2f} ± {some.std(ddof=1):.2f}"
    assert "(1 diverged)" in table.loc[0, "mnli-matched"]


def test_deviations_name_what_differs():
    paper = table1.PROFILES["paper"]
    assert len(deviations(paper, paper)) == 7
    assert deviations(paper, paper, "Its own.")[0] == "Its own."
    smoke = "\n".join(deviations(table1.PROFILES["smoke"], paper))
    assert "stand-ins" in smoke
    assert "rounds: 4 (paper profile: 1000)" in smoke
    changed = "\n".join(deviations(dataclasses.replace(paper, rounds=5), paper))
    assert "rounds: 5 (paper profile: 1000)" in changed


# --- Figure 1 ------------------------------------------------------------------------------------


def test_noise_norms_meet_their_expectation():
    measured = figure1.measure(sigmas=(0.3, 1.7), seeds=3, width=256, rank=4)
    relative = measured["norm"] / measured["expected"]
    assert relative.between(0.9, 1.1).all()
    assert len(measured) == 2 * 3 * 3


def test_the_figure_runs_at_the_papers_size():
    assert (figure1.WIDTH, figure1.RANK, figure1.REALISTIC_SIGMA) == (1024, 8, 0.99)
    assert figure1.REALISTIC_SIGMA in figure1.SIGMAS


def test_the_product_overtakes_at_one_over_root_rank():
    crossing = 1 / math.sqrt(8)
    assert figure1.expected_norm("lora", crossing, 64, 8) == pytest.approx(
        figure1.expected_norm("full", crossing, 64, 8)
    )


def test_figure_claims_can_fail():
    assert {j.verdict.status for j in judge_all(figure1.claims(), figure1.measure(seeds=2))} == {"reproduced"}
    swapped = figure1.measure(seeds=2)
    swapped["noise"] = swapped["noise"].map({"lora": "full", "full": "lora", "ffa-lora": "ffa-lora"})
    statuses = {j.claim.id: j.verdict.status for j in judge_all(figure1.claims(), swapped)}
    assert statuses["larger_at_realistic_sigma"] == statuses["quadratic"] == "not reproduced"
    with pytest.raises(BadValue, match="positive"):
        figure1.measure(sigmas=(0.0,))


# --- the first lesson ----------------------------------------------------------------------------


def test_the_lesson_changes_the_weights_only():
    one = start_here.description("text", weights="pretrained", seed=1)
    other = start_here.description("text", weights="random", seed=1)
    other["model"]["weights"] = "pretrained"
    assert one == other
    with pytest.raises(UnknownName):
        start_here.description("sound", weights="random", seed=0)
