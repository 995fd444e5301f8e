"""FFA-LoRA, Table 5: rank and privacy on QNLI."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from fedlora_kit.papers import laptop
from fedlora_kit.papers.ffa_lora import table1
from fedlora_kit.papers.ffa_lora.claims import half_claims
from fedlora_kit.papers.ffa_lora.experiment import Experiment
from fedlora_kit.papers.ffa_lora.grid import Setting
from fedlora_kit.papers.ffa_lora.table3 import RANKS
from fedlora_kit.study.claims import Claim, mean_difference, smaller_drop

SWEEP: dict[str, Any] = {"epsilons": (6.0, 3.0, 1.0), "ranks": RANKS, "alphas": (None,), "tasks": ("qnli",)}
PROFILES: dict[str, Setting] = {
    "paper": dataclasses.replace(table1.PROFILES["paper"], **SWEEP),
    "small": dataclasses.replace(table1.PROFILES["small"], **SWEEP),
    "laptop": dataclasses.replace(
        table1.PROFILES["laptop"],
        **{**SWEEP, "tasks": ("sst2",)},
        private={**laptop.PRIVATE, "rounds": 2},
    ),
    "smoke": dataclasses.replace(table1.PROFILES["smoke"], **{**SWEEP, "tasks": ("answerable",)}),
}
EXPERIMENT = Experiment("ffa-lora/table5", ("eps", "rank", "method"), PROFILES)
runs = EXPERIMENT.runs
DEVIATIONS = (
    "α = r at every rank, so that the scale α / r stays 1; the paper gives α = 8 for r = 8 and nothing for "
    "the other ranks.",
)


def bounds(results: pd.DataFrame) -> pd.DataFrame:
    """The worst and the best rank of each method and privacy level: what the paper's text quotes for FFA-
    LoRA.

    Args:
        results: from `study.grid.results_frame`.

    Returns:
        The rows of those ranks, with the coordinates of the published cells: ``rank`` "2..16" and ``bound``
        "min" or "max" (of the means over seeds). No rows unless all ranks of the table were run.
    """
    ranks = sorted(set(results["rank"]), key=int)
    if ranks != [str(r) for r in RANKS]:
        return results.iloc[:0].assign(bound="")
    spans = f"{ranks[0]}..{ranks[-1]}"
    found = []
    for _, rows in results.dropna(subset=["accuracy"]).groupby(["eps", "method", "task"], sort=False):
        means = rows.groupby("rank", sort=False)["accuracy"].mean()
        for bound, rank in (("min", means.idxmin()), ("max", means.idxmax())):
            found.append(rows[rows["rank"] == rank].assign(rank=spans, bound=bound))
    return pd.concat(found, ignore_index=True) if found else results.iloc[:0].assign(bound="")


def claims(epsilons: tuple[float | None, ...] = (6.0, 3.0, 1.0)) -> list[Claim]:
    """What the known cells of Table 5 say, as predicates over `study.grid.results_frame`."""
    lora, ffa = {"method": "lora"}, {"method": "ffa-lora"}
    names = [f"{e:g}" for e in epsilons if e is not None]
    return [
        *half_claims(["eps", "rank", "task"]),
        *(
            Claim(
                f"better_eps{e}",
                f"at epsilon = {e}, FFA-LoRA is more accurate than LoRA over the ranks",
                "Table 5",
                "SEEN at epsilon = 1; the other levels are not known",
                lambda r, e=e: mean_difference(  # type: ignore[misc]
                    r,
                    "accuracy",
                    better={**ffa, "eps": e},
                    worse={**lora, "eps": e},
                    within=["rank", "task"],
                ),
            )
            for e in names
        ),
        Claim(
            "lora_needs_rank",
            "at epsilon = 1, LoRA is more accurate at r = 16 than at r = 2",
            "Table 5 (80.54 against 58.15)",
            "DERIVED from two cells that are SEEN",
            lambda r: mean_difference(
                r,
                "accuracy",
                better={**lora, "eps": "1", "rank": "16"},
                worse={**lora, "eps": "1", "rank": "2"},
                within=["task"],
            ),
        ),
        Claim(
            "ffa_needs_it_less",
            "at epsilon = 1, FFA-LoRA loses less accuracy from r = 16 to r = 2 than LoRA",
            "Table 5 (81.87 to 83.01 over all ranks)",
            "DERIVED from cells and a range that are SEEN",
            lambda r: smaller_drop(
                r,
                "accuracy",
                better={**ffa, "eps": "1"},
                worse={**lora, "eps": "1"},
                before={"rank": "16"},
                after={"rank": "2"},
                within=["task"],
            ),
        ),
    ]
