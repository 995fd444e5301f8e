"""Streams: the same everywhere, independent of one another."""

from __future__ import annotations

import copy
import doctest
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedlora_kit.randomness
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.randomness import STREAMS, Streams

ids = st.lists(st.one_of(st.integers(-5, 10**9), st.text(max_size=5)), max_size=3).map(tuple)
keys = st.tuples(st.integers(0, 10**9), st.sampled_from(sorted(STREAMS)), ids)


def test_examples_in_the_docstrings():
    assert doctest.testmod(fedlora_kit.randomness).failed == 0


def test_golden_values():
    """A change here is a change of every stored run: bump the version text, and say so in the changelog."""
    assert Streams(0).seed("init") == 7956689978831692098
    assert Streams(0).seed("data", 7, 2) == 5367878078096021249
    assert Streams(2**70).seed("noise", "a") == 4075337851948285260
    drawn = Streams(0).generator("partition").integers(2**32, size=4).tolist()
    assert drawn == [1726643951, 2998442730, 3379502388, 4091295077]
    assert Streams(1).generator("data", 7, 2).random(2).tolist() == [0.19492886044584568, 0.0829051000928066]


def test_golden_torch_values():
    torch = pytest.importorskip("torch")
    drawn = torch.randint(2**31, (3,), generator=Streams(0).torch("noise", 0, 1)).tolist()
    assert drawn == [462968195, 1038969698, 136365257]


def test_hash_seed_of_the_process_does_not_matter():
    code = "from fedlora_kit.randomness import Streams; print(Streams(3).seed('cohort', 'a', 1))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert seen == {f"{Streams(3).seed('cohort', 'a', 1)}\n"}


@given(keys, keys)
def test_streams_are_equal_exactly_if_seed_name_and_ids_are(one, other):
    seed, name, ids_ = one
    seed2, name2, ids2 = other
    same = (seed, name, ids_) == (seed2, name2, ids2)
    assert (Streams(seed).seed(name, *ids_) == Streams(seed2).seed(name2, *ids2)) is same
    assert Streams(seed).seed(name, *ids_) == Streams(seed).seed(name, *ids_)
    assert 0 <= Streams(seed).seed(name, *ids_) < 2**63


def test_ids_of_different_type_or_grouping_are_different_streams():
    streams = Streams(0)
    given_ids = [(), (1,), ("1",), (1, 2), (12,), ("1", "2"), ("1\n'2'",), ("12",), ("",), (-1,)]
    assert len({streams.seed("data", *i) for i in given_ids}) == len(given_ids)


def test_what_one_stream_draws_moves_no_other():
    streams = Streams(5)
    streams.generator("allocation").random(1000)
    first = streams.generator("cohort", 3)
    assert np.array_equal(first.random(4), Streams(5).generator("cohort", 3).random(4))
    assert not np.array_equal(first.random(4), Streams(5).generator("cohort", 3).random(4)), "it goes on"


def test_streams_look_independent():
    """40 streams of 4,000 uniform numbers: the largest |r| of 780 pairs is about 3.3/sqrt(4000)."""
    drawn = np.stack(
        [Streams(s).generator("noise", r, c).random(4000) for s in (0, 1) for r in range(5) for c in range(4)]
    )
    r = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert np.abs(r).max() < 5 / np.sqrt(4000)
    assert np.allclose(drawn.mean(axis=1), 0.5, atol=5 * np.sqrt(1 / 12 / 4000))


def test_numpy_integers_count_as_integers_and_a_copy_is_equal():
    assert Streams(np.int64(4)).seed("data", np.int32(2)) == Streams(4).seed("data", 2)
    assert copy.deepcopy(Streams(4)) == Streams(4) != Streams(5)


@pytest.mark.parametrize("seed", [-1, 1.0, True, "1", None])
def test_bad_seeds(seed):
    with pytest.raises(BadValue, match="seed"):
        Streams(seed)


def test_bad_names_and_ids():
    with pytest.raises(UnknownName, match=r"cohorts.*\n.*did you mean 'cohort'"):
        Streams(0).generator("cohorts")
    for bad in (1.5, True, None, (1,)):
        with pytest.raises(BadValue, match="id"):
            Streams(0).seed("data", bad)
