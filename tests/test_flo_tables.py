"""FedLoRA-Optimizer's two tables: settings, runs, results, gains, claims."""

import dataclasses
import math

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.fedlora_optimizer import scores, tables
from fedlora_kit.papers.fedlora_optimizer.tables import BASELINE, MORE_STEPS, NO_GLOBAL, OURS
from fedlora_kit.papers.fedlora_optimizer.tables_claims import CELL, claims, deviations, gains
from fedlora_kit.papers.published import published
from fedlora_kit.reporting.comparison import compare
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.grid import run_cells

ITEM = "fedlora-optimizer/global"


@pytest.mark.parametrize("profile", ["paper", "small", "smoke"])
def test_every_run_of_every_profile_is_a_valid_description(profile):
    s = tables.setting(ITEM, profile)
    made = tables.cells(s)
    assert len({c.spec.canonical() for c in made}) == len(made)
    assert len(made) == len(s.tasks) * len(s.splits) * len(s.backbones) * len(s.methods) * len(s.seeds)
    assert len(s.tasks) * len(s.splits) == 2
    assert len(s.backbones) == (2 if profile == "paper" else 1)
    assert len(s.seeds) >= 3
    assert {BASELINE, MORE_STEPS, NO_GLOBAL, OURS, "local-only"} <= set(s.methods)
    for c in made:
        assert c.spec.rounds.eval_every == 0  # scored after the last round only
        assert c.spec.split.clients == 8
        assert c.spec.data.client_holdout > 0
        assert c.spec.data.server_examples == s.server_examples  # for all methods: the same split
        assert c.spec.model.lora.use_dora == (c.coords["method"] == "dora")
        assert c.spec.split.partitioner == ("by_group" if c.coords["split"] == "cat_1" else "pathological")
    assert deviations(s)


def test_both_items_are_the_same_runs():
    both = [tables.cells(tables.setting(f"fedlora-optimizer/{n}", "smoke")) for n in ("global", "local")]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("steps", "rounds", "clients"), [(4, 2, 8), (20, 20, 8), (10, 5, 8), (1, 1, 1), (7, 3, 5)]
)
def test_equal_steps_are_at_least_as_many_and_no_more_than_needed(steps, rounds, clients):
    s = dataclasses.replace(tables.PROFILES["smoke"], steps=steps, rounds=rounds)
    whole = steps * rounds * clients + steps * rounds + steps * clients
    mine = tables.equal_steps(s, clients)
    assert (mine - 1) * rounds * clients < whole <= mine * rounds * clients


def test_who_has_a_global_adapter():
    assert {m for m in tables.VARIANTS if not tables.has_global(m)} == {"fedsa-lora", "local-only"}


def made_up(gap, splits=("cat_1", "cat_2")):
    """Scores in which FedLoRA-Optimizer lies ``gap`` above all others."""
    rows = []
    for split in splits:
        for seed in range(3):
            for method in tables.VARIANTS:
                better = gap * (method == OURS) + 0.01 * seed * len(method)
                whole = tables.has_global(method)
                row = {"task": "dolly", "split": split, "model": "a/b", "method": method, "seed": seed}
                for name in ("rouge_l", "accuracy", "minus_loss"):
                    start = -5 if name == "minus_loss" else 20
                    row |= {name: start + better if whole else math.nan, f"local_{name}": start + 2 * better}
                rows.append({**row, "loss": -row["minus_loss"], "local_loss": 1.0, "global": whole})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("local", [False, True])
def test_the_claims_follow_the_results(local):
    def status(gap):
        return {j.claim.id: j.verdict.status for j in judge_all(claims(local=local), made_up(gap))}

    scope = "local" if local else "global"
    for gap, expected in ((1.0, "reproduced"), (-1.0, "not reproduced")):
        found = status(gap)
        assert found.pop(f"{scope}_gain_size") == "not testable"
        assert set(found.values()) == {expected}
        assert len(found) == (7 if local else 4)
    without = made_up(1.0)
    without = without[without["method"] != MORE_STEPS]
    lone = {j.claim.id: j.verdict.status for j in judge_all(claims(local=local), without)}
    assert lone[f"{scope}_gain_at_equal_steps"] == "not testable"
    assert lone[f"{scope}_gain_rouge_l"] == "reproduced"


def test_the_size_of_the_gain_is_shown_and_not_judged():
    judged = {j.claim.id: j.verdict for j in judge_all(claims(local=False), made_up(0.39))}
    size = judged["global_gain_size"]
    assert size.status == "not testable"
    assert "unknown" in size.reason
    expected = 0.39 + 0.01 * (len(OURS) - len(BASELINE))  # the mean seed is 1
    assert size.evidence["gain"] == pytest.approx(expected)


def test_gains_in_points_and_relative():
    found = gains(made_up(1.0), local=False)
    first = found[found["seed"] == 0].set_index("cell")["gain"]
    assert first[CELL] == pytest.approx(1.0)
    assert first[f"{CELL}, ROUGE-L relative"] == pytest.approx(5.0)
    assert first[f"{CELL}, loss relative"] == pytest.approx(20.0)  # 5 nats to 4
    assert f"{CELL}, loss in points" not in first
    assert gains(made_up(1.0).query("method != 'lora'"), local=True).empty
    zero = made_up(1.0).assign(accuracy=0.0)
    assert f"{CELL}, exact match relative" not in set(gains(zero, local=False)["cell"])


@pytest.mark.parametrize(("item", "value"), [("global", 0.39), ("local", 0.59)])
def test_the_papers_number_has_our_reading_beside_it(item, value):
    reported = published("fedlora-optimizer", item)
    ours = gains(made_up(1.0), local=item == "local")
    table = compare(ours, reported, ["cell"], "%", "gain", comparable=False)
    assert table.iloc[0]["cell"] == CELL
    assert table.iloc[0]["published"] == value
    assert table["published"].notna().sum() == 1
    assert compare(ours[:0], reported, ["cell"], "%", "gain").iloc[0]["n_seeds"] == 0


def test_no_number_stands_for_a_global_adapter_that_is_not_there():
    results = made_up(1.0)
    whole = scores.score_table(results, "ROUGE-L", local=False).set_index("method")
    assert list(whole.index) == list(tables.VARIANTS)
    assert whole.columns.tolist() == ["dolly: b", "dolly, 2 categories a client: b"]
    assert set(whole.loc["local-only"]) == set(whole.loc["fedsa-lora"]) == {"—"}
    assert "21" in whole.loc[OURS].iloc[0]
    own = scores.score_table(results, "ROUGE-L", local=True).set_index("method")
    assert "—" not in set(own.to_numpy().ravel())
    only = results[results["method"] == "local-only"]
    assert scores.score_table(only, "loss", local=False)["method"].tolist() == ["local-only"]


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ({"tasks": ["gsm8k"]}, BadValue),
        ({"backbones": ["kit/nothing"]}, UnknownName),
        ({"methods": ["fedavg"]}, UnknownName),
        ({"splits": ["iid"]}, UnknownName),
        ({"methods": ["lora", "lora"]}, BadValue),
        ({"rounds": 0}, BadValue),
        ({"seeds": 0}, BadValue),
        ({"lr": 0.0}, BadValue),
        ({"client_holdout": 0.0}, BadValue),
        ({"round": 3}, UnknownName),
    ],
)
def test_bad_overrides(override, error):
    with pytest.raises(error):
        tables.setting(ITEM, "smoke", **override)
    with pytest.raises(UnknownName, match="profile"):
        tables.setting(ITEM, "large")


def test_what_is_changed_is_declared():
    s = tables.setting(ITEM, "small", methods=["lora", OURS])
    said = " ".join(deviations(s))
    assert "One model" in said
    assert "Left out here: lora-equal-steps" in said
    assert "rounds: 10 (paper-size setting: 20)" in said
    assert "One model" not in " ".join(deviations(tables.setting(ITEM, "paper")))


def test_from_the_runs_to_the_tables():
    s = tables.setting(
        ITEM,
        "smoke",
        seeds=1,
        rounds=1,
        steps=1,
        batch_size=2,
        train_limit=120,
        eval_limit=4,
        server_examples=8,
        splits=["cat_1"],
        methods=["local-only", OURS],
        max_new_tokens=2,
    )
    results = scores.frame(run_cells(tables.cells(s), jobs=1)).set_index("method")
    alone, ours = results.loc["local-only"], results.loc[OURS]
    assert results.loc["local-only", ["rouge_l", "accuracy", "loss", "minus_loss"]].isna().all()
    assert results.loc[:, ["local_rouge_l", "local_accuracy", "local_loss"]].notna().all(axis=None)
    assert 0 <= ours["accuracy"] <= ours["rouge_l"] <= 100
    assert ours["minus_loss"] == -ours["loss"] < 0
    assert alone[["steps", "examples_seen", "server_steps", "server_seen"]].tolist() == [8, 16, 0, 0]
    # 8 local steps, 1 at the server, 8 local optimisers'
    assert ours[["steps", "examples_seen", "server_steps", "server_seen"]].tolist() == [17, 34, 1, 2]
    effort = scores.effort_table(results.reset_index())
    assert effort["optimiser steps"].tolist() == [8, 17]
