"""From epsilon to sigma and back, against other accountants.

The reference values are dp-accounting 0.6.0's, by RDP (orders up to 8,192) and by its privacy loss
distributions, whose epsilon is the smallest there is. At small sigma its RDP leaves out the fractional orders
that its series does not reach: up to 1.5 % more.
"""

import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp

from fedlora_kit.errors import BadValue
from fedlora_kit.privacy import Ledger, epsilon_of, noise_multiplier
from fedlora_kit.privacy import prv as prv_module
from fedlora_kit.privacy.renyi import log_moment
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.noise_plan import noise_of_clients

#: sigma, delta, q, T, epsilon by RDP, epsilon by PLD
REFERENCES = [
    (0.99, 1e-5, 200 / 22450, 10_000, 5.9905, 5.5187),
    (88, 1e-5, 0.05, 40, 0.0099564, 0.0086231),
    (11.1, 1e-5, 0.05, 40, 0.099392, 0.088647),
    (37.7, 1e-5, 1 / 3, 15, 0.11895, 0.10664),
    (148, 1e-5, 1.0, 40, 0.14982, 0.13482),
    (0.0653, 1e-5, 0.01, 100, 998.72, 855.83),
    (18, 1e-12, 1.0, 100, 4.0083, 3.8556),
    (0.5, 1e-9, 0.2, 50, 60.148, 55.331),
    (0.3, 1e-5, 0.5, 3, 38.07, 35.616),
    (2740, 1e-12, 0.9, 100, 0.020302, 0.019366),
]


@pytest.mark.parametrize(("sigma", "delta", "q", "steps", "by_rdp", "by_pld"), REFERENCES)
def test_epsilon_and_sigma_are_those_of_another_accountant(sigma, delta, q, steps, by_rdp, by_pld):
    spent = epsilon_of(sigma, delta, q, steps)
    assert by_rdp * 0.985 < spent < by_rdp * 1.002
    assert spent > by_pld
    assert noise_multiplier(by_rdp, delta, q, steps) == pytest.approx(sigma, rel=0.008)


@pytest.mark.parametrize(
    ("sigma", "delta", "q", "steps", "by_rdp", "by_pld"), REFERENCES[:1] + REFERENCES[2:5]
)
def test_prv_is_within_two_per_cent_of_the_smallest_epsilon(sigma, delta, q, steps, by_rdp, by_pld):
    spent = epsilon_of(sigma, delta, q, steps, "prv")
    assert by_pld <= spent < min(by_rdp, by_pld * 1.02)


@given(
    st.floats(-1.5, 2),
    st.floats(1e-6, 1, exclude_max=True),
    st.one_of(st.floats(1.01, 90), st.integers(100, 3000)),
)
@example(0.0, 1 - 1e-12, 90.0)
@settings(max_examples=60, deadline=None)
def test_moments_are_the_integral_of_their_definition(log_sigma, q, a):
    """E_mu0[(mu / mu0)^a] by adding up on a fine grid, with nothing done to make it exact near 1."""
    sigma = 10**log_sigma
    step = sigma * min(0.02, sigma / 10)
    if (a + 20 * sigma) / step > 3e6:
        return
    x = np.arange(-10 * sigma, max(2, a) + 10 * sigma, step)
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * sigma**2))
    logs = a * log_ratio - (x / sigma) ** 2 / 2
    expected = logs.max() + math.log(np.exp(logs - logs.max()).sum() * step / sigma / math.sqrt(2 * math.pi))
    assert log_moment(sigma, q, a) == pytest.approx(expected, rel=1e-9, abs=1e-11 * (1 + abs(logs.max())))


@pytest.mark.parametrize(("sigma", "q"), [(0.5, 0.01), (1.0, 0.0089), (4.0, 0.3), (0.7, 1.0)])
def test_moments_are_opacus_where_it_has_them(sigma, q):
    for a in (1.1, 2.5, 8.0, 10.9, 63.0, 100.0, 500.0):
        ours = log_moment(sigma, q, a) / (a - 1)
        assert ours == pytest.approx(
            float(compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=a)), rel=1e-6
        )


def test_tiny_noise_is_bounded_from_above_and_closely():
    for q in (1e-4, 0.01, 0.5, 0.99):
        for a in (1.05, 1.3, 2.0, 7.0):
            below, above = log_moment(0.0199999, q, a), log_moment(0.02, q, a)
            assert above <= below < 1.1 * above + math.log(1 / q)


@given(
    st.floats(math.log(0.01), math.log(1000)),
    st.floats(math.log(1e-12), math.log(0.1)),
    st.one_of(st.just(1.0), st.floats(1e-4, 1)),
    st.sampled_from([1, 7, 40, 1000, 10_000]),
)
@settings(max_examples=25, deadline=None)
def test_sigma_is_the_smallest_that_keeps_to_epsilon(log_epsilon, log_delta, q, steps):
    epsilon, delta = math.exp(log_epsilon), math.exp(log_delta)
    sigma = noise_multiplier(epsilon, delta, q, steps)
    assert 0.97 * epsilon <= epsilon_of(sigma, delta, q, steps) <= epsilon
    assert epsilon_of(0.999 * sigma, delta, q, steps) > epsilon
    assert float(f"{sigma:.6g}") == sigma


def test_the_search_is_quick():
    start = time.process_time()
    noise_multiplier(5.9, 1e-5, 200 / 22450, 10_000)
    assert time.process_time() - start < 0.5  # some 0.03


@pytest.mark.parametrize(("accountant"), ["rdp", "prv"])
def test_epsilon_is_never_negative_and_never_less_than_that_of_doing_nothing(accountant):
    assert epsilon_of(10, 0.01, 2 / 30, 4, accountant) == 0
    ledger = Ledger(2, delta=0.01, accountant=accountant)
    ledger.record(0, 10, 2 / 30, 4)
    assert ledger.epsilon(1) == 0 <= ledger.epsilon(0)
    assert ledger.report()["epsilon"] == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0.0, 1e-5, 0.1, 10), "epsilon"),
        ((-1.0, 1e-5, 0.1, 10), "epsilon"),
        ((float("inf"), 1e-5, 0.1, 10), "epsilon"),
        ((1.0, 0.0, 0.1, 10), "delta"),
        ((1.0, 1.0, 0.1, 10), "delta"),
        ((1.0, 1e-5, 1.5, 10), "sample_rate"),
        ((1.0, 1e-5, 0.1, 0), "steps"),
        ((1.0, 1e-5, 0.1, 10, "moments"), "accountant"),
        ((1e-30, 1e-5, 0.1, 10), r"epsilon=1e-30 is smaller(.|\n)*0.0023 or more"),
        ((1e30, 1e-5, 0.1, 10), "multiplier below"),
        ((1.0, 1e-5, 1.0, 10**20), "multiplier above"),
        ((0.01, 1e-5, 0.03, 10_000, "prv"), r"GB of memory(.|\n)*accountant rdp"),
        ((1000.0, 1e-5, 0.1, 100, "prv"), r"epsilon about 1e\+03(.|\n)*accountant rdp"),
    ],
)
def test_impossible_budgets_name_the_key(arguments, named):
    with pytest.raises(BadValue, match=named):
        noise_multiplier(*arguments)


def test_the_remedies_are_true():
    assert noise_multiplier(0.0024, 1e-5, 0.1, 10) > 0
    assert noise_multiplier(0.01, 1e-5, 0.03, 10_000) > 0
    assert noise_multiplier(1000.0, 1e-5, 0.1, 100) > 0
    with pytest.raises(BadValue, match=r"0\.0023 or more"):
        PrivacySettings(epsilon=0.001)
    assert PrivacySettings(epsilon=0.0024).epsilon == 0.0024
    with pytest.raises(BadValue, match="sigma"):
        epsilon_of(-1.0, 1e-5, 0.1, 10)


def test_prv_without_memory_is_one_clear_error_and_a_ledger_goes_on_by_rdp(monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr("opacus.accountants.analysis.prv.discretize", full)
    with pytest.raises(BadValue, match=r"bad_alloc(.|\n)*accountant rdp"):
        epsilon_of(1.234, 1e-5, 0.1, 10, "prv")
    ledger = Ledger(1, delta=1e-5, accountant="prv")
    ledger.record(0, 1.235, 0.1, 10)
    assert ledger.epsilon(0) == epsilon_of(1.235, 1e-5, 0.1, 10) > 0
    assert prv_module.CELLS * 300 < 2e9


def test_one_sigma_keeps_every_client_within_the_target():
    privacy = PrivacySettings(epsilon=2.0, delta=1e-5)
    plan = noise_of_clients(privacy, [500, 200, 1000], batch_size=20, steps=100)
    assert plan is not None
    spent = [epsilon_of(n.sigma, 1e-5, n.sample_rate, 100) for n in plan]
    assert [n.sample_rate for n in plan] == [0.04, 0.1, 0.02]
    assert max(spent) == spent[1] <= 2.0
    assert spent[2] < spent[0] < spent[1]
    assert noise_of_clients(None, [5], 1, 1) is None


def test_a_delta_that_gives_an_example_away_is_warned_about():
    with pytest.warns(UserWarning, match="delta < 1/n"):
        noise_of_clients(PrivacySettings(sigma=1.0, delta=1e-3), [500, 2000], 10, 10)


def test_no_noise_is_no_privacy():
    assert math.isinf(epsilon_of(0.0, 1e-5, 0.1, 1))
