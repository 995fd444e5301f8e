"""The invariants of a partitioner, each as a function of its registered name and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition import partitioner

LABELS: npt.NDArray[np.int64] = np.random.default_rng(0).integers(0, 4, 400)
"""400 labels of 4 classes."""
GROUPS: npt.NDArray[np.int64] = np.random.default_rng(1).integers(0, 2, LABELS.size)
"""A group of each example, for partitioners that ask for them."""

_UNUSABLE: tuple[tuple[list[Any], str], ...] = (
    ([], "shape"),
    ([[0, 1]], "shape"),
    ([0, -1, 2, 1] * 10, "negative"),
    ([0.0, 1.0] * 20, "float64"),
    (["a", "b"] * 20, "type"),
    ([0], "cannot share 1 examples"),
)


def is_a_partition(
    parts: Sequence[npt.NDArray[np.int64]], examples: int, clients: int, *, complete: bool = True
) -> None:
    """The parts are as many as the clients, none is empty, each is sorted, and no example is in two of them.

    Args:
        complete: whether every example must be with a client.
    """
    _hold(len(parts) == clients, f"{len(parts)} parts for {clients} clients")
    for client, part in enumerate(parts):
        _hold(part.dtype == np.int64, f"client {client}: example numbers of type {part.dtype}, not int64")
        _hold(part.size > 0, f"client {client} holds no example")
        _hold(bool((np.diff(part) > 0).all()), f"client {client}: its example numbers are not sorted")
    together = np.concatenate(parts)
    _hold(together.min() >= 0 and together.max() < examples, "an example number is out of range")
    _hold(np.unique(together).size == together.size, "an example is with two clients")
    _hold(not complete or together.size == examples, f"{examples - together.size} examples are with nobody")


def covers_every_example(name: str, settings: Mapping[str, Any]) -> None:
    """Every example is with exactly one client."""
    parts = partitioner(name, **settings).split(LABELS, groups=GROUPS)
    is_a_partition(parts, LABELS.size, settings["num_clients"])


def depends_on_settings_and_seed_alone(name: str, settings: Mapping[str, Any]) -> None:
    """The same settings and seed give the same split, however often it is asked for; another seed another."""
    one = partitioner(name, **settings, seed=1)
    first = one.split(LABELS, groups=GROUPS)
    again = one.split(LABELS, groups=GROUPS)
    _hold(_equal(first, again), "a second call goes on where the first stopped: draw from self._rng() alone")
    same = partitioner(name, **settings, seed=1)
    _hold(
        one == same and hash(one) == hash(same),
        "equal settings, and yet not equal: make it a frozen dataclass",
    )
    _hold(_equal(first, same.split(LABELS, groups=GROUPS)), "two equal partitioners split unequally")
    other = partitioner(name, **settings, seed=2).split(LABELS, groups=GROUPS)
    _hold(not _equal(first, other), "another seed gives the same split")


def takes_labels_in_any_form(name: str, settings: Mapping[str, Any]) -> None:
    """Lists and small integers do as well as int64, and the caller's labels are left alone."""
    split = partitioner(name, **settings)
    before = LABELS.copy()
    parts = split.split(LABELS, groups=GROUPS)
    _hold(np.array_equal(LABELS, before), "the labels were changed")
    for form in (LABELS.tolist(), LABELS.astype(np.uint8)):
        _hold(_equal(parts, split.split(form, groups=GROUPS)), "labels in another form give another split")
    _hold(np.unique(np.concatenate(parts)).size == sum(map(len, parts)), "an example is with two clients")


def refuses_what_it_cannot_split(name: str, settings: Mapping[str, Any]) -> None:
    """Labels without an order or a class, impossible numbers of clients and seeds are a `BadValue`."""
    for labels, message in _UNUSABLE:
        _refuses(partial(partitioner(name, **settings).split, labels), message)
    for clients in (0, -3, 2.0, True, "3", None):
        _refuses(partial(partitioner, name, **{**settings, "num_clients": clients}), "num_clients")
    _refuses(partial(partitioner, name, **settings, seed=-1), "seed")


CHECKS: tuple[Callable[[str, Mapping[str, Any]], None], ...] = (
    covers_every_example,
    depends_on_settings_and_seed_alone,
    takes_labels_in_any_form,
    refuses_what_it_cannot_split,
)
"""What a partitioner must hold; each takes its registered name and settings with ``num_clients``."""


def _refuses(action: Callable[[], object], message: str) -> None:
    try:
        action()
    except BadValue as error:
        _hold(message in error.problem, f"refused, but not for {message!r}: {error.problem}")
        _hold(bool(error.remedy), f"the error names no remedy: {error.problem}")
        return
    raise AssertionError(f"something impossible was taken; expected an error about {message!r}")


def _equal(one: Sequence[npt.NDArray[np.int64]], two: Sequence[npt.NDArray[np.int64]]) -> bool:
    return len(one) == len(two) and all(map(np.array_equal, one, two))


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)
