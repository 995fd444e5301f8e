"""Word vectors from counts: the counts against a loop, the vectors by what they must tell apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.errors import BadValue
from fedlora_kit.pretraining.word_vectors import cooccurrences, word_vectors

sentences = st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=6)


def counted_by_hand(texts, vocabulary, window):
    counts = np.zeros((vocabulary, vocabulary))
    for text in texts:
        for i, a in enumerate(text):
            for j, b in enumerate(text):
                if i != j and abs(i - j) <= window:
                    counts[a, b] += 1
    return counts


@given(sentences, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_counts_equal_a_double_loop(texts, window):
    arrays = [np.array(text, np.int64) for text in texts]
    assert np.array_equal(cooccurrences(arrays, 7, window).toarray(), counted_by_hand(texts, 7, window))


def test_words_of_like_use_lie_together():
    rng = np.random.default_rng(0)
    warm, cold, frames = (
        [0, 1, 2],
        [3, 4, 5],
        {0: [6, 7, 8], 1: [9, 10, 11]},
    )  # tokens 0-5 in two kinds of company
    texts = []
    for _ in range(400):
        kind = int(rng.integers(2))
        word = int(rng.choice(cold if kind else warm))
        texts.append(np.array([*rng.choice(frames[kind], 2), word, *rng.choice(frames[kind], 2)]))
    vectors = word_vectors(texts, 13, 4)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors[:12], axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    assert not vectors[12].any()  # never seen
    likeness = vectors @ vectors.T
    within = [likeness[a, b] for group in (warm, cold) for a in group for b in group if a < b]
    across = [likeness[a, b] for a in warm for b in cold]
    assert min(within) > max(across) + 0.3


def test_vectors_depend_on_the_seed_of_the_solver_alone():
    texts = [np.array([i % 7, (i * 3) % 7, (i * 5) % 7]) for i in range(50)]
    assert np.array_equal(word_vectors(texts, 8, 3), word_vectors(texts, 8, 3))


@pytest.mark.parametrize("dim", [0, 7, 9])
def test_more_dimensions_than_tokens_are_refused(dim):
    with pytest.raises(BadValue, match="dimensions"):
        word_vectors([np.array([0, 1, 2])], 7, dim)
