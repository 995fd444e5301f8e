"""Which layers a client trains: Fed-HeLLo's geometric patterns as fixed lists and as probabilities.

Of the patterns, the released code holds the bottleneck's probabilities and, in a comment, the uniform lists,
both for 12 layers. The lists of the bottleneck are derived from its probabilities; the triangles follow the
same rule, and which of the two the paper calls inverted is not known here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue, UnknownName

Layers = tuple[int, ...]
Probabilities = npt.NDArray[np.float64]


def triangle(count: int, depth: int) -> Layers:
    """The lowest layers, next to the input."""
    return tuple(range(count))


def inverted_triangle(count: int, depth: int) -> Layers:
    """The highest layers, next to the head."""
    return tuple(range(depth - count, depth))


def bottleneck(count: int, depth: int) -> Layers:
    """Both ends; the lower end gets the odd one.

    >>> bottleneck(9, 12)
    (0, 1, 2, 3, 4, 8, 9, 10, 11)
    """
    low = (count + 1) // 2
    return (*range(low), *range(depth - (count - low), depth))


def uniform(count: int, depth: int) -> Layers:
    """Evenly spread.

    >>> uniform(9, 12)
    (0, 1, 2, 4, 5, 6, 8, 9, 10)
    """
    return tuple(i * depth // count for i in range(count))


PATTERNS: dict[str, Callable[[int, int], Layers]] = {
    "triangle": triangle,
    "inverted_triangle": inverted_triangle,
    "bottleneck": bottleneck,
    "uniform": uniform,
}
"""Pattern name -> its list for (number of layers to train, layers of the model)."""


def checked_pattern(name: object) -> str:
    """``name`` if it is a pattern.

    Raises:
        UnknownName: otherwise.
    """
    if name not in PATTERNS:
        raise UnknownName("allocation pattern", name, PATTERNS)
    return str(name)


def pattern_layers(pattern: str, count: int, depth: int) -> Layers:
    """The ``count`` layers of a pattern in a model with ``depth`` layers, ascending.

    Raises:
        UnknownName: no such pattern.
        BadValue: count outside 0..depth.
    """
    if not 0 <= count <= depth:
        raise BadValue(f"{count} of {depth} layers cannot be allocated", f"give 0 to {depth}")
    return PATTERNS[checked_pattern(pattern)](count, depth) if count else ()


def pattern_probabilities(pattern: str, counts: Sequence[int], depth: int) -> Probabilities:
    """A pattern as the probabilities of a random allocation, (depth,), adding up to 1.

    A layer's probability is its share of the groups' lists: in how many of them it stands, over the length
    of all. That gives the released bottleneck exactly. "uniform" is 1/depth for each layer (none is released;
    by the rule of the lists it would not be uniform).

    Args:
        counts: layers that a client of each group trains.

    Raises:
        UnknownName, BadValue: as in `pattern_layers`.

    >>> (27 * pattern_probabilities("bottleneck", (6, 9, 12), 12)).round(6).astype(int).tolist()
    [3, 3, 3, 2, 2, 1, 1, 1, 2, 3, 3, 3]
    """
    if checked_pattern(pattern) == "uniform":
        return np.full(depth, 1 / depth)
    listed = np.zeros(depth)
    for count in counts:
        listed[list(pattern_layers(pattern, count, depth))] += 1
    return np.asarray(listed / listed.sum(), dtype=np.float64)


def draw_layers(probabilities: Probabilities, count: int, rng: np.random.Generator) -> Layers:
    """``count`` different layers, drawn one after the other with ``probabilities``; ascending.

    How often a layer is drawn in the end differs from its probability (for count = depth it is always 1).

    Raises:
        BadValue: fewer than ``count`` layers have a probability above 0.
    """
    if count > np.count_nonzero(probabilities):
        possible = np.count_nonzero(probabilities)
        raise BadValue(
            f"{count} layers cannot be drawn: only {possible} have a probability above 0",
            "let a group train as many layers",
        )
    drawn = rng.choice(probabilities.size, size=count, replace=False, p=probabilities)
    return tuple(sorted(int(layer) for layer in drawn))


def importance_levels(scores: Sequence[float], levels: int) -> npt.NDArray[np.int64]:
    """Level of each layer by 1-D k-means of the scores: 0 for the lowest centre, levels - 1 for the highest.

    The clusters are ordered and the seed is fixed; the released code does neither, so that
    its labels are in no order. Fewer different scores than levels give fewer levels.

    Returns:
        (layers,) int64.

    Raises:
        BadValue: a score is not finite.

    >>> importance_levels([0.1, 9.0, 0.2, 5.0, 9.1], 3).tolist()
    [0, 2, 0, 1, 2]
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise BadValue("a layer's importance score is not finite", "lower the learning rate")
    clusters = min(levels, np.unique(values).size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # scores that all but agree: fewer levels
        fitted = KMeans(n_clusters=clusters, n_init=10, random_state=0).fit(values[:, None])
    # ordered by their own members: centres of scores that all but agree may differ by rounding alone
    labels = sorted(
        set(fitted.labels_.tolist()), key=lambda label: float(values[fitted.labels_ == label].min())
    )
    level_of = {label: level for level, label in enumerate(labels)}
    return np.array([level_of[int(label)] for label in fitted.labels_], dtype=np.int64)


def importance_probabilities(
    scores: Sequence[float], levels: int, disorder: np.random.Generator | None = None
) -> Probabilities:
    """Allocation probabilities from importance scores: level l counts l + 1 (1 : 2 : 3 as released).

    Args:
        disorder: shuffles the levels, as if the clusters were not ordered (the released defect).

    >>> importance_probabilities([0.1, 9.0, 5.0], 3).round(3).tolist()
    [0.167, 0.5, 0.333]
    """
    found = importance_levels(scores, levels)
    if disorder is not None:
        found = disorder.permutation(int(found.max()) + 1)[found]
    weights = found + 1.0
    return np.asarray(weights / weights.sum(), dtype=np.float64)
