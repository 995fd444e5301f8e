"""Examples that no client trains on: a method's proxy examples, the server's, a client's own for scoring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.errors import BadValue
from fedlora_kit.randomness import Streams

Indices = npt.NDArray[np.int64]


def set_aside(
    train: EncodedData, proxy_examples: int, streams: Streams, proxy: str = "random"
) -> tuple[EncodedData, EncodedData | None]:
    """Training examples without the proxy examples, and the proxy examples (None if none are asked for).

    They are drawn from the stream "subset", so that partition and cohorts are drawn as without them.

    Args:
        proxy: "random", or "balanced": equally many of each class, as far as there are enough; classes drawn
            at random get the examples that are over.

    Raises:
        BadValue: more proxy examples than training examples.
    """
    if not proxy_examples:
        return train, None
    if proxy_examples >= len(train):
        raise BadValue(
            f"proxy_examples={proxy_examples} leaves none of {len(train)} training examples",
            "set fewer aside: method.settings.proxy_examples",
        )
    rng = streams.generator("subset", "proxy")
    order = rng.permutation(len(train))
    if proxy == "balanced":
        order = _classes_in_turn(order, train.labels, rng)
    chosen, rest = np.sort(order[:proxy_examples]), np.sort(order[proxy_examples:])
    return train.subset(rest), train.subset(chosen)


def _classes_in_turn(order: Indices, labels: Indices, rng: np.random.Generator) -> Indices:
    """A shuffled order in which the classes take turns: one of each, then a second of each, …"""
    turn = np.empty(len(order))  # how many of its class come before it, ties broken at random a class
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        turn[mine] = np.arange(mine.size) + rng.random(mine.size)
    return order[np.argsort(turn, kind="stable")]


def set_aside_evenly(
    train: EncodedData, server_examples: int, streams: Streams
) -> tuple[EncodedData, EncodedData | None]:
    """Training examples without the server's, and the server's (None if none are asked for).

    Raises:
        BadValue: more examples for the server than there are.
    """
    if not server_examples:
        return train, None
    if server_examples >= len(train):
        raise BadValue(
            f"data.server_examples={server_examples} leaves none of {len(train)} training examples",
            "set fewer aside",
        )
    rng = streams.generator("subset", "server")
    order = _classes_in_turn(rng.permutation(len(train)), train.labels, rng)
    chosen, rest = np.sort(order[:server_examples]), np.sort(order[server_examples:])
    return train.subset(rest), train.subset(chosen)


def hold_out(
    data: EncodedData, share: float, streams: Streams, client: int
) -> tuple[EncodedData, EncodedData | None]:
    """What a client trains on, and its own examples to score it with (None if it has none to spare).

    The number is the nearest to share * n, at least 1 and at most n - 1; a client with one example keeps it.
    """
    if not share or len(data) < 2:
        return data, None
    count = min(max(1, round(share * len(data))), len(data) - 1)
    order = streams.generator("subset", "client", client).permutation(len(data))
    return data.subset(np.sort(order[count:])), data.subset(np.sort(order[:count]))
