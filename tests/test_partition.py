"""What every partitioner promises, and the table of counts and picture of a split."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partition_tools import LABELS

import fedlora_kit.partition
from fedlora_kit.conformance.partitions import CHECKS, covers_every_example, is_a_partition
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.partition import IID, label_counts, partition_figure, partitioner, partitioner_names
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
CASES |= {name: {"num_clients": 5} for name in partitioner_names() if name not in CASES}
#: leaves examples out
CUTS = {"label_shares"}


# --- what all promise ------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(fedlora_kit.partition.__path__)])
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(importlib.import_module(f"fedlora_kit.partition.{module}")).failed == 0


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_every_partitioner_holds(check, name):
    if check is covers_every_example and name in CUTS:
        pytest.skip("it leaves examples out")
    check(name, CASES[name])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([[0, 1], [2, 3]], "1 examples are with nobody"),
        ([[0, 1], [1, 2, 3, 4]], "two clients"),
        ([[0, 1, 2, 3, 4], []], "no example"),
        ([[1, 0], [2, 3, 4]], "not sorted"),
        ([[0, 1], [2, 3, 5]], "out of range"),
        ([[0, 1, 2, 3, 4]], "1 parts for 2 clients"),
        ([[0.0, 1.0], [2, 3, 4]], "float64"),
    ],
)
def test_what_is_no_partition(parts, said):
    with pytest.raises(AssertionError, match=said):
        is_a_partition([np.array(part, None if part else np.int64) for part in parts], 5, 2)


@dataclass(frozen=True)
class Forgetful(IID):
    name = "forgetful"

    def _deal(self, labels, groups):
        return [part[1:] for part in super()._deal(labels, groups)]


def test_an_example_that_is_lost_on_the_way_is_no_split():
    with pytest.raises(AssertionError, match="'forgetful' dealt 8 of 10 examples, and promises all"):
        Forgetful(2).split(np.zeros(10, int))
    shares = partitioner("label_shares", num_clients=2, shares=[[0.5, 0.5], [0.9, 0.1]])
    assert not shares.deals_all()
    for leftovers, all_of_them in (("deal", True), ("drop", False)):
        settings = {"num_clients": 2, "classes_per_client": 1, "leftovers": leftovers}
        assert partitioner("pathological_domains", **settings).deals_all() == all_of_them


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
