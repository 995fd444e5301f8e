"""Fed-HeLLo's items on instructions: settings, runs, results, claims."""

import dataclasses

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.fed_hello import instructions
from fedlora_kit.papers.fed_hello.grid import METHODS
from fedlora_kit.papers.fed_hello.instructions_claims import claims, deviations
from fedlora_kit.running.many import Finished
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.grid import results_frame, run_cells

BOTH = ["dolly", "natural_instructions"]


@pytest.mark.parametrize("profile", ["paper", "small", "smoke"])
@pytest.mark.parametrize("data_set", BOTH)
def test_every_run_of_every_profile_is_a_valid_description(data_set, profile):
    s = instructions.setting(data_set, profile)
    made = instructions.cells(s)
    assert len({c.spec.canonical() for c in made}) == len(made) == len(s.splits) * 7 * len(s.seeds)
    assert {c.coords["method"] for c in made} == set(METHODS)
    assert len(s.seeds) >= 3
    for c in made:
        assert c.spec.data.task == ("instructions" if profile == "smoke" else data_set)
        assert c.spec.rounds.eval_max_tokens > 0
        classes = {"iid": None, "cat_2": 2, "cat_1": 1}[c.coords["split"]]
        assert c.spec.split.settings.get("classes_per_client") == classes
    assert deviations(data_set, s)


def test_the_methods_share_resources():
    s = instructions.setting("dolly", "smoke")
    settings = {c.coords["method"]: c.spec.method.settings for c in instructions.cells(s)}
    assert settings["lora"] == {}
    for name in ("straggler", "exclusive", "fedra", "fed-hello"):
        assert settings[name]["resources"]["layers"] == [0.5, 0.75, 1.0]
    for name in ("hetlora", "flexlora"):
        assert settings[name]["resources"]["ranks"] == [1 / 16, 1 / 4, 1.0]
    assert settings["fed-hello"]["proxy_examples"] == 16


def test_what_is_changed_is_declared():
    s = dataclasses.replace(instructions.setting("dolly", "paper"), rounds=3)
    said = " ".join(deviations("dolly", s))
    assert "rounds: 3 (paper-size setting: 60)" in said
    assert "eight of different kinds" not in said
    paper = instructions.setting("natural_instructions", "paper")
    assert "eight of different kinds" in " ".join(deviations("natural_instructions", paper))


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ({"task": "sst2"}, BadValue),
        ({"task": "gsm8k"}, BadValue),
        ({"task": "dolli"}, UnknownName),
        ({"methods": ["fedavg"]}, UnknownName),
        ({"splits": ["pat_10"]}, UnknownName),
        ({"rounds": 0}, BadValue),
        ({"seeds": 0}, BadValue),
        ({"lr": -1.0}, BadValue),
        ({"cohort": 13}, BadValue),
        ({"round": 3}, UnknownName),
    ],
)
def test_bad_overrides(override, error):
    with pytest.raises(error):
        instructions.setting("dolly", "smoke", **override)
    with pytest.raises(UnknownName, match="data set"):
        instructions.setting("gsm8k", "smoke")


def test_from_the_runs_to_the_claims():
    s = instructions.setting(
        "dolly", "smoke", rounds=1, seeds=2, batch_size=4, eval_limit=4, methods=["fed-hello", "straggler"]
    )
    results = results_frame(run_cells(instructions.cells(s), jobs=1))
    assert len(results) == 4
    assert results["rouge_l"].between(0, 100).all()
    assert (results["accuracy"] <= results["rouge_l"]).all()
    judged = {j.claim.id: j.verdict.status for j in judge_all(claims("dolly"), results)}
    assert judged["above_straggler_cat_2"] in {"reproduced", "not reproduced"}
    assert {status for name, status in judged.items() if name != "above_straggler_cat_2"} == {"not testable"}
    start = instructions.start(s, "cpu")
    assert start["examples"] == 4
    assert set(instructions.lengths(s)) == {"train", "test"}
    assert len(instructions.train_labels(s)) == instructions.lengths(s)["train"]["examples"]
    assert instructions.lengths(s)["test"]["left out, too long"] == 0


def test_the_claims_are_about_rouge_l_on_each_items_own_splits():
    def results(gap):
        rows = [
            {
                "split": split,
                "method": method,
                "task": "natural_instructions",
                "seed": seed,
                "rouge_l": 20 + gap * (method == "fed-hello") + 0.1 * seed * len(method),
            }
            for split in ("iid", "cat_1")
            for method in METHODS
            for seed in range(3)
        ]
        return pd.DataFrame(rows)

    made = claims("natural_instructions")
    assert len(made) == 10
    assert {j.verdict.status for j in judge_all(made, results(5))} == {"reproduced"}
    assert {j.verdict.status for j in judge_all(made, results(-5))} == {"not reproduced"}


@pytest.mark.parametrize(
    ("name", "value"), [("mode", "as_released"), ("precision", "bf16"), ("augment", "flip")]
)
def test_settings_that_would_change_nothing_are_refused(name, value):
    with pytest.raises(BadValue, match=f"leave {name} out"):
        instructions.setting("dolly", "smoke", **{name: value})


def test_a_table_of_nothing_but_failed_runs_still_has_its_metric():
    setting = instructions.setting("dolly", "smoke", seeds=2, splits=["cat_1"])
    cells = [instructions.cell(setting, "cat_1", method, seed) for method in METHODS for seed in (0, 1)]
    failed = [(cell, Finished(cell.spec, "key", None, {"error": "diverged"})) for cell in cells]
    results = results_frame(failed)
    assert results[["rouge_l", "rouge_l_best"]].isna().all(axis=None)
    assert {j.verdict.status for j in judge_all(claims("dolly"), results)} <= {"not testable", "unknown"}
