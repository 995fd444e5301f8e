"""What every partitioner promises, and the table of counts and picture of a split."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partition_tools import LABELS, check_cover

import fedlora_kit.partition
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.partition import label_counts, partition_figure, partitioner, partitioner_names
from fedlora_kit.partition.base import round_to_total

CASES = {
    "iid": {"num_clients": 7},
    "label_shares": {"num_clients": 2, "shares": [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]},
    "dirichlet": {"num_clients": 5, "alpha": 0.5, "min_examples": 3},
    "pathological": {"num_clients": 6, "classes_per_client": 2, "mode": "dirichlet"},
    "pathological_domains": {"num_clients": 6, "classes_per_client": 2},
    "by_group": {"num_clients": 5, "shards_per_client": 2},
    "quantity_skew": {"num_clients": 6, "alpha": 0.4, "min_examples": 2},
}
GROUPS = np.random.default_rng(1).integers(0, 2, len(LABELS))  # for those that ask for them
USES_ALL = sorted(set(CASES) - {"label_shares"})


# --- what all promise ------------------------------------------------------------------------------


def test_the_cases_cover_the_registry():
    assert sorted(CASES) == partitioner_names()


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(fedlora_kit.partition.__path__)])
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(importlib.import_module(f"fedlora_kit.partition.{module}")).failed == 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_split_is_a_function_of_settings_and_seed(name):
    one = partitioner(name, **CASES[name], seed=1)
    first = one.split(LABELS, groups=GROUPS)
    again = one.split(LABELS, groups=GROUPS)
    equal = partitioner(name, **CASES[name], seed=1)
    other = partitioner(name, **CASES[name], seed=2).split(LABELS, groups=GROUPS)
    assert all(map(np.array_equal, first, again)), "a second call does not go on where the first stopped"
    assert one == equal
    assert hash(one) == hash(equal)
    assert all(map(np.array_equal, first, equal.split(LABELS, groups=GROUPS)))
    assert not all(map(np.array_equal, first, other)), "another seed is another split"


@pytest.mark.parametrize("name", sorted(CASES))
def test_labels_in_and_indices_out_have_one_form(name):
    split = partitioner(name, **CASES[name])
    before = LABELS.copy()
    parts = split.split(LABELS, groups=GROUPS)
    assert np.array_equal(LABELS, before)
    assert all(map(np.array_equal, parts, split.split(LABELS.tolist(), groups=GROUPS)))
    assert all(map(np.array_equal, parts, split.split(LABELS.astype(np.uint8), groups=GROUPS)))
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts)), "disjoint"


@pytest.mark.parametrize("name", USES_ALL)
def test_every_example_once(name):
    check_cover(
        partitioner(name, **CASES[name]).split(LABELS, groups=GROUPS), LABELS, CASES[name]["num_clients"]
    )


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "shape"),
        ([[0, 1]], "shape"),
        ([0, -1, 2, 1] * 10, "negative"),
        ([0.0, 1.0] * 20, "float64"),
        (["a", "b"] * 20, "type"),
        ([0], "cannot share 1 examples"),
    ],
)
def test_labels_that_cannot_be_split(name, labels, message):
    with pytest.raises(BadValue, match=message) as caught:
        partitioner(name, **CASES[name]).split(labels, groups=GROUPS)
    assert caught.value.remedy


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("clients", [0, -3, 2.0, True, "3", None])
def test_impossible_numbers_of_clients(name, clients):
    with pytest.raises(BadValue, match="num_clients"):
        partitioner(name, **{**CASES[name], "num_clients": clients})


@pytest.mark.parametrize("name", sorted(CASES))
def test_impossible_seeds(name):
    with pytest.raises(BadValue, match="seed"):
        partitioner(name, **CASES[name], seed=-1)


def test_the_registry_names_what_it_knows():
    with pytest.raises(UnknownName, match="did you mean 'dirichlet'"):
        partitioner("dirichelt", num_clients=2)
    with pytest.raises(UnknownName, match=r"setting of partitioner 'dirichlet' 'aplha'.*\n.*alpha"):
        partitioner("dirichlet", num_clients=2, aplha=1.0)
    with pytest.raises(BadValue, match="lacks alpha"):
        partitioner("dirichlet", num_clients=2)


# --- rounding, counts, picture ---------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), st.integers(0, 500))
def test_round_to_total(weights, total):
    shares = np.array(weights) / sum(weights)
    counts = round_to_total(shares, total)
    assert counts.sum() == total
    assert np.abs(counts - shares * total).max() < 1 + 1e-6


@pytest.mark.parametrize(
    ("shares", "total", "counts"),
    [
        ([0.02, 0.04, 0.94], 10, [0, 1, 9]),  # remainders .2, .4, .4
        ([0.01, 0.07, 0.92], 50, [1, 3, 46]),  # .5, .5, 0
        ([0.29, 0.71], 100, [29, 71]),
    ],
)
def test_ties_go_to_the_left_whatever_the_last_bit_says(shares, total, counts):
    assert round_to_total(np.array(shares), total).tolist() == counts


def test_label_counts_against_a_loop():
    parts = partitioner("dirichlet", num_clients=5, alpha=0.5).split(LABELS)
    counts = label_counts(parts, LABELS, num_classes=6)
    assert counts.shape == (5, 6)
    for client, part in enumerate(parts):
        for label in range(6):
            assert counts[client, label] == sum(LABELS[i] == label for i in part)
    assert label_counts([[], [0]], [1]).tolist() == [[0, 0], [0, 1]]


def test_counts_that_cannot_be():
    with pytest.raises(BadValue, match=r"num_classes=3\n.*at least 4"):
        label_counts([[0]], LABELS, num_classes=3)
    for outside in (400, -1):
        with pytest.raises(BadValue, match="client 1 names an example outside"):
            label_counts([[0], [outside]], LABELS)


def test_a_few_classes_are_drawn_as_bars():
    counts = np.array([[2, 18], [18, 2], [10, 10]])
    figure = partition_figure(counts, ["no", "yes"], "FFA-LoRA")
    (axes,) = figure.axes
    drawn = sorted(
        (round(bar.get_y() + bar.get_height() / 2), bar.get_x(), bar.get_width()) for bar in axes.patches
    )
    assert drawn == [(0, 0, 2), (0, 2, 18), (1, 0, 18), (1, 18, 2), (2, 0, 10), (2, 10, 10)]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["no", "yes"]
    assert axes.get_title(loc="left") == "FFA-LoRA"
    assert axes.yaxis_inverted()


def test_many_classes_are_drawn_as_circles_of_proportional_area():
    counts = np.arange(8 * 12).reshape(8, 12)
    figure = partition_figure(counts)
    (axes,) = figure.axes
    circles = axes.collections[0]
    at = {
        (int(y), int(x)): area
        for (x, y), area in zip(circles.get_offsets(), circles.get_sizes(), strict=True)
    }
    assert len(at) == 8 * 12 - 1, "no circle where there is no example"
    assert all(np.isclose(area / at[7, 11], counts[cell] / counts[7, 11]) for cell, area in at.items())


@pytest.mark.parametrize("shape", [(100, 100), (1, 1), (60, 3)])
def test_pictures_of_any_size_can_be_saved(shape, tmp_path):
    partition_figure(np.ones(shape, int)).savefig(tmp_path / "split.png", dpi=40)
    assert (tmp_path / "split.png").stat().st_size > 1000


def test_pictures_that_cannot_be():
    with pytest.raises(BadValue, match="2 class names for 3 classes"):
        partition_figure(np.ones((2, 3)), ["a", "b"])
    for counts in (np.ones(3), np.ones((0, 3)), -np.ones((2, 2))):
        with pytest.raises(BadValue, match="cannot be drawn"):
            partition_figure(counts)
