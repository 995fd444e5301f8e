"""The first lesson: does the pre-training under an adapter matter?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.errors import UnknownName
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.papers.ffa_lora.grid import SHARES
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished

_RUNS: dict[str, dict[str, Any]] = {
    "text": {
        "model": {"backbone": "kit/text-tiny"},
        "data": {"task": "polarity", "eval_limit": 300},
        "split": {
            "partitioner": "label_shares",
            "clients": 3,
            "settings": {"shares": [list(row) for row in SHARES[2]]},
        },
        "local": {"lr": 0.6, "steps": 5, "batch_size": 32},
        "rounds": {"rounds": 6},
    },
    "image": {
        "model": {"backbone": "kit/image-tiny"},
        "data": {"task": "digits", "eval_limit": 300},
        "split": {"partitioner": "dirichlet", "clients": 3, "settings": {"alpha": 0.5}},
        "local": {"lr": 0.3, "steps": 5, "batch_size": 32},
        "rounds": {"rounds": 6},
    },
}
_CHANCE = {"text": 50.0, "image": 10.0}

DEVIATIONS = [
    "This lesson belongs to no paper: tasks, backbones and settings are the kit's own.",
    "The random backbone is trained with the learning rate that suits the pre-trained one; it was not tuned.",
    "The text backbone was pre-trained on sentences of the task's own grammar (never the scored ones), each "
    "with a remark that tells of the same relation: closer to the task than ordinary pre-training.",
    "The image backbone has seen other images of the same digits, in other poses.",
]


def description(modality: str, *, weights: str, seed: int) -> dict[str, Any]:
    """One run of the lesson, ready for `RunSpec.parse`.

    Args:
        modality: "text" or "image".
        weights: "pretrained" or "random".
    """
    if modality not in _RUNS:
        raise UnknownName("modality", modality, _RUNS)
    base = _RUNS[modality]
    return {
        **base,
        "model": {**base["model"], "weights": weights},
        "method": {"name": "lora"},
        "seed": seed,
    }


def cases(seeds: int) -> list[tuple[str, str, int]]:
    """(modality, weights, seed) of every run of the lesson, seeds counted from 0.

    Raises:
        BadValue: fewer than one seed.
    """
    return [(m, w, seed) for m in _RUNS for w in ("pretrained", "random") for seed in checked_seeds(seeds)]


def chance(modality: str) -> float:
    """Accuracy of guessing, %."""
    return _CHANCE[modality]


def curves(cases: Sequence[tuple[str, str, int]], finished: Sequence[Finished]) -> pd.DataFrame:
    """Accuracy after every round.

    Returns:
        Columns task, backbone, seed, key, round, accuracy (%).
    """
    return pd.DataFrame(
        {
            "task": modality,
            "backbone": weights,
            "seed": seed,
            "key": done.key,
            "round": record["round"] + 1,
            "accuracy": 100 * record["eval"]["validation"]["accuracy"],
        }
        for (modality, weights, seed), done in zip(cases, finished, strict=True)
        if done.entry is not None
        for record in done.entry.history
    )


def claims() -> list[Claim]:
    """Pre-training helps, for each modality."""
    return [
        Claim(
            f"pretraining_{modality}",
            f"LoRA on the pre-trained backbone beats LoRA on a random one ({modality})",
            "this kit",
            "own check",
            lambda r, m=modality: mean_difference(  # type: ignore[misc]
                r[r["task"] == m],
                "accuracy",
                better={"backbone": "pretrained"},
                worse={"backbone": "random"},
                within=["task"],
            ),
        )
        for modality in _RUNS
    ]


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs, the same in every profile."""
    return Runs(
        tuple(
            Cell(
                {"task": modality, "backbone": weights},
                {},
                seed,
                RunSpec.parse(description(modality, weights=weights, seed=seed)),
            )
            for modality, weights, seed in cases(3 if seeds is None else seeds)
        )
    )
