"""Word vectors from co-occurrence counts: where the embeddings of a small backbone start.

A few minutes of masked words on a small corpus leave word embeddings near their random start. Factorising
the positive pointwise mutual information of words that stand near each other (Levy and Goldberg 2014) takes
seconds and gives vectors in which words of like use lie together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from fedlora_kit.errors import BadValue


def word_vectors(
    sentences: Sequence[npt.NDArray[np.int64]],
    vocabulary: int,
    dim: int,
    *,
    window: int = 5,
    smoothing: float = 0.75,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """Unit vectors of the tokens, from the tokens beside them.

    With counts n(a, b) of pairs at most ``window`` apart in one sentence, the matrix
    max(0, log n(a, b) / (n(a) p(b))), p(b) proportional to n(b)^smoothing, is cut to its ``dim`` largest
    singular values: U sqrt(S), each row brought to length 1.

    Args:
        sentences: token ids of each, below ``vocabulary``.
        window: reach of a token, in tokens.

    Returns:
        float32 (vocabulary, dim); zeros for a token without neighbours.

    Raises:
        BadValue: ``dim`` is not below the size of the vocabulary.
    """
    if not 0 < dim < vocabulary:
        raise BadValue(
            f"vectors of {dim} dimensions for {vocabulary} tokens", "use fewer dimensions than tokens"
        )
    counts = cooccurrences(sentences, vocabulary, window)
    totals = np.maximum(np.asarray(counts.sum(1)).ravel(), 1.0)  # (vocabulary,)
    context = totals**smoothing
    context /= context.sum()
    pairs = counts.tocoo()
    information = np.log(pairs.data / (totals[pairs.row] * context[pairs.col]))
    kept = information > 0
    matrix = sp.csr_matrix((information[kept], (pairs.row[kept], pairs.col[kept])), shape=counts.shape)
    left, values, _ = randomized_svd(matrix, dim, n_iter=4, random_state=seed)
    vectors = left * np.sqrt(values)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)  # type: ignore[no-any-return]


def cooccurrences(sentences: Sequence[npt.NDArray[np.int64]], vocabulary: int, window: int) -> sp.csr_matrix:
    """How often two tokens stand at most ``window`` apart in a sentence: (vocabulary, vocabulary)."""
    gap = np.full(window, -1, np.int64)  # keeps the end of a sentence away from the start of the next
    flat = np.concatenate([part for sentence in sentences for part in (sentence, gap)])
    counts = sp.csr_matrix((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, window + 1):
        first, second = flat[:-distance], flat[distance:]
        real = (first >= 0) & (second >= 0)
        ones = np.ones(int(real.sum()))
        counts = counts + sp.csr_matrix((ones, (first[real], second[real])), shape=counts.shape)
    return sp.csr_matrix(counts + counts.T)
