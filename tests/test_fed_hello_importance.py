"""Fed-HeLLo's proxy data, refresh schedule and layer importance, as data."""

import doctest
from dataclasses import dataclass, field

import pandas as pd
import pytest
from scipy.stats import spearmanr

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.fed_hello import fim_schedule as schedule
from fedlora_kit.papers.fed_hello import grid, importance, strategies
from fedlora_kit.papers.fed_hello import proxy_data as proxy
from fedlora_kit.study.claims import judge_all

SMOKE = grid.PROFILES["smoke"]


@dataclass
class Entry:
    history: list


@dataclass
class Run:
    entry: Entry | None
    key: str = "k"
    spec: object = field(default=None)


def canonical(cells):
    return {c.spec.canonical() for c in cells}


def elsewhere():
    """The runs of Table II and of the strategies."""
    shapes = strategies.chosen_patterns(None)
    return canonical(grid.cells(SMOKE)) | canonical(strategies.cells(strategies.setting("smoke"), shapes))


def test_doctests():
    assert doctest.testmod(schedule).failed == 0


def test_only_the_new_sources_need_new_runs():
    made = proxy.cells(proxy.setting("smoke"), proxy.chosen_sources(None))
    assert len(canonical(made)) == len(made) == 4 * len(SMOKE.seeds)
    known = elsewhere()
    new = {c.coords["source"] for c in made if c.spec.canonical() not in known}
    assert new == {"balanced", "external"}
    for c in made:
        settings = c.spec.method.settings
        if c.coords["source"] == "trained_on":
            assert c.spec.method.name == "rgd-hla"
        else:
            assert settings.get("proxy", "random") == c.coords["source"]
            assert settings["proxy_examples"] == SMOKE.proxy_examples


def test_only_the_new_plans_need_new_runs():
    s = schedule.setting("smoke")
    made = schedule.cells(s, schedule.chosen_shares(None))
    assert len(canonical(made)) == len(made) == (4 + 2 + 1) * len(s.seeds)
    known = elsewhere()
    shared = {(c.coords["start"], c.coords["proxy_examples"]) for c in made if c.spec.canonical() in known}
    assert shared == {(str(s.refresh), str(s.proxy_examples)), ("never", "0")}
    for c in made:
        if c.coords["start"] != "never":
            settings = c.spec.method.settings
            assert [settings[k] for k in ("start", "every", "proxy_examples")] == [
                int(c.coords[k]) for k in ("start", "period", "proxy_examples")
            ]
    paper = schedule.cells(schedule.setting("paper", seeds=1), [0.1, 0.5])
    assert {c.coords["start"] for c in paper} == {"50", "250", "never"}
    assert {c.coords["proxy_examples"] for c in paper} == {"25", "100", "400", "0"}


def scored(coords, seed, *rounds):
    cell = schedule.cells(schedule.setting("smoke", seeds=1), [0.1])[0]
    cell = type(cell)({**cell.coords, **coords}, {}, seed, cell.spec)
    history = [{"round": r, "layer_scores": scores} if scores else {"round": r} for r, scores in rounds]
    return cell, Run(Entry(history))


def test_scores_are_read_with_their_shares():
    done = [scored({"start": "1"}, 4, (0, None), (1, [3.0, 1.0])), (scored({}, 0)[0], Run(None))]
    frame = importance.scores_frame(done, ["start"])
    assert frame[["start", "seed", "round", "layer", "score", "share"]].values.tolist() == [
        ["1", 4, 2, 0, 3.0, 0.75],
        ["1", 4, 2, 1, 1.0, 0.25],
    ]
    assert importance.depth(done) == 2
    assert importance.depth(done[1:]) is None
    assert importance.scores_frame([], ["start"]).empty


def test_rank_agreement_is_spearmans():
    scores = {0: [0.1, 0.4, 0.2, 0.9], 1: [5.0, 6.0, 9.0, 7.0], 2: [4.0, 3.0, 3.0, 1.0]}
    done = [scored({}, seed, (1, values), (3, [1.0, 2.0, 3.0, 4.0])) for seed, values in scores.items()]
    found = importance.rank_agreement(importance.scores_frame(done, ["start"]), "seed", ["round"])
    assert found["round"].tolist() == [2, 4]
    rhos = [spearmanr(scores[a], scores[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["rho"].tolist() == pytest.approx([sum(rhos) / 3, 1.0])
    assert found["lowest"].tolist() == pytest.approx([min(rhos), 1.0])
    assert found["pairs"].tolist() == [3, 3]
    alone = importance.rank_agreement(importance.scores_frame(done[:1], ["start"]), "seed", ["round"])
    assert alone.empty


def sample_sizes(orders):
    """orders: examples -> scores, the same at every seed and refresh."""
    return importance.scores_frame(
        [
            scored({"proxy_examples": examples}, seed, (1, values), (3, values))
            for seed in range(3)
            for examples, values in orders.items()
        ],
        ["start", "period", "proxy_examples"],
    )


def test_the_stability_claim_and_the_figure():
    up, down = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    own = str(SMOKE.proxy_examples)
    agree = schedule.of_sizes(sample_sizes({"5": up, own: up}))
    (judged,) = judge_all([schedule.stability_claim()], agree)
    assert judged.verdict.status == "reproduced"
    (judged,) = judge_all([schedule.stability_claim()], schedule.of_sizes(sample_sizes({"5": up, own: down})))
    assert judged.verdict.status == "not reproduced"
    (judged,) = judge_all([schedule.stability_claim()], schedule.of_sizes(sample_sizes({own: up})))
    assert judged.verdict.status == "not testable"
    fig = schedule.figure(sample_sizes({"5": up, own: up}), SMOKE)
    left, right = fig.axes[:2]
    shares = left.images[0].get_array().tolist()
    assert shares == [pytest.approx([10.0 * layer] * 2) for layer in (1, 2, 3, 4)]
    assert [line.get_ydata().tolist() for line in right.lines[:2]] == [[1.0, 1.0]] * 2


def test_the_claims():
    sources = proxy.chosen_sources(None)
    rows = [
        {
            "split": "pat_10",
            "source": source,
            "task": "digits",
            "seed": seed,
            "accuracy_best": 60.0 - 5 * (source == "trained_on") + 0.1 * seed * len(source),
        }
        for source in sources
        for seed in range(3)
    ]
    assert {j.verdict.status for j in judge_all(proxy.claims(sources), pd.DataFrame(rows))} == {"reproduced"}
    s = schedule.setting("smoke")
    rows = [
        {
            **c.coords,
            "task": "digits",
            "seed": c.seed,
            "accuracy_best": 60.0 - 5 * (c.coords["start"] != "2" or c.coords["period"] != "2") + 0.1 * i,
        }
        for i, c in enumerate(schedule.cells(s, schedule.SHARES))
    ]
    judged = judge_all(schedule.claims(s, schedule.SHARES), pd.DataFrame(rows))
    assert {j.verdict.status for j in judged} == {"reproduced"}
    assert len(judged) == 3
    assert len(schedule.claims(s, [0.1])) == 1  # one start and period: nothing to compare but no refresh


def test_parameters_are_checked():
    for bad, kind in ((["test"], UnknownName), ([], BadValue), (["random", "random"], BadValue)):
        with pytest.raises(kind):
            proxy.chosen_sources(bad)
    for bad in ([], [0.1, 0.1], [0.0], [1.0]):
        with pytest.raises(BadValue):
            schedule.chosen_shares(bad)
    for module in (proxy, schedule):
        with pytest.raises(UnknownName, match="split"):
            module.setting("smoke", split="harsh")
    assert "same writers" in " ".join(proxy.deviations(proxy.setting("smoke")))
    assert "TNILab" in " ".join(proxy.deviations(proxy.setting("paper")))
    assert "Four layers" in " ".join(schedule.deviations(schedule.setting("smoke")))
