"""Partitioners that skew labels: fixed shares, Dirichlet, a fixed number of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partition_tools import LABELS, check_cover, labels_strategy, seeds

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.partition import Dirichlet, LabelShares, label_counts, partitioner
from fedlora_kit.partition.base import round_to_total

FFA_SHARES = [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]]


# --- label_shares ----------------------------------------------------------------------------------


@st.composite
def shares_and_labels(draw):
    clients, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    weights = draw(
        st.lists(
            st.lists(st.integers(1, 20), min_size=classes, max_size=classes),
            min_size=clients,
            max_size=clients,
        )
    )
    table = np.array(weights) / np.sum(weights, axis=1, keepdims=True)
    there = draw(st.lists(st.integers(clients, 60), min_size=classes, max_size=classes))
    return table, np.repeat(np.arange(classes), there)


@given(shares_and_labels(), seeds)
def test_label_shares(case, seed):
    table, labels = case
    split = LabelShares(len(table), table, seed=seed)
    try:
        parts = split.split(labels)
    except BadValue as error:
        assert "too few examples" in str(error)  # noqa: PT017 - both outcomes are right, for different draws
        size = 0
    else:
        counts = label_counts(parts, labels, table.shape[1])
        size = counts.sum(axis=1)[0]
        assert (counts.sum(axis=1) == size).all(), "equal sizes"
        assert np.abs(counts - size * table).max() < 1 + 1e-6, "shares hold to rounding"
        there = np.bincount(labels)
        assert np.array_equal(split.left_out(labels), there - counts.sum(axis=0))
        assert len(np.unique(np.concatenate(parts))) == counts.sum()
    # No larger size fits: tried out up to one more example a client than the labels could give.
    there = np.bincount(labels)
    for larger in range(size + 1, len(labels) // len(table) + 2):
        assert (round_to_total(table, larger).sum(axis=0) > there).any()


def test_label_shares_at_ffa_loras_numbers():
    """SST-2's training labels. Negatives run out first: 1,985 + 17,868 + 9,927 (rounded) = 29,780 at size
    19,853; at 19,854 it would be 1,985 + 17,869 + 9,927, one too many."""
    labels = np.repeat([0, 1], [29780, 37569])
    split = LabelShares(3, FFA_SHARES)
    counts = label_counts(split.split(labels), labels)
    assert counts.sum(axis=1).tolist() == [19853] * 3
    assert np.allclose(counts / 19853, FFA_SHARES, atol=1 / 19853)
    assert split.left_out(labels).sum() == 67349 - 3 * 19853
    assert split.left_out(labels)[0] == 0, "negatives are what runs out"


def test_label_shares_permuting_the_clients_permutes_the_sizes():
    labels = np.repeat([0, 1, 2], [100, 70, 55])
    shares = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    counts = label_counts(LabelShares(3, shares).split(labels), labels)
    turned = label_counts(LabelShares(3, shares[[2, 0, 1]]).split(labels), labels)
    assert np.array_equal(turned, counts[[2, 0, 1]])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([[0.1, 0.8], [0.5, 0.5]], "client 0 sum to 0.9"),
        ([[0.5, 0.5], [0.7, 0.4]], "client 1 sum to 1.1"),
        ([[1.2, -0.2], [0.5, 0.5]], "negative"),
        ([[np.nan, 1.0], [0.5, 0.5]], "non-finite"),
        ([[0.5, 0.5]], "for 2 clients"),
        ([[0.5, 0.5], [1.0]], "not a table"),
        ("half", "not a table"),
        ([[1.0, 0.0], [1.0, 0.0]], "class 1 has share 0 at every client"),
        ([[], []], "shape"),
    ],
)
def test_shares_that_cannot_be(shares, message):
    with pytest.raises(BadValue, match=message):
        LabelShares(2, shares)


def test_shares_that_do_not_fit_the_labels():
    split = LabelShares(2, [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(BadValue, match="for 2 classes, the labels name 3"):
        split.split([0, 1, 2] * 5)
    with pytest.raises(BadValue, match="for 2 classes, the labels name 1"):
        split.left_out([0, 0, 0])
    with pytest.raises(BadValue, match="class 0 has a share but no example"):
        split.split([1, 1, 1, 1])
    with pytest.raises(BadValue, match="class 0 has too few examples"):
        LabelShares(2, [[1, 0], [0.9, 0.1]]).split([0, 1, 1, 1])


# --- dirichlet -------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(labels_strategy, st.data(), st.floats(0.3, 100), seeds)
def test_dirichlet(labels, data, alpha, seed):
    clients = data.draw(st.integers(1, max(1, len(labels) // 10)))
    least = data.draw(st.integers(1, 2))
    if clients * least <= len(labels):
        parts = partitioner(
            "dirichlet", num_clients=clients, alpha=alpha, min_examples=least, seed=seed, max_draws=5000
        ).split(labels)
        check_cover(parts, labels, clients)
        assert min(map(len, parts)) >= least


def test_dirichlet_has_the_moments_of_its_law():
    """Share of a class at a client: mean 1/K and variance (1/K)(1−1/K)/(K·alpha+1), classes independent."""
    clients, alpha, labels = 4, 0.7, np.repeat([0, 1], 4000)
    shares = np.stack(
        [
            label_counts(Dirichlet(clients, alpha, seed=seed).split(labels), labels) / 4000
            for seed in range(300)
        ]
    )  # (seeds, clients, classes)
    assert np.allclose(shares.mean(axis=0), 1 / clients, atol=0.06)
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert np.allclose(shares.var(axis=(0, 1)), expected, rtol=0.15)
    assert abs(np.corrcoef(shares[:, :, 0].ravel(), shares[:, :, 1].ravel())[0, 1]) < 0.12


def test_a_minimum_is_reached_by_drawing_anew():
    assert min(map(len, Dirichlet(5, 0.2, min_examples=20, seed=0).split(LABELS))) >= 20


def test_dirichlet_stays_finite_at_a_tiny_alpha():
    check_cover(Dirichlet(2, 1e-8, seed=0).split(LABELS), LABELS, 2)


@pytest.mark.parametrize("alpha", [0, -0.5, 2e9, 1e308, np.inf, np.nan, "1", True])
def test_impossible_alphas(alpha):
    with pytest.raises(BadValue, match="alpha"):
        Dirichlet(2, alpha)
    with pytest.raises(BadValue, match="alpha"):
        partitioner("quantity_skew", num_clients=2, alpha=alpha)
    with pytest.raises(BadValue, match="beta"):
        partitioner("pathological", num_clients=2, classes_per_client=1, beta=alpha)


@pytest.mark.parametrize("name", ["dirichlet", "quantity_skew", "pathological"])
def test_the_largest_concentration_deals_equal_parts(name):
    dial = (
        {"classes_per_client": 2, "mode": "dirichlet", "beta": 1e9}
        if name == "pathological"
        else {"alpha": 1e9}
    )
    labels = np.arange(400) % 2
    parts = partitioner(name, num_clients=5, **dial).split(labels)
    check_cover(parts, labels, 5)
    assert {abs(len(part) - 80) for part in parts} <= {0, 1, 2}


def test_minimums_that_cannot_be():
    with pytest.raises(BadValue, match=r"need 500 examples, there are 400\n.*at most 80"):
        Dirichlet(5, 1.0, min_examples=100).split(LABELS)
    with pytest.raises(BadValue, match=r"in 20 draws.*\n.*raise alpha"):
        Dirichlet(5, 0.01, min_examples=79, max_draws=20).split(LABELS)
    with pytest.raises(BadValue, match="min_examples"):
        Dirichlet(5, 1.0, min_examples=0)


# --- pathological ----------------------------------------------------------------------------------


@given(st.data(), seeds, st.sampled_from(["equal", "dirichlet"]))
def test_pathological(data, seed, mode):
    classes = data.draw(st.integers(1, 8))
    hand = data.draw(st.integers(1, classes))
    clients = data.draw(st.integers(-(-classes // hand), 12))
    least = data.draw(st.integers(1, 3))
    labels = np.repeat(
        np.arange(classes) * 3, 12 * least + data.draw(st.integers(0, 20))
    )  # numbers may have gaps
    split = partitioner(
        "pathological",
        num_clients=clients,
        classes_per_client=hand,
        mode=mode,
        beta=0.5,
        min_per_holder=least,
        seed=seed,
    )
    parts = split.split(labels)
    check_cover(parts, labels, clients)
    counts = label_counts(parts, labels)[:, ::3]  # (clients, classes)
    held = counts > 0
    assert (held.sum(axis=1) == hand).all(), "exactly that many classes a client"
    assert held.sum(axis=0).max() - held.sum(axis=0).min() <= 1, "equally many holders"
    assert (counts[held] >= least).all()
    if mode == "equal":
        for column in counts.T:
            assert column[column > 0].max() - column[column > 0].min() <= 1


def test_pathological_at_fed_hellos_numbers():
    """100 clients × 10 of 100 classes: ten holders each; client sizes spread as in the released code.

    A replay of one released split gives sizes 308-783, standard deviation 107. A class of 500 cut by
    Dirichlet(1) among 10 holders with 10 each gives var = 10 · 400² · (0.1 · 0.9 / 11) = 114².
    """
    labels = np.repeat(np.arange(100), 500)
    split = partitioner(
        "pathological", num_clients=100, classes_per_client=10, mode="dirichlet", min_per_holder=10
    )
    counts = label_counts(split.split(labels), labels)
    assert (np.count_nonzero(counts, axis=0) == 10).all()
    assert (np.count_nonzero(counts, axis=1) == 10).all()
    assert counts[counts > 0].min() >= 10
    assert 85 < counts.sum(axis=1).std() < 145


def test_a_smaller_beta_is_more_unequal():
    labels = np.repeat(np.arange(4), 300)
    settings_ = {"num_clients": 8, "classes_per_client": 2, "mode": "dirichlet"}
    spread = [
        np.mean(
            [
                label_counts(
                    partitioner("pathological", **settings_, beta=beta, seed=s).split(labels), labels
                ).std()
                for s in range(20)
            ]
        )
        for beta in (0.2, 1.0, 50.0)
    ]
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"num_clients": 6, "classes_per_client": 5}, "labels name 4 classes"),
        ({"num_clients": 1, "classes_per_client": 3}, "without a holder"),
        ({"num_clients": 6, "classes_per_client": 2, "min_per_holder": 60}, "holders, min_per_holder=60"),
        ({"num_clients": 6, "classes_per_client": 0}, "classes_per_client"),
        ({"num_clients": 6, "classes_per_client": 2, "min_per_holder": -1}, "min_per_holder"),
        ({"num_clients": 6, "classes_per_client": 2, "beta": 0}, "beta"),
        ({"num_clients": 6, "classes_per_client": 2, "mode": "uni"}, "unknown mode"),
    ],
)
def test_hands_that_cannot_be_dealt(settings_, message):
    with pytest.raises(FedloraError, match=message):
        partitioner("pathological", **settings_).split(LABELS)
