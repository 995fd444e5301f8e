"""A table of FFA-LoRA: what it varies, its size in each profile, its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedlora_kit.papers.ffa_lora.grid import Setting, cell, points, rates_of, under
from fedlora_kit.papers.ffa_lora.overrides import apply
from fedlora_kit.study.grid import Cell, choose, grid_frame
from fedlora_kit.study.planned import Runs


@dataclass(frozen=True)
class Experiment:
    """One table: its item, the coordinates that name its rows, and its size in each profile."""

    item: str
    axes: tuple[str, ...]
    profiles: Mapping[str, Setting]

    @property
    def by(self) -> list[str]:
        """Coordinates of a cell, the data set last: what learning rate and clip are chosen for."""
        return [*self.axes, "dataset"]

    def setting(self, profile: str, **overrides: Any) -> Setting:
        """The setting of a profile with some values replaced; see `overrides.apply`."""
        return apply(self.item, self.profiles, profile, overrides)

    def comparable(self, s: Setting) -> bool:
        """Whether this is the paper's own setting."""
        return s == self.profiles["paper"]

    def grid(self, s: Setting) -> list[Cell]:
        """Every run of the learning-rate and clipping grids, at the tuning seeds."""
        return [
            cell(s, at, seed, lr, clip, self.axes)
            for at in points(s)
            for lr in rates_of(under(s, at.epsilon).rates, at.method)
            for clip in (s.clips if at.epsilon is not None else (None,))
            for seed in s.tuning_seeds
        ]

    def table(self, s: Setting, chosen: pd.DataFrame) -> list[Cell]:
        """The table's own runs: the chosen setting of each cell, at every reported seed.

        Args:
            chosen: from `study.grid.choose` by ``self.by``.
        """
        best = {tuple(row[name] for name in self.by): row for row in chosen.to_dict("records")}
        cells = []
        for at in points(s):
            row = best[(*(at.coords()[name] for name in self.axes), at.task)]
            clip = None if at.epsilon is None else float(row["clip"])
            cells += [cell(s, at, seed, float(row["lr"]), clip, self.axes) for seed in s.seeds]
        return cells

    def runs(self, profile: str, **overrides: Any) -> Runs:
        """The grid's runs, then the table's with what the finished grid chooses."""
        s = self.setting(profile, **overrides)
        return Runs(
            tuple(self.grid(s)),
            lambda done: self.table(s, choose(grid_frame(done), self.by, ["lr", "clip"])),
        )
