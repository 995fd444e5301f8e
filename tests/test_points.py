"""Points of figures: where they lie, and which runs they lead to."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt

from fedlora_kit.reporting.evidence import Evidence, sources, trace
from fedlora_kit.reporting.points import Spot, points_of, trace_points
from fedlora_kit.reporting.tables import Table, read_table

KEYS = "".join(f"{i:x}" for i in range(16))


def runs(rounds: int = 0) -> pd.DataFrame:
    """Two methods, three seeds; by round where there are some."""
    rows = []
    for m, method in enumerate(("lora", "ffa-lora")):
        for seed in range(3):
            for at in range(1, max(rounds, 1) + 1):
                value = 40.125 + 7.31 * m + 1.7 * seed**2 + 3.03 * at + 0.1 * m * at**2
                rows.append((method, seed, f"{m}{seed}".ljust(16, "a"), at, value))
    frame = pd.DataFrame(rows, columns=["method", "seed", "key", "round", "accuracy"])
    return frame if rounds else frame.drop(columns="round")


def table(frame: pd.DataFrame, name: str, folder: Path) -> Table:
    frame.to_csv(folder / f"{name}.csv", index=False)
    return read_table(folder / f"{name}.csv")


def traced(fig: plt.Figure, *tables: Table) -> tuple[list[Spot], list[Evidence]]:
    fig.canvas.draw()
    return trace_points(points_of(fig), tables, "p")


def test_points_lie_where_they_are_drawn() -> None:
    fig, axes = plt.subplots(figsize=(4, 2))
    axes.set_position((0.25, 0.5, 0.5, 0.5))
    axes.errorbar([0, 1, 2], [10, 20, 30], yerr=1, capsize=3, label="seen")
    axes.axhline(20)
    axes.set(xlim=(0, 2), ylim=(10, 30))
    fig.canvas.draw()
    assert points_of(fig) == [
        (1, "seen", 0.0, 10.0, 25.0, 50.0),
        (1, "seen", 1.0, 20.0, 50.0, 25.0),
        (1, "seen", 2.0, 30.0, 75.0, 0.0),
    ]


def test_a_curve_leads_to_the_runs_of_its_line_and_one_of_others_nowhere(tmp_path: Path) -> None:
    frame = runs(rounds=6)
    fig, axes = plt.subplots()
    for method, rows in frame.groupby("method"):
        mean = rows.groupby("round")["accuracy"].mean()
        axes.plot(mean.index, mean, label=method)
    axes.plot(
        range(1, 7), [*frame["accuracy"][:2], 41, 42, 43, 44], label="official"
    )  # agrees in two by accident
    spots, found = traced(fig, table(frame, "curves", tmp_path))
    assert len(spots) == 12
    assert sorted(evidence.title for evidence in found) == ["FFA-LoRA", "LoRA"]
    for evidence in found:
        assert len({run[0] for run in evidence.runs}) == 3
        assert "mean of accuracy over 3 runs" in evidence.said
    assert [spot.first for spot in spots].count(True) == 2


def test_bars_per_cent_and_single_runs(tmp_path: Path) -> None:
    frame = runs()
    known = table(frame, "results", tmp_path)
    fig, (left, right) = plt.subplots(1, 2)
    left.bar(["a", "b"], frame.groupby("method", sort=False)["accuracy"].mean())
    right.scatter(frame["seed"], 100 * frame["accuracy"])
    spots, found = traced(fig, known)
    assert len(spots) == 8
    assert [len(evidence.runs) for evidence in found] == [3, 3, *[1] * 6]
    assert [evidence.runs[0][0] for evidence in found[2:]] == list(frame["key"])


def test_a_mean_that_is_also_one_runs_value_is_the_means(tmp_path: Path) -> None:
    frame = runs()
    frame["accuracy"] = [40.125, 50.125, 60.125, 41.25, 51.25, 61.25]
    fig, axes = plt.subplots()
    axes.plot([0, 1], [50.125, 51.25])
    _, found = traced(fig, table(frame, "results", tmp_path))
    assert [len(evidence.runs) for evidence in found] == [3, 3]


def test_what_two_sets_of_runs_give_leads_nowhere(tmp_path: Path) -> None:
    frame = runs()
    frame["accuracy"] = np.tile(frame["accuracy"][:3], 2)  # both methods alike
    fig, axes = plt.subplots()
    axes.bar(["lora"], [frame["accuracy"][:3].mean()])
    assert traced(fig, table(frame, "results", tmp_path)) == ([], [])


def test_a_number_of_a_table_lends_its_link(tmp_path: Path) -> None:
    frame = runs()
    ratio = frame["accuracy"][3:].mean() / frame["accuracy"][:3].mean()
    tables = [
        table(frame, "results", tmp_path),
        table(pd.DataFrame({"method": ["ffa-lora"], "ratio": [ratio]}), "ratios", tmp_path),
    ]
    assert list(trace(tables[1], sources(tables), "t"))
    fig, axes = plt.subplots()
    axes.plot([ratio], [0], "o", label="FFA-LoRA")
    spots, found = traced(fig, *tables)
    assert [spot.link for spot in spots] == ["#t-0-1"]
    assert found == []


@pytest.mark.parametrize("drawn", [[], [float("nan"), 1e9]])
def test_nothing_to_see_is_no_point(drawn: list[float]) -> None:
    fig, axes = plt.subplots()
    axes.plot(range(len(drawn)), drawn)
    axes.set_ylim(0, 1)
    fig.canvas.draw()
    assert points_of(fig) == []
