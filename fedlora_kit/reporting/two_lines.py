"""A figure and a LaTeX table of any runs, in two lines: no item, no paper is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fedlora_kit import looks
from fedlora_kit.reporting.latex import tabular
from fedlora_kit.reporting.rounds import lines_of, score_of, title_of
from fedlora_kit.reporting.style import mean_band, set_style
from fedlora_kit.study import words
from fedlora_kit.study.grid import mean_std_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score_over_rounds(frame: pd.DataFrame, by: str = "method", score: str | None = None) -> Figure:
    """A score over the rounds: the mean over seeds, with its 95 % interval (Student's t) as a band.

    Args:
        frame: from `rounds.runs_frame`.
        by: the column that parts the lines.
        score: the column to draw; the accuracy of the only scored part if not given.

    Raises:
        BadValue: runs of one line differ in more than the seed, or a round of one line is scored by some of
            its runs only; the score is not named where there are several.
        UnknownName: no such column.
    """
    from matplotlib import pyplot

    column, lines = score_of(frame, score), lines_of(frame, by)
    set_style()
    figure, axes = pyplot.subplots(figsize=(looks.SINGLE, 2.5))
    pyplot.close(figure)  # the caller shows it; no second picture in a notebook
    for at, (name, rows) in enumerate(lines.items()):
        look = looks.of_method(name)
        if by != "method":
            dashes = ("-", "--", "-.", ":")
            colour = looks.SERIES[at % len(looks.SERIES)]
            look = looks.Look(title_of(by, name), colour, "None", dashes[at % 4])
        mean_band(axes, rows.dropna(subset=[column]), "round", column, look)
    seeds = sorted({int(rows["seed"].nunique()) for rows in lines.values()})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    axes.set_xlabel(f"round (mean and 95 % interval of {counted} seeds)" if seeds[-1] > 1 else "round")
    axes.set_ylabel(column if column.endswith("loss") else f"{column} (%)")
    axes.legend()
    return figure


def latex_table(
    frame: pd.DataFrame, columns: str | None = None, by: str = "method", score: str | None = None
) -> str:
    """The score after the last round as "mean ± std" over seeds, as a booktabs tabular.

    Args:
        frame: from `rounds.runs_frame`.
        columns: the field that parts the columns, such as "epsilon"; one column if not given.
        by: the field that parts the rows.
        score: as in `score_over_rounds`.

    Raises:
        BadValue, UnknownName: as in `score_over_rounds`.
    """
    column = score_of(frame, score)
    cells = [frame] if columns is None else list(lines_of_columns(frame, columns).values())
    for cell in cells:
        lines_of(cell, by)
    last = frame.dropna(subset=[column]).sort_values("round").groupby("key", sort=False).tail(1)
    last = last.assign(**{"": column}) if columns is None else last
    table = words.frame(mean_std_table(last.sort_index(), [by], columns or "", value=column))
    body = [[str(cell) if cell == cell else "–" for cell in row] for row in table.itertuples(index=False)]
    return tabular([str(name) for name in table.columns], body, [i > 0 for i in range(table.shape[1])])


def lines_of_columns(frame: pd.DataFrame, columns: str) -> dict[str, pd.DataFrame]:
    """The frame by the value of one field, which then no longer counts as one in which runs differ."""
    if columns not in frame.columns:
        lines_of(frame, columns)  # the error with the columns there are
    parts = {str(name): rows for name, rows in frame.groupby(columns, sort=False, dropna=False)}
    for rows in parts.values():
        rows.attrs["differ"] = [field for field in frame.attrs.get("differ", []) if field != columns]
    return parts
