"""Examples that no client trains on: a method's proxy examples, the server's, a client's own for scoring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.errors import BadValue
from fedlora_kit.randomness import Streams

Indices = npt.NDArray[np.int64]


def proxy_rows(train: EncodedData, proxy_examples: int, streams: Streams, proxy: str = "random") -> Indices:
    """Positions of the proxy examples among the training examples, ascending; none if none are asked for.

    They are drawn from the stream "subset", over all training examples. Splits are made of all of them, too,
    and lose the proxy examples afterwards: clients hold the same at a seed, whatever the method.

    Args:
        proxy: "random", or "balanced": equally many of each class, as far as there are enough; classes drawn
            at random get the examples that are over.

    Raises:
        BadValue: more proxy examples than training examples.
    """
    if not proxy_examples:
        return np.empty(0, dtype=np.int64)
    if proxy_examples >= len(train):
        raise BadValue(
            f"proxy_examples={proxy_examples} leaves none of {len(train)} training examples",
            "set fewer aside: method.settings.proxy_examples",
        )
    rng = streams.generator("subset", "proxy")
    if proxy == "balanced":
        return evenly(train.labels, proxy_examples, rng)
    return np.sort(rng.permutation(len(train))[:proxy_examples])


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
    chosen = evenly(train.labels, server_examples, streams.generator("subset", "server"))
    rest = np.setdiff1d(np.arange(len(train)), chosen)
    return train.subset(rest), train.subset(chosen)


def evenly(labels: Indices, wanted: int, rng: np.random.Generator) -> Indices:
    """Positions of ``wanted`` examples, drawn in turn from every label that still has some; ascending.

    Labels drawn at random get the examples that are over.

    >>> labels = np.array([0, 0, 0, 0, 1, 1, 2])
    >>> labels[evenly(labels, 5, np.random.default_rng(0))].tolist()
    [0, 0, 1, 1, 2]
    """
    order = rng.permutation(len(labels))
    turn = np.zeros(len(labels), dtype=np.int64)  # how many of its label come before an example
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        turn[mine] = np.arange(len(mine))
    place = np.argsort(order)  # within a turn the labels come at random
    return np.sort(np.lexsort((place, turn))[:wanted])


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
