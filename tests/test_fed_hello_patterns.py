"""Fed-HeLLo's four geometries as data: fixed lists, realised rates, claims, figure."""

import numpy as np
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods.allocation import PATTERNS, pattern_probabilities
from fedlora_kit.papers.fed_hello import patterns
from fedlora_kit.study.claims import judge_all


@pytest.fixture(scope="module")
def rates():
    return patterns.rates(patterns.setting("smoke", seeds=2, draws=300))


def test_every_row_of_the_rates_adds_up_to_the_layers_of_the_client(rates):
    by = ["strategy", "pattern", "layers_of_client", "seed"]
    sums = rates.groupby(by)["rate"].sum().reset_index()
    assert np.allclose(sums["rate"], sums["layers_of_client"].astype(int))
    firsts = rates.groupby(by)["probability"].sum()
    assert np.allclose(firsts, 1)
    assert len(rates) == 2 * len(PATTERNS) * 3 * 12 * 2


def test_the_rate_of_one_draw_is_the_probability():
    p = pattern_probabilities("bottleneck", (6, 9, 12), 12)
    drawn = patterns.realised(p, 1, 3000, seed=0)
    assert np.abs(drawn - p).max() < 4 * np.sqrt(p.max() / 3000)  # four standard errors
    assert (patterns.realised(p, 12, 3, seed=0) == 1).all()


def test_the_same_seed_draws_the_same_and_another_does_not():
    p = np.full(12, 1 / 12)
    one, again, other = (patterns.realised(p, 6, 50, seed) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_the_claims_and_what_they_lack(rates):
    judged = {j.claim.id: j.verdict for j in judge_all(patterns.claims(), rates)}
    assert judged["flatter"].status == "reproduced"
    assert set(judged) == {"flatter", *(f"rate_{count}_{layers[0]}" for count, layers, _ in patterns.NOTED)}
    without = judge_all(patterns.claims(), rates[rates["layers_of_client"] == "9"])
    assert {j.claim.id: j.verdict.status for j in without}["rate_6_0"] == "not testable"
    swapped = rates.assign(strategy=rates["strategy"].map({"gd": "rgd", "rgd": "gd"}))
    wrong = {j.claim.id: j.verdict.status for j in judge_all(patterns.claims(), swapped)}
    assert set(wrong.values()) == {"not reproduced"}


def test_the_figure_has_a_panel_for_each_pattern_both_ways(rates):
    from matplotlib import pyplot as plt

    figure = patterns.figure(rates)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == len(set(titles)) == 2 * len(PATTERNS)
    plt.close(figure)


def test_settings_are_checked():
    with pytest.raises(UnknownName, match="profile"):
        patterns.setting("tiny")
    for bad in ({"seeds": 0}, {"draws": 0}):
        with pytest.raises(BadValue):
            patterns.setting("smoke", **bad)
