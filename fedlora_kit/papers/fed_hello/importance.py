"""The importance that Fed-HeLLo's Fisher scores give the layers, in finished runs, and how stable it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.study.grid import Cell

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished


def scores_frame(done: Sequence[tuple[Cell, Finished]], by: Sequence[str]) -> pd.DataFrame:
    """Every importance score that the runs wrote down: one row a run, refresh and layer.

    Args:
        by: coordinates of the cells to keep.

    Returns:
        ``by``, seed, key, round (from 1: the round that the refresh comes before), layer, score, share (of
        the sum over the layers at that refresh).
    """
    rows: list[dict[str, Any]] = []
    for one, run in done:
        place = {**{name: one.coords[name] for name in by}, "seed": one.seed, "key": run.key}
        for record in [] if run.entry is None else run.entry.history:
            scores = record.get("layer_scores", [])
            total = math.fsum(scores)
            for layer, score in enumerate(scores):
                share = score / total if total > 0 else math.nan
                rows.append(
                    {**place, "round": record["round"] + 1, "layer": layer, "score": score, "share": share}
                )
    return pd.DataFrame(rows, columns=[*by, "seed", "key", "round", "layer", "score", "share"])


def depth(done: Sequence[tuple[Cell, Finished]]) -> int | None:
    """Layers of the runs' model, as many as were scored; None if no run was scored."""
    layers = scores_frame(done, [])["layer"]
    return None if layers.empty else int(layers.max()) + 1


def rank_agreement(scores: pd.DataFrame, along: str, within: Sequence[str]) -> pd.DataFrame:
    """Spearman's rank correlation of the layers' scores between runs that differ in one coordinate.

    Args:
        scores: from `scores_frame`.
        along: the coordinate that differs, such as "seed"; every pair of its values is compared.
        within: what the two runs share, such as "round".

    Returns:
        ``within``, pairs, rho (mean over the pairs, in [-1, 1]; 0 is what unrelated ranks give on average),
        lowest. Empty where there is nothing to compare.
    """
    rows = []
    for place, group in scores.groupby(list(within), sort=False):
        table = group.pivot_table(index="layer", columns=along, values="score", sort=False)
        ranks = table.rank()
        found = [float(ranks[one].corr(ranks[other])) for one, other in combinations(table.columns, 2)]
        found = [rho for rho in found if not math.isnan(rho)]
        if found:
            rows.append(
                {
                    **dict(zip(within, place, strict=True)),
                    "pairs": len(found),
                    "rho": math.fsum(found) / len(found),
                    "lowest": min(found),
                }
            )
    return pd.DataFrame(rows, columns=[*within, "pairs", "rho", "lowest"])
