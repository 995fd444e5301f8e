"""FFA-LoRA on Food-101 as data: settings, grid, claims; and equivalence within a margin."""

import math

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.ffa_lora import food101
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.equivalence import within_margin
from fedlora_kit.study.pairing import MissingCells

LORA, FFA = {"method": "lora"}, {"method": "ffa-lora"}


def rows(ffa, lora=(80.0, 81.0, 82.0), eps="none"):
    values = {"ffa-lora": ffa, "lora": lora}
    return [
        {
            "eps": eps,
            "method": method,
            "task": "digits",
            "seed": seed,
            "accuracy": accuracy,
            "trained_parameters": 10 if method == "lora" else 5,
            "sent_bytes": 40 if method == "lora" else 20,
        }
        for method, accuracies in values.items()
        for seed, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("ffa", "status", "words"),
    [
        ((80.1, 81.0, 81.9), "reproduced", "margin ±2"),
        ((78.0, 83.0, 82.0), "not reproduced", "undecided"),  # the mean agrees, the seeds do not
        ((70.0, 71.1, 72.0), "not reproduced", "outside"),
        ((90.0, 91.1, 92.0), "not reproduced", "outside"),  # better by far is not similar either
    ],
)
def test_similar_means_within_the_margin(ffa, status, words):
    verdict = within_margin(pd.DataFrame(rows(ffa)), "accuracy", one=FFA, other=LORA, margin=2.0)
    assert verdict.status == status
    assert words in verdict.reason
    assert verdict.evidence["lower"] < verdict.evidence["difference"] < verdict.evidence["upper"]


def test_both_sides_are_alike():
    frame = pd.DataFrame(rows((79.0, 81.5, 81.0)))
    one = within_margin(frame, "accuracy", one=FFA, other=LORA, margin=9.0).evidence
    two = within_margin(frame, "accuracy", one=LORA, other=FFA, margin=9.0).evidence
    assert one["lower"] == pytest.approx(-two["upper"])
    assert one["difference"] == pytest.approx(-0.5)
    half = 4.302653 * one["sd"] / 3**0.5  # Student's t with 2 degrees of freedom
    assert one["upper"] - one["lower"] == pytest.approx(2 * half, rel=1e-5)


def test_a_margin_that_cannot_be_used_and_too_few_seeds():
    frame = pd.DataFrame(rows((80.0, 81.0, 82.0)))
    for margin in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(BadValue, match="margin"):
            within_margin(frame, "accuracy", one=FFA, other=LORA, margin=margin)
    with pytest.raises(MissingCells, match="1 seeds"):
        within_margin(frame[frame["seed"] == 0], "accuracy", one=FFA, other=LORA, margin=1.0)


def test_the_claims():
    s = food101.setting("smoke")
    frame = pd.DataFrame([*rows((80.0, 81.1, 82.0)), *rows((60.0, 61.1, 62.0), eps="6")])
    judged = {j.claim.id: j.verdict.status for j in judge_all(food101.claims(s), frame)}
    assert judged == {
        "half_trained": "reproduced",
        "half_sent": "reproduced",
        "similar_epsnone": "reproduced",
        "similar_eps6": "not reproduced",
    }
    only = judge_all(food101.claims(s), frame[frame["eps"] == "none"])
    assert {j.claim.id: j.verdict.status for j in only}["similar_eps6"] == "not testable"


@pytest.mark.parametrize("profile", food101.PROFILES)
def test_profiles_change_size_never_logic(profile):
    s, paper = food101.PROFILES[profile], food101.PROFILES["paper"]
    assert (s.rank, s.alpha, s.delta, s.clients) == (8, 8.0, 1e-5, 3)
    assert s.epsilons == paper.epsilons == (None, 6.0)
    assert len(s.seeds) >= 3
    assert not set(s.seeds) & set(s.tuning_seeds)


def test_the_grid_and_the_table():
    s = food101.setting("smoke", rates=[0.5, 2.0], seeds=2, epsilons=[0])
    cells = food101.grid(s)
    assert {c.spec.model.backbone for c in cells} == {"kit/image-tiny"}
    assert {c.spec.seed for c in cells} == {1000}
    assert [(c.coords["method"], c.tuned["lr"]) for c in cells] == [
        ("lora", 0.5),
        ("lora", 2.0),
        ("ffa-lora", 0.5),
        ("ffa-lora", 2.0),
    ]
    chosen = pd.DataFrame(
        {"eps": ["none", "none"], "method": ["lora", "ffa-lora"], "lr": [0.5, 2.0], "score": [1.0, 2.0]}
    )
    done = food101.table(s, chosen)
    assert [(c.coords["method"], c.seed, c.spec.local.lr) for c in done] == [
        ("lora", 0, 0.5),
        ("lora", 1, 0.5),
        ("ffa-lora", 0, 2.0),
        ("ffa-lora", 1, 2.0),
    ]
    assert all(c.spec.privacy is None and c.spec.split.partitioner == "iid" for c in done)


def test_the_paper_profile_names_food101_by_its_hub_id():
    from fedlora_kit.data.tasks import get_task
    from fedlora_kit.models.names import backbone

    s = food101.PROFILES["paper"]
    assert get_task(s.task).hub_id == "ethz/food101"
    assert backbone(s.backbone).revision


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ({"profile": "tiny"}, UnknownName),
        ({"profile": "smoke", "task": "food"}, UnknownName),
        ({"profile": "smoke", "lr": 1}, UnknownName),
        ({"profile": "smoke", "seeds": 0}, BadValue),
        ({"profile": "smoke", "rates": []}, BadValue),
        ({"profile": "smoke", "rates": [0.0]}, BadValue),
        ({"profile": "smoke", "epsilons": [-1]}, BadValue),
    ],
)
def test_bad_overrides(overrides, kind):
    with pytest.raises(kind):
        food101.setting(**overrides)


@pytest.mark.parametrize(("profile", "words"), [("paper", "Unknown in the paper"), ("smoke", "digits")])
def test_deviations_say_what_is_ours(profile, words):
    lines = food101.deviations(profile, food101.setting(profile))
    assert any(words in line for line in lines)
    assert any("margin is ours" in line for line in lines)
