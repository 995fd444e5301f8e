"""FFA-LoRA, Table 3: ranks 2 to 16, with trained parameters and bytes sent a round, without DP."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedlora_kit.data.tasks import get_task
from fedlora_kit.papers.ffa_lora import table1
from fedlora_kit.papers.ffa_lora.claims import half_claims
from fedlora_kit.papers.ffa_lora.experiment import Experiment
from fedlora_kit.papers.ffa_lora.grid import Setting
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.equivalence import exact_ratio

RANKS = (2, 4, 8, 16)
SWEEP: dict[str, Any] = {"epsilons": (None,), "ranks": RANKS, "alphas": (None,)}
PROFILES: dict[str, Setting] = {
    "paper": dataclasses.replace(table1.PROFILES["paper"], **SWEEP),
    "small": dataclasses.replace(table1.PROFILES["small"], **SWEEP),
    "laptop": dataclasses.replace(table1.PROFILES["laptop"], **SWEEP, tasks=("sst2",)),
    "smoke": dataclasses.replace(table1.PROFILES["smoke"], **SWEEP, tasks=("entailment", "polarity")),
}
EXPERIMENT = Experiment("ffa-lora/table3", ("rank", "method"), PROFILES)
runs = EXPERIMENT.runs
#: MNLI's parts, and those of its stand-in
MNLI = [part for task in ("mnli", "entailment") for part in get_task(task).parts]
DEVIATIONS = (
    "α = r at every rank, so that the scale α / r stays 1; the paper gives α = 8 for r = 8 and nothing for "
    "the other ranks.",
    "The columns are those of Table 1; which of them Table 3 has is only partly known.",
)


def claims() -> list[Claim]:
    """What the known cells of Table 3 say, as predicates over `study.grid.results_frame`."""
    lora, ffa = {"method": "lora"}, {"method": "ffa-lora"}
    return [
        *half_claims(["rank", "task"]),
        Claim(
            "same_size",
            "FFA-LoRA at r = 16 trains exactly as many parameters as LoRA at r = 8",
            "Table 3 (1.57M)",
            "DERIVED from 1.57M",
            lambda r: exact_ratio(
                r,
                "trained_parameters",
                numerator={**ffa, "rank": "16"},
                denominator={**lora, "rank": "8"},
                ratio=1.0,
                within=["task"],
            ),
        ),
        Claim(
            "mnli_same_size",
            "on MNLI, LoRA at r = 8 is more accurate than FFA-LoRA at r = 16",
            "Table 3 (87.01 and 87.33 against 85.82 and 86.38)",
            "DERIVED from four cells that are SEEN",
            lambda r: mean_difference(
                r,
                "accuracy",
                better={**lora, "rank": "8", "task": MNLI},
                worse={**ffa, "rank": "16", "task": MNLI},
                within=["task"],
            ),
        ),
    ]
