"""Curves over seeds as every figure of the kit draws them: the mean, and its 95 % interval as a band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fedlora_kit.looks import Look
from fedlora_kit.study.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def mean_band(
    axes: Axes,
    curves: pd.DataFrame,
    x: str,
    y: str,
    look: Look,
    width: float | None = None,
    mark: bool = False,
) -> None:
    """Draw the mean of ``y`` at each ``x`` as a line, with Student's 95 % interval around it as a band.

    Args:
        curves: one row a seed and ``x``, finite ``y``. Where a point has one seed there is no band.
        look: of the line; its title is the label.
        width: of the line in points; the style's if not given.
        mark: whether the points get the method's marker.
    """
    grouped = curves.groupby(x)[y]
    points = {float(at): values.to_numpy(float) for at, values in grouped}  # type: ignore[arg-type]
    style = {**look.line(), "label": look.title}
    if not mark:
        style["marker"] = "None"
    if width is not None:
        style["linewidth"] = width
    axes.plot(list(points), [float(values.mean()) for values in points.values()], **style)
    if all(at.is_integer() for at in points):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))  # no round 2.5
    bands = {at: mean_interval(values) for at, values in points.items() if values.size > 1}
    if bands:
        lower, upper = [b.lower for b in bands.values()], [b.upper for b in bands.values()]
        axes.fill_between(list(bands), lower, upper, color=look.colour, alpha=0.12, linewidth=0)
