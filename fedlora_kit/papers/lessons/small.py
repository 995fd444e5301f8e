"""The small setting that the lessons share: turned digits, a small pre-trained ViT, a few clients.

A run takes about a second of one core. Nothing of it is tuned, and no paper is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.study.grid import Cell

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished

#: SGD's learning rate by method: FFA-LoRA's is larger, as in its paper's grids
RATES = {"ffa-lora": 1.0}
OTHER_RATE = 0.3
OWN = (
    "This lesson belongs to no paper's table: task, backbone and settings are the kit's own, small enough "
    "for a laptop, and not tuned."
)


def iid() -> dict[str, Any]:
    """Three clients with alike labels, as a run describes a split."""
    return {"partitioner": "iid", "clients": 3}


def dirichlet(alpha: float, clients: int = 3) -> dict[str, Any]:
    """A Dirichlet split, as a run describes it."""
    return {"partitioner": "dirichlet", "clients": clients, "settings": {"alpha": alpha}}


def digits_run(
    method: str = "lora",
    *,
    seed: int = 0,
    split: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    rounds: int = 3,
    steps: int = 5,
    lr: float | None = None,
    measure_gap: bool = False,
    eval_every: int = 1,
    lora: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    privacy: Mapping[str, Any] | None = None,
) -> RunSpec:
    """One run of the lessons' setting.

    Args:
        split: as a run describes it; Dirichlet(0.3) over three clients if None.
        settings: the method's own.
        lr: SGD's rate; None takes the lessons' (`RATES`).
        lora, data, privacy: further keys of a run's ``model.lora``, ``data`` and ``privacy``.

    Raises:
        UnknownName, BadValue: see `RunSpec.parse`.
    """
    return RunSpec.parse(
        {
            "model": {"backbone": "kit/image-tiny", "lora": dict(lora or {})},
            "data": {"task": "digits", "eval_limit": 200, **(data or {})},
            "split": dict(split or dirichlet(0.3)),
            "method": {"name": method, "settings": dict(settings or {})},
            "local": {
                "optimizer": "sgd",
                "lr": RATES.get(method, OTHER_RATE) if lr is None else lr,
                "steps": steps,
                "batch_size": 32,
            },
            "rounds": {"rounds": rounds, "measure_gap": measure_gap, "eval_every": eval_every},
            "privacy": None if privacy is None else dict(privacy),
            "seed": seed,
        }
    )


def rounds_frame(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """One row a run and round: the cells' coordinates, seed, key, round (from 1), and what it recorded.

    accuracy: %, NaN in a round without evaluation. gap: relative error of the aggregation, NaN where it was
    not measured. bytes_up: of all clients. epsilon: spent so far, NaN without DP.
    """
    rows = []
    for one, run in done:
        for record in [] if run.entry is None else run.entry.history:
            scores = record.get("eval", {}).get("validation", {})
            rows.append(
                {
                    **one.coords,
                    "seed": one.seed,
                    "key": run.key,
                    "round": record["round"] + 1,
                    "accuracy": 100 * scores.get("accuracy", float("nan")),
                    "gap": record.get("aggregation_gap", float("nan")),
                    "bytes_up": record["bytes_up"],
                    "epsilon": record.get("epsilon", float("nan")),
                }
            )
    return pd.DataFrame(rows)


def last_round(rounds: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last round."""
    return rounds[rounds["round"] == rounds.groupby("key")["round"].transform("max")].reset_index(drop=True)
