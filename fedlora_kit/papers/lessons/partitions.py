"""The lesson on partitions: splits beside each other, and how far the clients' labels are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedlora_kit.errors import BadValue
from fedlora_kit.looks import DOUBLE
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.lessons.small import digits_run, dirichlet
from fedlora_kit.partition import Partitioner, label_counts, partitioner
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: name -> split, as a run describes it, over five clients
SPLITS: dict[str, dict[str, Any]] = {
    "IID": {"partitioner": "iid", "clients": 5},
    "Dirichlet 1": dirichlet(1.0, 5),
    "Dirichlet 0.1": dirichlet(0.1, 5),
    "2 classes a client": {
        "partitioner": "pathological",
        "clients": 5,
        "settings": {"classes_per_client": 2},
    },
}


def label_distance(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How far each client's labels are from those of all clients together: total variation distance.

    d_k = 1/2 sum_c |p_k(c) - p(c)|, p_k the client's label shares and p those of all examples that are held.
    It is the share of a client's examples that would have to be exchanged to make its labels like
    everybody's: 0 for alike labels, at most 1.

    Args:
        counts: (clients, classes) examples, as `partition.label_counts` gives them.

    Returns:
        (clients,) in [0, 1].

    Raises:
        BadValue: not such a table, or a client without any example.

    >>> label_distance([[4, 0], [0, 4]]).tolist()
    [0.5, 0.5]
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape or (table < 0).any() or (table.sum(axis=1) == 0).any():
        raise BadValue(
            f"counts of shape {table.shape} have no label shares",
            "give (clients, classes), nobody without examples",
        )
    own = table / table.sum(axis=1, keepdims=True)
    together = table.sum(axis=0) / table.sum()
    return np.asarray(np.abs(own - together).sum(axis=1) / 2, dtype=np.float64)


def mean_distance(counts: npt.ArrayLike) -> float:
    """`label_distance`, averaged over the clients with their numbers of examples as weights."""
    return float(np.average(label_distance(counts), weights=np.asarray(counts).sum(axis=1)))


def what_they_do() -> pd.DataFrame:
    """Every partitioner with the first sentence of its docstring: columns partitioner, what it does."""
    known = {cls.name: (cls.__doc__ or "").strip().splitlines()[0] for cls in Partitioner.__subclasses__()}
    known = {name: said.replace("``", "") for name, said in known.items()}
    return pd.DataFrame(sorted(known.items()), columns=["partitioner", "what it does"])


def counts_of(split: Mapping[str, Any], labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.int64]:
    """(clients, classes) of a split that is written as a run describes it."""
    made = partitioner(
        split["partitioner"], num_clients=split["clients"], seed=seed, **split.get("settings", {})
    )
    return label_counts(made.split(labels), labels)


def dial(labels: npt.ArrayLike, alphas: Sequence[float], clients: int, seeds: int) -> pd.DataFrame:
    """The mean distance of Dirichlet splits.

    Returns:
        Columns alpha, seed, distance; the IID splits stand there with alpha infinite.
    """
    splits = [(alpha, dirichlet(alpha, clients)) for alpha in alphas]
    splits.append((float("inf"), {"partitioner": "iid", "clients": clients}))
    return pd.DataFrame(
        {"alpha": alpha, "seed": seed, "distance": mean_distance(counts_of(split, labels, seed))}
        for alpha, split in splits
        for seed in checked_seeds(seeds)
    )


def cells(seeds: int) -> list[Cell]:
    """LoRA for three rounds on each of `SPLITS`.

    Raises:
        BadValue: fewer than one seed.
    """
    return [
        Cell({"method": "lora", "split": name}, {}, seed, digits_run(seed=seed, split=split, eval_every=0))
        for name, split in SPLITS.items()
        for seed in checked_seeds(seeds)
    ]


def claims() -> list[Claim]:
    """Over the last rounds of `cells`, with a column accuracy."""
    return [
        Claim(
            f"costs_{name.lower().replace(' ', '_').replace('.', '_')}",
            f"unlike labels cost accuracy: after the same three rounds, IID is above {name}",
            "this kit",
            "own check",
            lambda r, other=name: mean_difference(  # type: ignore[misc]
                r, "accuracy", better={"split": "IID"}, worse={"split": other}, within=["method"]
            ),
        )
        for name in SPLITS
        if name != "IID"
    ]


def figure(splits: Mapping[str, npt.ArrayLike]) -> Figure:
    """Splits beside each other: clients × classes, the darker the more examples.

    Args:
        splits: heading -> (clients, classes) counts.
    """
    from matplotlib import pyplot as plt

    tables = {name: np.asarray(counts) for name, counts in splits.items()}
    most = max(int(table.max()) for table in tables.values())
    columns = 3
    rows = -(-len(tables) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(DOUBLE, 0.3 + 1.9 * rows), sharex=True, sharey=True)
    for place, (name, table) in zip(axes.flat, tables.items(), strict=False):
        image = place.imshow(table, cmap="Blues", vmin=0, vmax=most, aspect="auto", interpolation="none")
        place.set_title(f"{name}\nmean distance {fixed(mean_distance(table))}", fontsize=8)
        place.set_xticks(range(0, table.shape[1], 3))
        place.set_yticks(range(0, table.shape[0], 3))
        place.grid(False)
    for place in list(axes.flat)[len(tables) :]:
        place.set_visible(False)
    for place in axes[-1]:
        place.set_xlabel("label")
    for place in axes[:, 0]:
        place.set_ylabel("client")
    fig.colorbar(image, ax=axes, label="examples", shrink=0.7)
    return fig


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(tuple(cells(3 if seeds is None else seeds)))
