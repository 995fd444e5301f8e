"""The split by classes and domains, against what it says of itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partition_tools import check_cover, seeds

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.partition import Pathological, partitioner


@st.composite
def splits(draw):
    """Labels and domains with every class in every domain, unequally often, and a split that fits."""
    classes, domains = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    hand = draw(st.integers(1, classes))
    least = -(-classes * domains // hand) + -(-classes // hand)
    clients = draw(st.integers(least, least + 6))
    sizes = draw(
        st.lists(
            st.integers(clients, max(clients, 30)), min_size=classes * domains, max_size=classes * domains
        )
    )
    labels = np.repeat(np.repeat(np.arange(classes), domains) * 3, sizes)  # numbers may have gaps
    groups = np.repeat(np.tile(np.arange(domains), classes), sizes)
    order = np.random.default_rng(draw(seeds)).permutation(labels.size)
    return labels[order], np.array(["clipart", "paint", "real", "draw"])[groups][order], hand, clients


def split(labels, groups, hand, clients, seed, **more):
    made = partitioner(
        "pathological_domains", num_clients=clients, classes_per_client=hand, seed=seed, **more
    )
    return made.split(labels, groups=groups)


def held(parts, labels, groups):
    """(client, class) -> {domain: examples}, by hand."""
    found = {}
    for client, part in enumerate(parts):
        for i in part:
            place = found.setdefault((client, labels[i]), {})
            place[groups[i]] = place.get(groups[i], 0) + 1
    return found


@given(splits(), seeds)
def test_each_client_sees_a_class_in_one_domain_and_every_example_is_dealt(case, seed):
    labels, groups, hand, clients = case
    parts = split(*case, seed)
    check_cover(parts, labels, clients)
    found = held(parts, labels, groups)
    assert all(len(domains) == 1 for domains in found.values())
    for client in range(clients):
        assert sum(c == client for c, _ in found) == hand
    for label in np.unique(labels):
        mine = [next(iter(d.items())) for (_, at), d in found.items() if at == label]
        assert {domain for domain, _ in mine} == set(groups[labels == label]), "each domain has a holder"
        for domain in {domain for domain, _ in mine}:
            sizes = [n for at, n in mine if at == domain]
            assert max(sizes) - min(sizes) <= 1


@given(splits(), seeds)
def test_dropped_leftovers_against_the_sizes_written_out(case, seed):
    labels, groups, _, clients = case
    whole, less = split(*case, seed), split(*case, seed, leftovers="drop")
    assert len(less) == clients
    for all_of_it, part in zip(whole, less, strict=True):
        assert set(part) <= set(all_of_it), "the same deal, cut short"
    found = held(whole, labels, groups)
    short = held(less, labels, groups)
    for (client, label), domains in found.items():
        (domain,) = domains
        holders = sum(at == label and domain in d for (_, at), d in found.items())
        class_size = int((labels == label).sum())
        there = int(((labels == label) & (groups == domain)).sum())
        share = int((class_size / len(set(groups[labels == label]))) / holders)
        assert short[client, label] == {domain: min(share, there // holders)}


def test_the_classes_are_dealt_as_without_domains():
    labels, groups = np.repeat(np.arange(6), 40), np.tile(np.arange(2), 120)
    parts = split(labels, groups, 2, 12, 5)
    counted = [len(set(labels[part])) for part in parts]
    plain = [len(set(labels[part])) for part in Pathological(12, 2, seed=5).split(labels)]
    assert counted == plain == [2] * 12


def test_what_a_client_holds_does_not_depend_on_its_number():
    """Its number decides about its resources: the two must not go together."""
    labels, groups = np.repeat(np.arange(10), 60), np.tile(np.arange(4), 150)
    sizes = np.mean([[len(p) for p in split(labels, groups, 2, 40, s)] for s in range(60)], axis=0)
    # The standard error of the difference is 0.2; if the first holders got each domain once, it would be 7.5.
    assert abs(sizes[:20].mean() - sizes[20:].mean()) < 1


def test_a_class_that_lacks_a_domain_needs_fewer_holders():
    labels = np.repeat([0, 1], 20)
    groups = np.array([0] * 20 + [0, 1] * 10)
    parts = split(labels, groups, 1, 4, 0)
    check_cover(parts, labels, 4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"groups": None}, "needs the domain of each example"),
        ({"hand": 3}, "labels name 2 classes"),
        ({"clients": 1}, "without a holder"),
        ({"clients": 3}, "has 2 domains and only 1 holders"),
        ({"groups": np.zeros(3)}, "groups have shape"),
        ({"leftovers": "keep"}, "unknown leftovers"),
        ({"hand": 0}, "classes_per_client"),
    ],
)
def test_what_cannot_be_dealt(more, message):
    settings = {
        "labels": np.repeat([0, 1], 20),
        "groups": np.tile([0, 1], 20),
        "hand": 1,
        "clients": 4,
        "seed": 0,
        **more,
    }
    with pytest.raises(FedloraError, match=message):
        split(**settings)


def test_no_minimum_lets_a_small_class_run_out():
    labels = np.array([0] * 40 + [1] * 2)
    settings = {"num_clients": 4, "classes_per_client": 2}
    with pytest.raises(BadValue, match="2 examples for 4 holders"):
        partitioner("pathological", **settings).split(labels)
    parts = partitioner("pathological", **settings, min_per_holder=0).split(labels)
    check_cover(parts, labels, 4)
    assert sorted((labels[part] == 1).sum() for part in parts) == [0, 0, 1, 1]
