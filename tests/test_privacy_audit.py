"""The audit of the DP trainer: the bound against exact sums; the right trainer, and broken ones."""

import doctest
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.lessons import privacy_audit as lesson
from fedlora_kit.papers.lessons import privacy_audit_report as report
from fedlora_kit.papers.lessons.privacy_audit import AuditSetting, audit_trainer, broken
from fedlora_kit.privacy import audit as audit_module
from fedlora_kit.privacy.audit import audit, guessed, log_likelihood_ratio, lower_bound, p_value
from fedlora_kit.study.claims import judge_all
from fedlora_kit.training import local as local_module

# --- the bound ------------------------------------------------------------------------------------------


def test_doctests():
    assert doctest.testmod(audit_module).failed == 0


def exact_p(v, r, m, hit, delta):
    """The theorem in fractions, term by term, i up to m."""
    weight = {w: math.comb(r, w) * hit**w * (1 - hit) ** (r - w) for w in range(r + 1)}
    tail = sum(weight[w] for w in range(v, r + 1))
    worst = max(sum(weight[w] for w in range(max(0, v - i), v)) / Fraction(i) for i in range(1, m + 1))
    return min(Fraction(1), tail + 2 * m * delta * worst)


@pytest.mark.parametrize(
    ("v", "r", "m"), [(0, 3, 5), (1, 1, 1), (3, 3, 3), (4, 6, 9), (7, 12, 20), (12, 12, 12)]
)
@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1, 1000), Fraction(1, 20)])
def test_the_p_value_equals_the_theorem_in_fractions(v, r, m, delta):
    for hit in (Fraction(1, 2), Fraction(3, 4), Fraction(9, 10)):
        epsilon = math.log(hit / (1 - hit))
        assert p_value(v, r, m, epsilon, float(delta)) == pytest.approx(
            float(exact_p(v, r, m, hit, delta)), abs=1e-12
        )


@pytest.mark.parametrize("delta", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("m", [1, 3, 6])
def test_no_private_mechanism_beats_the_p_value(m, delta):
    """Two (epsilon, delta)-DP mechanisms, all outcomes counted: a coin is given away, or all of them are.

    Each coin is answered truthfully with probability e^epsilon / (1 + e^epsilon); beyond that, the first
    gives every coin away with probability delta on its own, the second all together with probability delta.
    """
    epsilon = math.log(3)
    hit = 0.75
    for alone in (True, False):
        right = delta + (1 - delta) * hit if alone else hit
        weight = np.zeros(m + 1)
        for outcome in product((0, 1), repeat=m):
            weight[sum(outcome)] += math.prod(right if o else 1 - right for o in outcome)
        if not alone:
            weight *= 1 - delta
            weight[m] += delta
        for v in range(m + 1):
            assert weight[v:].sum() <= p_value(v, m, m, epsilon, delta) + 1e-12


def test_randomised_response_meets_the_bound_exactly_without_delta():
    epsilon, m = 1.5, 40
    hit = 1 / (1 + math.exp(-epsilon))
    for v in (20, 30, 40):
        exact = sum(math.comb(m, w) * hit**w * (1 - hit) ** (m - w) for w in range(v, m + 1))
        assert p_value(v, m, m, epsilon, 0.0) == pytest.approx(exact)


@settings(max_examples=60, deadline=None)
@given(
    r=st.integers(1, 60),
    share=st.floats(0, 1),
    extra=st.integers(0, 50),
    delta=st.sampled_from([0.0, 1e-6, 1e-3]),
    confidence=st.sampled_from([0.5, 0.95, 0.999]),
)
def test_the_lower_bound_is_where_the_p_value_crosses(r, share, extra, delta, confidence):
    v = round(share * r)
    bound = lower_bound(v, r, r + extra, delta, confidence)
    assert bound >= 0
    if bound > 0:  # everything below is refuted, what lies just above is not
        for epsilon in np.linspace(0, bound, 7):
            assert p_value(v, r, r + extra, epsilon, delta) <= 1 - confidence + 1e-9
    assert p_value(v, r, r + extra, bound + 1e-6, delta) > 1 - confidence - 1e-6
    if v < r:
        assert lower_bound(v + 1, r, r + extra, delta, confidence) >= bound - 1e-9
    assert lower_bound(v, r, r + extra, min(1.0, 10 * delta), confidence) <= bound + 1e-9


def test_the_bound_by_hand():
    assert lower_bound(10, 10, 10, 0.0) == pytest.approx(math.log(0.05**0.1 / (1 - 0.05**0.1)), abs=1e-6)
    assert lower_bound(4, 4, 4, 0.0) == 0.0  # 1/16 > 0.05: four coins show nothing
    assert lower_bound(5, 5, 5, 0.0) > 0
    assert lower_bound(256, 512, 1024, 1e-5) == 0.0
    assert lower_bound(20, 20, 20, 1.0) == 0.0


@pytest.mark.parametrize(
    "arguments", [(3, 2, 5, 0.1), (1, 6, 5, 0.1), (-1, 2, 5, 0.1), (1, 2, 5, -0.1), (1, 2, 5, float("nan"))]
)
def test_impossible_counts(arguments):
    with pytest.raises(BadValue):
        lower_bound(*arguments)


def test_guesses_and_counts():
    scores = np.array([0.1, 5.0, -3.0, 2.0, 0.0, -1.0])
    assert guessed(scores, 2).tolist() == [0, 1, -1, 1, 0, -1]
    included = np.array([True, True, False, False, True, False])
    found = audit(scores, included, 2, 0.0)
    assert (found.canaries, found.guesses, found.correct) == (6, 4, 3)
    with pytest.raises(BadValue, match="at most half"):
        guessed(scores, 4)
    with pytest.raises(BadValue, match="NaN"):
        guessed(np.array([0.0, np.nan]), 1)


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(0.3, 5), q=st.floats(0.01, 1), x=st.lists(st.floats(-6, 6), min_size=1, max_size=5))
def test_the_score_is_the_ratio_of_the_densities(sigma, q, x):
    def density(value, mean):
        return math.exp(-((value - mean) ** 2) / (2 * sigma**2))

    expected = sum(math.log((1 - q) + q * density(v, 1) / density(v, 0)) for v in x)
    got = log_likelihood_ratio(np.array(x)[:, None], sigma, q)
    assert got[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


# --- the real trainer, right and broken -----------------------------------------------------------------

SEEDS = (0, 1, 2)  # fixed before anything was run


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stack", ["never", "always"])
def test_the_right_trainer_keeps_to_its_word(stack, seed):
    one = audit_trainer("right", AuditSetting(stack=stack), seed=seed)
    assert 1.9 < one.claimed["epsilon"] <= 2.0
    assert one.claimed["sampling"] == "poisson"
    assert 0 < one.found.epsilon_lower < one.claimed["epsilon"]  # and the attack is not blind


@pytest.mark.parametrize("stack", ["never", "always"])
@pytest.mark.parametrize("trainer", lesson.MUST_BE_FOUND)
def test_a_broken_trainer_is_caught(trainer, stack):
    one = audit_trainer(trainer, AuditSetting(stack=stack), seed=0)
    assert one.claimed["epsilon"] <= 2.0  # it goes on claiming that
    assert one.found.epsilon_lower > one.claimed["epsilon"]


def test_what_a_round_shows_is_the_sum_of_the_clipped_gradients_of_its_sample():
    """Without noise: 1 on a canary's own entry of B, and a little taken from the others of its column."""
    setting = AuditSetting(rounds=6)
    one = audit_trainer("no noise", setting)
    sampled = one.shown > 0.5  # (T, m)
    assert not sampled[:, ~one.included].any()
    assert 0.05 < sampled[:, one.included].mean() < 0.15  # q = 0.1
    k = setting.classes
    columns = sampled.reshape(setting.rounds, setting.rank, k)
    others = columns.sum(2, keepdims=True) - columns
    norm = np.sqrt(1 - 1 / k)  # of softmax - onehot at equal logits
    expected = columns * norm - others / k / norm
    np.testing.assert_allclose(one.shown, expected.reshape(one.shown.shape), atol=2e-3)


def test_the_two_trainers_show_the_same():
    setting = {"rounds": 3}
    one, other = (audit_trainer("right", AuditSetting(stack=s, **setting)) for s in ("never", "always"))
    np.testing.assert_allclose(one.shown, other.shown, atol=2e-3)


def test_a_break_ends_with_its_block_and_unknown_ones_are_named():
    before = local_module.private_optimizer
    with broken("no noise"):
        assert local_module.private_optimizer is not before
    assert local_module.private_optimizer is before
    with pytest.raises(UnknownName, match="full batches"), broken("no nois"):
        pass


def test_claims_are_judged_by_every_audit():
    runs = [audit_trainer(t, AuditSetting(stack="always")) for t in ("right", *lesson.MUST_BE_FOUND)]
    results = report.results_table(runs)
    assert [j.verdict.status for j in judge_all(report.claims(), results)] == ["reproduced"] * 4
    turned = results.assign(refuted=~results["refuted"])
    assert {j.verdict.status for j in judge_all(report.claims(), turned)} == {"not reproduced"}
    nothing = judge_all(report.claims(), results[results["trainer"] == "right"])
    assert [j.verdict.status for j in nothing[1:]] == ["not testable"] * 3
