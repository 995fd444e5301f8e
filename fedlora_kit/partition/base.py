"""What every partitioner shares: the interface, the checks before and after, the registry."""

from __future__ import annotations

import dataclasses
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.columns import group_values, plain
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.randomness import Streams, checked_seed

Indices = npt.NDArray[np.int64]
"""One-dimensional array of example numbers (or of counts), int64."""

P = TypeVar("P", bound="Partitioner")
F = TypeVar("F", bound="Callable[..., Partitioner]")


@dataclass(frozen=True)
class Partitioner(ABC):
    """Says which client holds which examples.

    A partitioner is a value: its settings and its seed fix the split, and two equal partitioners split the
    same labels alike. It is never told the examples themselves, only their labels (and, for some, a group
    for each example).

    Args:
        num_clients: number of clients, at least 1.
        seed: seed of this split, 0 or more.

    Raises:
        BadValue: a setting is impossible.
    """

    name: ClassVar[str]
    library: ClassVar[str] = ""
    """The distribution whose release decides the split, where it is none that every run depends on."""

    num_clients: int
    _: KW_ONLY
    seed: int = 0

    def __post_init__(self) -> None:
        self._set("num_clients", whole("num_clients", self.num_clients, least=1))
        self._set("seed", checked_seed(self.seed))

    def split(self, labels: npt.ArrayLike, *, groups: npt.ArrayLike | None = None) -> list[Indices]:
        """Deal the examples out.

        Args:
            labels: (examples,) class of each example, integers of 0 or more.
            groups: (examples,) group of each example (its task, category or domain), integers or strings.
                Looked at by ``by_group`` and ``pathological_domains`` only.

        Returns:
            One sorted int64 array of example numbers a client, disjoint, none of them empty; together they
            are all examples where the partitioner promises it (`deals_all`).

        Raises:
            BadValue: these labels cannot be split this way; the remedy says what to change.
        """
        known = checked_labels(labels)
        if self.num_clients > known.size:
            raise BadValue(
                f"{self.num_clients} clients cannot share {known.size} examples",
                f"give num_clients of at most {known.size}, or more examples",
            )
        parts = [np.sort(part).astype(np.int64) for part in self._deal(known, checked_groups(groups, known))]
        _check(self, parts, known.size)
        return parts

    def deals_all(self) -> bool:
        """Whether every example must be with a client; `split` then checks it."""
        return False

    @abstractmethod
    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        """The definition itself: example numbers of each client, in any order."""

    def _rng(self) -> np.random.Generator:
        return Streams(self.seed).generator("partition", self.name)

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)  # the one place where a frozen instance is filled in


_REGISTRY: dict[str, type[Partitioner]] = {}


def register(cls: type[P]) -> type[P]:
    """Class decorator: makes the partitioner known under its ``name``.

    Raises:
        BadValue: another class has taken the name.
    """
    if _REGISTRY.get(cls.name, cls).__qualname__ != cls.__qualname__:
        raise BadValue(f"a partitioner called {cls.name!r} is registered already", "choose another name")
    _REGISTRY[cls.name] = cls
    return cls


_FAMILIES: dict[str, Callable[..., Partitioner]] = {}


def register_family(prefix: str) -> Callable[[F], F]:
    """Decorator of a function that makes the partitioners called ``prefix:<kind>`` of another library.

    It is called with the kind, ``num_clients``, ``seed`` and the settings.
    """

    def known(function: F) -> F:
        _FAMILIES[prefix] = function
        return function

    return known


def partitioner_names() -> list[str]:
    """The names that :func:`partitioner` knows."""
    return sorted(_REGISTRY)


def partitioner(name: str, /, **settings: Any) -> Partitioner:
    """The partitioner of that name with these settings; ``flwr:<class>`` is one of ``flwr-datasets``.

    Raises:
        UnknownName: no such partitioner, or it has no such setting.
        BadValue: a setting is missing or impossible.

    >>> partitioner("dirichlet", num_clients=10, alpha=0.5, seed=1)
    Dirichlet(num_clients=10, seed=1, alpha=0.5, min_examples=1, max_draws=1000)
    """
    family, _, kind = name.partition(":")
    if kind and family in _FAMILIES:
        return _FAMILIES[family](kind, **settings)
    if name not in _REGISTRY:
        raise UnknownName("partitioner", name, _REGISTRY)
    cls = _REGISTRY[name]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for setting in settings:
        if setting not in fields:
            raise UnknownName(f"setting of partitioner {name!r}", setting, fields)
    missing = [f for f, field in fields.items() if field.default is dataclasses.MISSING and f not in settings]
    if missing:
        raise BadValue(f"partitioner {name!r} lacks {', '.join(missing)}", f"give {', '.join(missing)}")
    return cls(**settings)


def whole(setting: str, value: object, *, least: int) -> int:
    """``value`` as an integer of at least ``least``; BadValue names the setting."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise BadValue(f"{setting}={value!r} cannot be used", f"give an integer of at least {least}")
    return int(value)


def concentration(setting: str, value: object) -> float:
    """``value`` as a concentration of a Dirichlet distribution, above 0; BadValue names the setting.

    At most 1e9: the parts are equal then, and far above it a draw overflows.
    """
    number = positive(setting, value)
    if number > 1e9:
        raise BadValue(f"{setting}={value!r} cannot be used", "give at most 1e9, which makes equal parts")
    return number


def positive(setting: str, value: object) -> float:
    """``value`` as a finite number above 0; BadValue names the setting."""
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not 0.0 < number < math.inf:
        raise BadValue(f"{setting}={value!r} cannot be used", "give a finite number above 0")
    return number


def choice(setting: str, value: object, allowed: tuple[str, ...]) -> str:
    """``value`` if it is one of ``allowed``; UnknownName otherwise."""
    if value not in allowed:
        raise UnknownName(setting, value, allowed)
    return str(value)


def checked_labels(labels: npt.ArrayLike) -> Indices:
    """Labels as a one-dimensional, non-empty int64 array without negative entries; BadValue otherwise."""
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0:
        raise BadValue(
            f"labels have shape {array.shape}", "give a one-dimensional array with an entry an example"
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise BadValue(f"labels are of type {array.dtype}", "give integer class numbers, counted from 0")
    if array.min() < 0:
        raise BadValue(
            f"{int((array < 0).sum())} labels are negative (the least is {array.min()})",
            "leave unlabelled examples out, and count the classes from 0",
        )
    return array.astype(np.int64)


def checked_groups(groups: npt.ArrayLike | None, labels: Indices) -> npt.NDArray[Any] | None:
    """Groups as an array beside ``labels``: whole numbers or strings, one an example; BadValue otherwise."""
    if groups is None:
        return None
    values: Any = plain(groups)
    shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
    if shape != labels.shape:
        raise BadValue(f"groups have shape {shape}, labels {labels.shape}", "give one group an example")
    return group_values(values, "the column of groups")


def round_to_total(shares: npt.NDArray[np.float64], total: int) -> Indices:
    """Integers that add up to ``total`` and lie within 1 of ``total * shares`` (largest remainders).

    Args:
        shares: (..., parts), each row summing to 1 (scaled to do so exactly).
        total: what each row of the result adds up to.

    >>> round_to_total(np.array([0.5, 0.3, 0.2]), 9).tolist()
    [4, 3, 2]
    """
    exact = shares / shares.sum(axis=-1, keepdims=True)
    quota = np.round(exact * total, 9)  # 0.29 * 100 is 29, not 28.999...
    counts = np.floor(quota).astype(np.int64)
    remainder = np.round(quota - counts, 9)
    order = np.argsort(-remainder, axis=-1, kind="stable")  # the largest first, ties to the left
    rank = np.argsort(order, axis=-1, kind="stable")
    missing = total - counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts + (rank < missing), dtype=np.int64)


def cut(items: Indices, sizes: Indices) -> list[Indices]:
    """``items`` cut into consecutive pieces of these sizes, which add up to at most ``len(items)``."""
    return np.split(items[: sizes.sum()], np.cumsum(sizes)[:-1])


def _check(by: Partitioner, parts: list[Indices], num_examples: int) -> None:
    """A broken partitioner stops here instead of training on the wrong data."""
    together, clients = np.concatenate(parts), by.num_clients
    inside = bool(together.size) and together.min() >= 0 and together.max() < num_examples
    if len(parts) != clients or not inside or np.unique(together).size != together.size:
        raise AssertionError("a partitioner gave parts that overlap or leave the range of examples")
    if by.deals_all() and together.size < num_examples:
        raise AssertionError(
            f"partitioner {by.name!r} dealt {together.size} of {num_examples} examples, and promises all"
        )
    empty = [client for client, part in enumerate(parts) if part.size == 0]
    if empty:
        raise BadValue(
            f"clients {empty[:5]} of {clients} would hold no example",
            "give fewer clients, a less skewed split, or more examples",
        )
