"""The lesson on directions and magnitudes (FedLoRA-Optimizer): two vectors in the plane, and small runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fedlora_kit.adapter import State
from fedlora_kit.looks import DOUBLE, FAINT, of_method
from fedlora_kit.methods import ClientUpdate, Method, method
from fedlora_kit.papers.lessons.small import digits_run
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("lora", "fedlora-optimizer")
NAME = "plane.lora_A.weight"
#: of every run: examples at the server, and each client's share that scores its own adapter
DATA = {"server_examples": 40, "client_holdout": 0.2}
LABELS = {"lora": "averaged as it is (FedIT)", "fedlora-optimizer": "averaged by component"}


def plane(angle: float, length: float) -> torch.Tensor:
    """A row of A with two entries, (1, 2): so long, and turned by so many degrees."""
    turn = math.radians(angle)
    return torch.tensor([[length * math.cos(turn), length * math.sin(turn)]])


def average(rule: Method, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """What a method makes of the rows of equally large clients, (1, 2)."""
    start: State = {NAME: torch.tensor([[1.0, 0.0]])}
    return rule.aggregate(start, [ClientUpdate(k, 1, {NAME: row}) for k, row in enumerate(rows)])[NAME]


def lengths(angles: Sequence[float]) -> pd.DataFrame:
    """Length of the average of two rows of length 1, so many degrees apart: columns method, angle, length."""
    return pd.DataFrame(
        {
            "method": name,
            "angle": angle,
            "length": float(average(method(name), [plane(-angle / 2, 1), plane(angle / 2, 1)]).norm()),
        }
        for name in METHODS
        for angle in angles
    )


def cells(seeds: int) -> list[Cell]:
    """LoRA and FedLoRA-Optimizer on the same split: three rounds, server examples and held-out ones for both.

    Raises:
        BadValue: fewer than one seed.
    """
    return [
        Cell({"method": name}, {}, seed, described(name, seed))
        for name in METHODS
        for seed in checked_seeds(seeds)
    ]


def described(name: str, seed: int = 0, rounds: int = 3, **settings: Any) -> Any:
    """One of the lesson's runs (a `RunSpec`), with settings of the method."""
    return digits_run(name, seed=seed, rounds=rounds, settings=settings, data=DATA, eval_every=0)


def figure(rows: Sequence[torch.Tensor], curve: pd.DataFrame) -> Figure:
    """Left: two clients' rows and their averages as arrows. Right: length of the average over the angle.

    Args:
        rows: each (1, 2).
        curve: from `lengths`.
    """
    from matplotlib import pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 2.9), width_ratios=(1, 1.15))
    for k, row in enumerate(rows):
        _arrow(left, row, FAINT)
        x, y = (float(v) for v in row[0])
        left.annotate(f"client {k}", (x, y), (4, 2), textcoords="offset points", fontsize=7, color=FAINT)
    for name in METHODS:
        _arrow(left, average(method(name), rows), of_method(name).colour)
    reach = 1.12 * max(float(row.abs().max()) for row in rows)
    left.set(xlim=(-0.12 * reach, reach), ylim=(-0.12 * reach, reach), aspect="equal")
    left.set(xlabel="first entry of the row", ylabel="second entry")
    for name in METHODS:
        line = curve[curve["method"] == name]
        right.plot(line["angle"], line["length"], color=of_method(name).colour, label=LABELS[name])
    right.set(
        xlabel="angle between two clients' rows, degrees", ylabel="length of their average", ylim=(0, 1.1)
    )
    right.set_xticks(np.arange(0, 181, 45))
    right.legend(loc="lower left")
    return fig


def _arrow(place: Any, row: torch.Tensor, colour: str) -> None:
    x, y = (float(v) for v in row[0])
    place.annotate(
        "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkB": 0}
    )


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(tuple(cells(3 if seeds is None else seeds)))
