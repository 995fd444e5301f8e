"""Partitioners that look at sizes or groups: IID, one group a client, quantity skew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partition_tools import LABELS, check_cover, labels_strategy, seeds
from scipy import stats

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.partition import ByGroup, label_counts, partitioner

# --- iid -------------------------------------------------------------------------------------------


@given(labels_strategy, st.data(), seeds)
def test_iid(labels, data, seed):
    clients = data.draw(st.integers(1, len(labels)))
    parts = partitioner("iid", num_clients=clients, seed=seed).split(labels)
    check_cover(parts, labels, clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_iid_treats_clients_and_examples_alike():
    """Over seeds each example is at each client equally often: χ² of 6 × 3 cells, 1,200 splits."""
    at = np.zeros((6, 3))
    for seed in range(1200):
        for client, part in enumerate(partitioner("iid", num_clients=3, seed=seed).split(np.zeros(6, int))):
            at[part, client] += 1
    assert stats.chisquare(at.ravel()).pvalue > 1e-4


# --- by_group --------------------------------------------------------------------------------------


def test_one_group_a_client():
    groups = np.array(["qa", "open", "sum", "qa", "sum", "qa"])
    labels = np.zeros(6, int)
    seen = set()
    for seed in range(40):
        parts = ByGroup(3, seed=seed).split(labels, groups=groups)
        check_cover(parts, labels, 3)
        assert all(len(set(groups[part])) == 1 for part in parts)
        seen.add(tuple(str(groups[part[0]]) for part in parts))
    assert len(seen) == 6, "the seed decides which client gets which group"


def test_without_groups_the_labels_are_the_groups():
    parts = ByGroup(4).split(LABELS)
    assert sorted(int(LABELS[part[0]]) for part in parts) == [0, 1, 2, 3]
    assert all(len(set(LABELS[part])) == 1 for part in parts)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 8), st.integers(18, 80), seeds)
def test_shards(clients, shards, groups, examples, seed):
    member = np.arange(examples) % groups
    parts = ByGroup(clients, shards_per_client=shards, seed=seed).split(
        np.zeros(examples, int), groups=member
    )
    check_cover(parts, member, clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= shards
    shard_size = -(-examples // (clients * shards))
    most = shards * (-(-shard_size // (examples // groups)) + 1)  # a shard is one run of the sorted list
    assert max(len(set(member[part])) for part in parts) <= most


def test_groups_that_do_not_fit():
    with pytest.raises(BadValue, match=r"4 groups for 3 clients.*\n.*num_clients=4"):
        ByGroup(3).split(LABELS)
    with pytest.raises(BadValue, match="groups have shape"):
        ByGroup(3).split(LABELS, groups=["a", "b", "c"])
    with pytest.raises(BadValue, match="shards cannot be cut"):
        ByGroup(10, shards_per_client=50).split(LABELS)
    with pytest.raises(BadValue, match="shards_per_client"):
        ByGroup(10, shards_per_client=-1)


# --- quantity_skew ---------------------------------------------------------------------------------


@given(labels_strategy, st.data(), st.floats(0.05, 20), st.sampled_from(["dirichlet", "power"]), seeds)
def test_quantity_skew(labels, data, dial, law, seed):
    clients = data.draw(st.integers(1, len(labels)))
    least = data.draw(st.integers(1, len(labels) // clients))
    split = partitioner(
        "quantity_skew",
        num_clients=clients,
        law=law,
        alpha=dial,
        exponent=dial,
        min_examples=least,
        seed=seed,
    )
    parts = split.split(labels)
    check_cover(parts, labels, clients)
    sizes = np.array([len(part) for part in parts])
    assert sizes.min() >= least
    if law == "power":
        assert (np.diff(sizes) <= 0).all()


def test_power_law_sizes_by_hand():
    """Exponent 1, three clients, 113 examples of which 3 are the minimum: 110 in the ratio 6 : 3 : 2."""
    parts = partitioner("quantity_skew", num_clients=3, law="power").split(np.zeros(113, int))
    assert [len(part) for part in parts] == [61, 31, 21]


def test_quantity_skew_leaves_the_labels_alike():
    labels = np.repeat([0, 1, 2], 4000)
    split = partitioner("quantity_skew", num_clients=5, alpha=1.0, min_examples=300, seed=2)
    counts = label_counts(split.split(labels), labels)
    assert stats.chi2_contingency(counts).pvalue > 1e-4
    assert counts.sum(axis=1).max() > 2 * counts.sum(axis=1).min()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"law": "zipf"}, "unknown law"),
        ({"law": "power", "exponent": 0}, "exponent"),
        ({"min_examples": 0}, "min_examples"),
        ({"min_examples": 81}, "need 405 examples"),
    ],
)
def test_sizes_that_cannot_be(settings_, message):
    with pytest.raises(FedloraError, match=message):
        partitioner("quantity_skew", num_clients=5, **settings_).split(LABELS)
