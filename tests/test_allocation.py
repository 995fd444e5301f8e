"""Who can train how much, and which layers: groups, patterns, probabilities, importance levels."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments.spec import MethodSpec
from fedlora_kit.methods import METHODS, ClientUpdate, Context, allocation, defects, method, ranks, resources
from fedlora_kit.methods.allocation import (
    PATTERNS,
    draw_layers,
    importance_levels,
    importance_probabilities,
    pattern_layers,
    pattern_probabilities,
)
from fedlora_kit.methods.resources import HETLORA_111, ROC_111, ROC_631, Resources
from fedlora_kit.randomness import Streams

ROC = {"groups": [1, 1, 1], "layers": [0.5, 0.75, 1.0]}
LAYERWISE = ("gd-hla", "rgd-hla", "fim-hla", "fed-hello", "straggler", "fedra")


def bound(name, depth=12, clients=100, **settings):
    m = method(name, **settings)
    m.bind(Context(clients, depth, 16, Streams(3)))
    return m


@pytest.mark.parametrize("module", [allocation, defects, resources, ranks])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


# --- resources -----------------------------------------------------------------------------------


def test_the_papers_configurations():
    assert ROC_111.group_sizes(100) == [33, 33, 34]  # ids 0-32, 33-65, 66-99, as released
    assert ROC_631.group_sizes(100) == [60, 30, 10]
    assert [ROC_111.num_layers(g, 12) for g in range(3)] == [6, 9, 12]
    assert [HETLORA_111.rank(g, 16) for g in range(3)] == [1, 4, 16]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    clients=st.integers(1, 200),
    depth=st.integers(1, 48),
)
def test_every_client_has_a_group_and_every_group_its_layers(sizes, clients, depth):
    fractions = np.linspace(0.3, 1, len(sizes)).tolist() if len(sizes) > 1 else [1.0]
    r = Resources(groups=sizes, layers=fractions)
    groups = [r.group(k, clients) for k in range(clients)]
    assert groups == sorted(groups)
    assert [groups.count(g) for g in range(len(sizes))] == r.group_sizes(clients)
    counts = [r.num_layers(g, depth) for g in range(len(sizes))]
    assert counts == sorted(counts)
    assert 1 <= counts[0] <= counts[-1] == depth


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"groups": [1, 2], "layers": [1]}, "1 entries for 2 groups"),
        ({"groups": [1, 0]}, "above 0"),
        ({"groups": []}, "above 0"),
        ({"groups": [1], "layers": [1.5]}, "fractions in"),
        ({"groups": [1, 1], "ranks": [0, 1]}, "ranks"),
        ({"groups": [1, 1], "layers": [0, 0]}, "no group"),
        ({"group": [1]}, "group"),
        ("1:1:1", "resources"),
        ({"groups": 3}, "resources"),
        ({"layers": [0.5, 1.0]}, "2 entries for 1 groups"),
    ],
)
def test_impossible_resources_are_one_clear_error(given, said):
    with pytest.raises(BadValue, match=said) as error:
        MethodSpec(name="gd-hla", settings={"resources": given})
    assert "groups" in error.value.remedy


@pytest.mark.parametrize(
    ("name", "settings", "error", "said"),
    [
        ("gd-hla", {"pattern": "spindle"}, UnknownName, "bottleneck"),
        ("fim-hla", {"every": 0}, BadValue, "every=0"),
        ("fed-hello", {"levels": 2.5}, BadValue, "levels"),
        ("fed-hello", {"resources": ROC, "proxy_examples": 0}, BadValue, "proxy_examples"),
        ("exclusive", {"resources": {"groups": [1], "layers": [0.5]}}, BadValue, "every layer"),
        ("rgd-hla", {"defects": ["forget_scores"]}, UnknownName, "freeze_by_substring"),
        ("rgd-hla", {"defects": "freeze_by_substring"}, BadValue, "cannot be used"),
        ("gd-hla", {"resources": {"groups": [1, 1], "ranks": [0.5, 1]}}, BadValue, "shares out layers"),
        ("flexlora", {"resources": ROC}, BadValue, "shares out ranks"),
        ("hetlora", {"weighting": "rank"}, UnknownName, "sparsity"),
        ("fedra", {"pattern": "uniform"}, BadValue, "pattern"),
    ],
)
def test_impossible_settings_are_one_clear_error(name, settings, error, said):
    with pytest.raises(error, match=said):
        MethodSpec(name=name, settings=settings)


def test_a_method_that_serves_no_federation_says_so():
    with pytest.raises(FedloraError, match="bind"):
        method("gd-hla", resources=ROC).layers(0, 0)


# --- patterns ------------------------------------------------------------------------------------


def test_the_released_lists_at_twelve_layers():
    full = tuple(range(12))
    assert [pattern_layers("uniform", k, 12) for k in (6, 9, 12)] == [
        (0, 2, 4, 6, 8, 10),
        (0, 1, 2, 4, 5, 6, 8, 9, 10),
        full,
    ]
    assert [pattern_layers("bottleneck", k, 12) for k in (6, 9, 12)] == [
        (0, 1, 2, 9, 10, 11),
        (0, 1, 2, 3, 4, 8, 9, 10, 11),
        full,
    ]
    released = [1 / 9, 1 / 9, 1 / 9, 2 / 27, 2 / 27, 1 / 27, 1 / 27, 1 / 27, 2 / 27, 1 / 9, 1 / 9, 1 / 9]
    np.testing.assert_allclose(pattern_probabilities("bottleneck", (6, 9, 12), 12), released)
    assert pattern_layers("triangle", 2, 12) == (0, 1)
    assert pattern_layers("inverted_triangle", 2, 12) == (10, 11)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(depth=st.integers(1, 60), data=st.data())
def test_patterns_at_any_depth(pattern, depth, data):
    counts = data.draw(st.lists(st.integers(1, depth), min_size=1, max_size=4))
    for count in counts:
        layers = pattern_layers(pattern, count, depth)
        assert len(set(layers)) == count
        assert list(layers) == sorted(layers)
        assert 0 <= layers[0] <= layers[-1] < depth
    p = pattern_probabilities(pattern, counts, depth)
    assert p.shape == (depth,)
    assert p.sum() == pytest.approx(1)
    assert len(draw_layers(p, max(counts), np.random.default_rng(0))) == max(counts)


def test_what_cannot_be_allocated():
    with pytest.raises(BadValue, match="13 of 12"):
        pattern_layers("uniform", 13, 12)
    with pytest.raises(BadValue, match="only 2"):
        draw_layers(np.array([0.5, 0.5, 0.0]), 3, np.random.default_rng(0))


# --- importance ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=24), st.integers(1, 5))
def test_more_important_layers_are_never_less_likely(scores, levels):
    level = importance_levels(scores, levels)
    p = importance_probabilities(scores, levels)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(level[order]) >= 0).all()
    assert (np.diff(p[order]) >= -1e-12).all()
    assert p.sum() == pytest.approx(1)
    assert p.min() > 0


def test_scores_that_differ_by_rounding_keep_their_order():
    assert importance_levels([0.0, 0.5, 4.613978161535511e-15], 3).tolist() in ([0, 2, 1], [0, 1, 0])


def test_scores_must_be_finite():
    with pytest.raises(BadValue, match="finite"):
        importance_levels([1.0, float("nan")], 2)


def test_scores_are_kept_until_the_next_refresh_and_forgotten_by_bind():
    m = bound("fed-hello", resources=ROC, start=4, every=3)
    assert [r for r in range(12) if m.refreshes(r)] == [4, 7, 10]
    warm = m.probabilities(3)
    np.testing.assert_allclose(warm, pattern_probabilities("bottleneck", (6, 9, 12), 12))
    m.refresh([1.0] * 6 + [100.0] * 6, 4)
    for r in (4, 5, 6):
        assert len(m.layers(0, r)) == 6
        assert (m.probabilities(r)[6:] == 2 * m.probabilities(r)[0]).all()
    m.bind(m.context)
    np.testing.assert_array_equal(m.probabilities(4), warm)


# --- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERWISE)
@pytest.mark.parametrize("depth", [4, 12, 24])
def test_clients_train_as_many_layers_as_they_can(name, depth):
    m = bound(name, depth, resources=ROC)
    for client, share in ((0, 0.5), (40, 0.75), (99, 1.0)):
        wanted = depth * (0.5 if name == "straggler" else share)
        for r in range(3):
            layers = m.layers(client, r)
            assert len(layers) == wanted
            assert layers <= set(range(depth))
            assert m.takes_part(client, r)


@pytest.mark.parametrize("name", ["rgd-hla", "fedra", "fed-hello"])
def test_random_layers_come_from_streams_of_their_own(name):
    m, again = bound(name, resources=ROC), bound(name, resources=ROC)
    again.layers(7, 2)
    assert m.layers(3, 1) == again.layers(3, 1)  # nobody else's draw moves it
    assert len({m.layers(0, r) for r in range(10)}) > 3
    assert len({m.layers(k, 0) for k in range(10)}) > 3


def test_bottleneck_draws_favour_both_ends():
    m = bound("rgd-hla", resources=ROC)
    counts = np.zeros(12)
    for r in range(400):
        counts[list(m.layers(0, r))] += 1
    inclusion = counts / 400  # simulated for the released probabilities: .63, .48, .27
    assert inclusion[[0, 1, 2, 9, 10, 11]].mean() == pytest.approx(0.63, abs=0.04)
    assert inclusion[[3, 4, 8]].mean() == pytest.approx(0.48, abs=0.05)
    assert inclusion[[5, 6, 7]].mean() == pytest.approx(0.27, abs=0.05)


def test_exclusive_trains_at_the_clients_that_can_do_everything():
    m = bound("exclusive", resources=ROC)
    assert [k for k in range(100) if m.takes_part(k, 0)] == list(range(66, 100))


def test_layers_1_and_10_are_never_confused():
    m = bound("gd-hla", pattern="triangle", resources={"groups": [1], "layers": [2 / 12]})
    name = "vit.layers.{}.attention.q_proj.lora_A.weight"
    assert [i for i in range(12) if m.trains(name.format(i), 0, 0)] == [0, 1]
    m = bound("gd-hla", pattern="inverted_triangle", resources={"groups": [1], "layers": [2 / 12]})
    assert [i for i in range(12) if m.trains(name.format(i), 0, 0)] == [10, 11]


def test_defects_of_the_released_code_are_switches():
    m = bound("fed-hello", resources=ROC, start=4, every=3, defects=list(defects.AS_RELEASED))
    warm = m.probabilities(3)
    importance = [0.0] * 4 + [50.0] * 4 + [100.0] * 4
    m.refresh(importance, 4)
    assert sorted(set((m.probabilities(4) * 24).round(6))) == [1, 2, 3]
    np.testing.assert_array_equal(m.probabilities(5), warm)  # forgotten after one round
    lowest = set()
    for r in range(30):
        m.refresh(importance, r)
        lowest.add(int(m.probabilities(r).argmin()))
    assert lowest == {0, 4, 8}  # any level may get the lowest probability
    assert m.score_one_logit

    name = "vit.layers.{}.attention.q_proj.lora_A.weight"
    straggler = bound("straggler", resources=ROC, defects=["freeze_by_substring"])
    assert [i for i in range(12) if straggler.trains(name.format(i), 0, 0)] == [0, 2, 4, 6, 8]
    assert [i for i in range(12) if straggler.sends_untrained(name.format(i), 0, 0)] == [10]


def test_equal_weights_is_a_plain_mean_over_the_clients():
    updates = [ClientUpdate(k, n, {"w": torch.tensor([float(k)])}) for k, n in enumerate((1, 1, 98))]
    start = {"w": torch.zeros(1)}
    for name in ("gd-hla", "rgd-hla", "fed-hello", "straggler", "exclusive", "fedra"):
        settings = {} if name == "fedra" else {"defects": ["equal_weights"]}
        expected = 1.97 if name == "fedra" else 1.0  # FedRA's own code has no such defect
        assert float(method(name, **settings).aggregate(start, updates)["w"]) == pytest.approx(expected)


def test_every_method_tells_its_source():
    assert all(m.title and m.source for m in METHODS.values())
