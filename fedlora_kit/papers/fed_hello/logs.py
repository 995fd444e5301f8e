"""Fed-HeLLo's official logs (CIFAR-100, 15 runs), and how far the replay agrees with them.

The logs do not print cohorts or layers, but they give two shadows of them: how many clients trained in a
round of Exclusive, and the median norm of a round's updates. Every client takes one AdamW step a round at
lr 0.0099, which moves each trained number by about the lr whatever its gradient: the norm of an update
is 0.0099 sqrt(parameters), 7.603 for all 12 layers, and so counts the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fedlora_kit import paths
from fedlora_kit.errors import FedloraError
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.fed_hello.replay import (
    FIRST_FIM_ROUND,
    LAYERS,
    ReplayedRound,
)

FULL_NORM = 7.603
"""Norm of one sign-like AdamW step on all 12 layers: 0.0099 sqrt(589,824) (rank 16, q and v)."""
NO_CLIENT = 100.0
"""What the released code logs as the median norm of a round in which no client trained."""
FIRST_ROUND = 3
"""Before it B is still so small that part of A's gradients vanish: the norm does not count layers yet."""
_FILES = {
    "fed_hello_curves.csv": "split,method,round,train_loss,median_update_norm,test_accuracy",
    "fed_hello_cohorts.csv": "split,round,training_clients",
}


@dataclass(frozen=True)
class Agreement:
    """How many rounds of a log a replay predicts.

    Attributes:
        what: what is compared, in words.
        matched: rounds that agree.
        compared: rounds that the log allows to compare.
        misses: the rounds that do not agree.
    """

    what: str
    compared: int
    misses: tuple[int, ...]

    @property
    def matched(self) -> int:
        """Rounds that agree."""
        return self.compared - len(self.misses)

    def __str__(self) -> str:
        rate = f" ({fixed(100 * self.matched / self.compared, 1)} %)" if self.compared else ""
        return f"{self.what}: {self.matched} of {self.compared} rounds agree{rate}"


def curves() -> pd.DataFrame:
    """All 15 official logs: split, method, round, train_loss, median_update_norm, test_accuracy.

    Accuracies in [0, 1]; rounds from 0.

    Raises:
        FedloraError: the file is missing or has other columns.
    """
    return _read("fed_hello_curves.csv")


def training_clients() -> pd.DataFrame:
    """Clients that trained in rounds 0-49 of the Exclusive runs: split, round, training_clients.

    Raises:
        FedloraError: the file is missing or has other columns.
    """
    return _read("fed_hello_cohorts.csv")


def layers_of_norm(norm: float) -> float:
    """Layers that a logged median update norm stands for: 12 (norm / 7.603)^2.

    >>> round(layers_of_norm(6.584), 1), round(layers_of_norm(5.367), 1)
    (9.0, 6.0)
    """
    return LAYERS * (norm / FULL_NORM) ** 2


def agreements(split: str, method: str, replayed: Sequence[ReplayedRound]) -> list[Agreement]:
    """Set a replay beside the official log of the same run, as far as the log reaches.

    Exclusive: the number of training clients (rounds 0-49), and which rounds had none (all 500: the norm is
    then logged as 100). Fed-HeLLo: the median number of trained layers (rounds 3-49, nearest integer).

    Args:
        replayed: from `fed_hello.replay.replay`, for the same split and method.
    """
    logs = curves()
    run = logs[(logs["split"] == split) & (logs["method"] == method)]
    norms = {int(r): float(n) for r, n in zip(run["round"], run["median_update_norm"], strict=True)}
    by_round = {r.round_index: r for r in replayed if r.cohort is not None}
    if method == "exclusive":
        counts = training_clients()
        counts = counts[counts["split"] == split]
        logged = dict(zip(counts["round"], counts["training_clients"], strict=True))
        return [
            _compare("clients that train", {i: r.training_clients for i, r in by_round.items()}, logged),
            _compare(
                "rounds without a client",
                {i: r.training_clients == 0 for i, r in by_round.items()},
                {i: norm == NO_CLIENT for i, norm in norms.items()},
            ),
        ]
    rounds = range(FIRST_ROUND, FIRST_FIM_ROUND)
    return [
        _compare(
            "median number of trained layers",
            {i: r.median_layers for i, r in by_round.items()},
            {i: round(layers_of_norm(norms[i])) for i in rounds},
        )
    ]


def _compare(
    what: str, predicted: dict[int, int | None] | dict[int, bool], logged: dict[int, int]
) -> Agreement:
    rounds = sorted(predicted.keys() & logged.keys())
    return Agreement(what, len(rounds), tuple(i for i in rounds if predicted[i] != logged[i]))


def _read(name: str) -> pd.DataFrame:
    where = paths.data_dir() / "reported" / name
    if not where.is_file():
        raise FedloraError(
            f"the official logs are missing: {where}",
            "restore the file from the repository, or set FEDLORA_HOME",
        )
    frame = pd.read_csv(where)
    if ",".join(frame.columns) != _FILES[name]:
        raise FedloraError(f"{where} has other columns than {_FILES[name]}", "restore it from the repository")
    return frame
