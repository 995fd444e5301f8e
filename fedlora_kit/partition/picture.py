"""The picture of a split: clients × labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
)  # Okabe and Ito: safe for colour-blind eyes


def partition_figure(
    counts: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    *,
    what: str = "label",
) -> Figure:
    """Who holds how much of what.

    Up to five classes: one bar a client, stacked by class. More: a circle for every client and class, its
    area in proportion to the number of examples.

    Args:
        counts: (clients, classes) examples, as :func:`label_counts` gives them.
        class_names: a name a class; its number if not given.
        title: printed above.
        what: what the classes are: "label", or "domain" for counts of domains.

    Raises:
        BadValue: counts not a table of non-negative numbers, or not as many names as classes.
    """
    from matplotlib.figure import Figure

    table = np.asarray(counts)
    if table.ndim != 2 or 0 in table.shape or table.min() < 0:
        raise BadValue(
            f"counts of shape {table.shape} cannot be drawn", "give non-negative numbers, (clients, classes)"
        )
    names = [str(c) for c in (range(table.shape[1]) if class_names is None else class_names)]
    if len(names) != table.shape[1]:
        raise BadValue(f"{len(names)} class names for {table.shape[1]} classes", "give one name a class")
    bars = table.shape[1] <= len(_COLOURS)
    height = 1.3 + (0.3 if bars else 0.22) * min(max(table.shape[0], 3), 40)
    width = 6.0 if bars else 1.6 + 0.24 * min(max(table.shape[1], 10), 40)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    (_bars if bars else _bubbles)(axes, table, names, what)
    axes.set_ylabel("client")
    axes.set_yticks(_ticks(table.shape[0]))
    axes.set_ylim(table.shape[0] - 0.4, -0.6)  # client 0 on top, as in a table
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left")
    return figure


def _ticks(number: int) -> list[int]:
    return list(range(0, number, 1 if number <= 20 else 5 if number <= 50 else 10))


def _bars(axes: Axes, table: npt.NDArray[np.int64], names: list[str], what: str) -> None:
    left = np.zeros(table.shape[0])
    rows = np.arange(table.shape[0])
    for column, name in enumerate(names):
        # A white edge parts neighbours for readers who see no colours at all.
        axes.barh(
            rows,
            table[:, column],
            left=left,
            height=0.75,
            color=_COLOURS[column],
            label=name,
            edgecolor="white",
            linewidth=0.8,
        )
        left += table[:, column]
    axes.set_xlabel("examples")
    axes.tick_params(axis="y", length=0)
    axes.legend(title=what, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0.2)


def _bubbles(axes: Axes, table: npt.NDArray[np.int64], names: list[str], what: str) -> None:
    clients, classes = np.nonzero(table)
    held = table[clients, classes]
    cell = 200.0 * min(1.0, 55 / table.shape[0]) * min(1.0, 55 / table.shape[1])  # points² of the largest
    scale = cell / max(int(table.max()), 1)
    axes.scatter(classes, clients, s=held * scale, color=_COLOURS[0], alpha=0.85, linewidths=0)
    axes.set_xlabel(what)
    axes.set_xlim(-0.7, table.shape[1] - 0.3)
    ticks = _ticks(table.shape[1])
    axes.set_xticks(ticks, [names[tick] for tick in ticks])
    if max(map(len, names)) > 2:
        axes.tick_params(axis="x", rotation=90)
    axes.set_axisbelow(True)
    axes.grid(color="0.92", linewidth=0.6)
    top = int(table.max())
    shown = sorted({max(1, round(top / 4)), max(1, round(top / 2)), top})
    marks = [axes.scatter([], [], s=n * scale, color=_COLOURS[0], alpha=0.85, linewidths=0) for n in shown]
    axes.legend(
        marks,
        [f"{n:,}" for n in shown],
        title="examples",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        labelspacing=1.0,
        borderaxespad=0.2,
    )
