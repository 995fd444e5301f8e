"""Where the examples come from that layers are scored on: random, balanced, external."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import image_data, text_data

from fedlora_kit.data import get_task, load_task
from fedlora_kit.data.builtin.digits import digits
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments.set_aside import proxy_rows
from fedlora_kit.experiments.setup import build, external_proxy, holdings, load_data
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import method
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.randomness import Streams

ROC = {"groups": [1, 1], "layers": [0.5, 1.0]}


def spec(**more):
    s = grid.setting("test", grid.PROFILES, "smoke")
    return grid.cell(s, "iid", "1:1:1", "fed-hello", 0, {}, **more).spec


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 59), classes=st.integers(1, 7), seed=st.integers(0, 50))
def test_balanced_examples_are_spread_over_the_classes(count, classes, seed):
    train = image_data(60, labels=classes, seed=seed)
    rows = proxy_rows(train, count, Streams(seed), "balanced")
    assert len(set(rows)) == count
    held = np.bincount(train.labels, minlength=classes)
    taken = np.bincount(train.labels[rows], minlength=classes)
    for one in range(classes):
        for other in range(classes):  # no class has two more than another that had examples left
            assert taken[one] <= taken[other] + 1 or taken[other] == held[other]


def test_the_source_decides_and_the_seed_draws():
    train = text_data(60)
    random = proxy_rows(train, 20, Streams(1))
    balanced = proxy_rows(train, 20, Streams(1), "balanced")
    again = proxy_rows(train, 20, Streams(1), "balanced")
    other = proxy_rows(train, 20, Streams(2), "balanced")
    assert balanced.tolist() == again.tolist()
    assert len({tuple(rows) for rows in (random, balanced, other)}) == 3


@pytest.mark.parametrize("split", ["iid", "pat_20", "pat_10"])
@pytest.mark.parametrize("proxy", ["random", "balanced", "external"])
def test_clients_hold_the_same_whatever_the_method_but_for_the_proxy_examples(split, proxy):
    s = grid.setting("test", grid.PROFILES, "smoke")
    plain = holdings(grid.cell(s, split, "1:1:1", "lora", 1, {}).spec)
    scored = holdings(grid.cell(s, split, "1:1:1", "fed-hello", 1, {}, proxy=proxy).spec)
    assert plain.proxy is None
    gone = 0
    for one, other in zip(plain.clients, scored.clients, strict=True):
        left = set(other.rows)
        assert left <= set(one.rows)
        missing = [row for row in one.rows if row not in left]
        assert [row for row in one.rows if row in left] == list(other.rows)
        assert not missing or set(missing) <= set(scored.proxy.rows)
        gone += len(missing)
    assert gone == (0 if proxy == "external" else s.proxy_examples)


def test_external_digits_are_nobodys():
    outside = load_task(get_task("digits_proxy")).train
    own = load_task(get_task("digits"))
    seen = {image.tobytes() for image in outside.columns[0]}
    assert len(seen) > 600
    for part in (own.train, *own.evals.values()):
        assert not seen & {image.tobytes() for image in part.columns[0]}
    upright, labels = digits("pretrain")
    assert np.array_equal(np.rot90(upright, axes=(2, 3)), outside.columns[0])
    assert np.array_equal(labels, outside.labels)


def test_external_examples_leave_the_clients_theirs():
    made = build(spec(proxy="external"), torch.device("cpu"))
    train, _ = load_data(made_spec := spec().data, "kit/image-tiny")
    assert made_spec.task == "digits"
    assert sum(len(c) for c in made.clients) == len(train)
    assert len(made.proxy) == 20
    inside = build(spec(proxy="balanced"), torch.device("cpu"))
    assert sum(len(c) for c in inside.clients) == len(train) - 20
    assert np.bincount(inside.proxy.labels, minlength=10).tolist() == [2] * 10
    with pytest.raises(BadValue, match="has 700 examples"):
        external_proxy(spec(proxy="external"), 701, Streams(0))


def test_the_external_set_is_in_the_key():
    assert spec().tasks() == ["digits"]
    assert spec(proxy="external").tasks() == ["digits", "digits_proxy"]
    assert len({spec(proxy=p).key() for p in ("random", "balanced", "external")}) == 3
    assert get_task("cifar100_proxy").hub_id == "TNILab/cifar100_proxydata"


def test_impossible_sources():
    with pytest.raises(UnknownName, match="balanced, external, random"):
        method("fed-hello", resources=ROC, proxy="test")
    bare = spec(proxy="external").model_dump(mode="json")
    bare["model"]["backbone"], bare["data"] = "kit/text-tiny", {"task": "polarity"}
    with pytest.raises(BadValue, match="no external proxy examples"):
        RunSpec.parse(bare)
