"""What Fed-HeLLo's tables beyond CIFAR-100 have in common: claims without numbers, and what is unknown."""

from __future__ import annotations

from collections.abc import Sequence

from fedlora_kit.papers.fed_hello.grid import SPLITS, Setting
from fedlora_kit.papers.fed_hello.table2 import BASELINES, WORDS
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.known_methods import look

ROC = "1:1:1"
FOUNDATION = "SECOND: the direction; the numbers are UNKNOWN"
#: what holds for every data set but CIFAR-100
TAKEN_OVER = (
    "The released settings and logs are those of CIFAR-100 alone. Clients, cohort, rounds, learning rate "
    "and its decay, rank, α, dropout, the single step a round, and the groups that train 6, 9 and 12 of 12 "
    "layers are taken over from there: UNKNOWN for this data set.",
    "The splits are Table II's in proportion, 20 % and 10 % of the classes a client: UNKNOWN, as is "
    "whether the paper's table has the same three.",
)


def words(s: Setting, split: str) -> str:
    """A split in words, with the number of classes that the setting gives a client."""
    return "IID" if split == "iid" else f"Non-IID, {s.classes[split]} classes a client"


def claims(value: str, what: str) -> list[Claim]:
    """Fed-HeLLo above each baseline on each split, as predicates over `study.grid.results_frame`.

    Args:
        value: column that is compared; what: the same in words.
    """
    return [
        Claim(
            f"above_{baseline}_{split}",
            f"{WORDS[split]}, resources {ROC}: Fed-HeLLo's {what} is above that of {look(baseline).title}",
            "abstract: above the baselines",
            FOUNDATION,
            lambda r, b=baseline, s=split: mean_difference(  # type: ignore[misc]
                r,
                value,
                better={"method": "fed-hello", "split": s},
                worse={"method": b, "split": s},
                within=["task"],
            ),
        )
        for split in SPLITS
        for baseline in BASELINES
    ]


def over_all_splits(value: str, what: str, baselines: Sequence[str] = BASELINES) -> list[Claim]:
    """The same with one claim a baseline, on the mean over the splits that were run."""
    return [
        Claim(
            f"{value}_above_{baseline}",
            f"mean over the splits, resources {ROC}: Fed-HeLLo's {what} is above that of "
            f"{look(baseline).title}",
            "abstract: above the baselines",
            FOUNDATION,
            lambda r, b=baseline: mean_difference(  # type: ignore[misc]
                r,
                value,
                better={"method": "fed-hello"},
                worse={"method": b},
                within=["task", "split"],
            ),
        )
        for baseline in baselines
    ]
