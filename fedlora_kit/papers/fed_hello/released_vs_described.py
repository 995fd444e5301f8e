"""What each defect of Fed-HeLLo's released code does to Fed-HeLLo, one at a time and all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from fedlora_kit.methods.defects import DEFECTS, FREEZE_BY_SUBSTRING
from fedlora_kit.papers.fed_hello import grid, table2
from fedlora_kit.papers.fed_hello.grid import PROFILES as PROFILES
from fedlora_kit.papers.fed_hello.grid import Setting
from fedlora_kit.papers.fed_hello.modes import DESCRIBED, RELEASED, constant_rate
from fedlora_kit.study.claims import Claim, Verdict, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.overrides import chosen
from fedlora_kit.study.pairing import MissingCells
from fedlora_kit.study.planned import Runs

CONSTANT_RATE, ALL = "constant_rate", RELEASED
#: variant -> what is switched on, in words
VARIANTS: dict[str, str] = {
    DESCRIBED: "nothing: the method as the paper describes it",
    **DEFECTS,
    CONSTANT_RATE: "the learning rate stays at 0.0099 instead of decaying by 0.99 a round",
    ALL: "all of these together",
}
ROC, SPLIT, BEST = "1:1:1", "pat_10", "accuracy_best"
OWN = (
    "The paper has no such table: the defects were found in its released code, and the question what each of "
    "them does is ours.",
    "as_released still differs from the authors' runs: draws come from the kit's own streams, no update is "
    "dropped by an fp16 scaler, and the split is not theirs.",
)


def setting(profile: str, split: str | None = None, **overrides: Any) -> Setting:
    """The setting of a profile on one split.

    Raises:
        UnknownName, BadValue: see `fed_hello.grid.setting`.
    """
    item = "fed-hello/released_vs_described"
    return grid.setting(item, PROFILES, profile, splits=[SPLIT if split is None else split], **overrides)


def chosen_variants(variants: Sequence[str] | None) -> list[str]:
    """The variants to run; all if none is named.

    Raises:
        UnknownName: no such variant.
        BadValue: none, or one twice.
    """
    return chosen("variant of Fed-HeLLo", "variants", variants, VARIANTS)


def cells(s: Setting, variants: Sequence[str]) -> list[Cell]:
    """Every run of variants × seeds on the setting's split; as_described is Table II's own run."""
    rate, decay = constant_rate(s.lr, s.lr_decay)
    other = {
        CONSTANT_RATE: dataclasses.replace(s, lr=rate, lr_decay=decay),
        ALL: dataclasses.replace(s, mode=RELEASED),
    }
    made = []
    for split in s.splits:
        for variant in variants:
            used = other.get(variant, s)
            more = {"defects": [variant]} if variant in DEFECTS else {}
            coords = {"split": split, "variant": variant}
            made += [grid.cell(used, split, ROC, "fed-hello", seed, coords, **more) for seed in s.seeds]
    return made


def claims(variants: Sequence[str], depth: int | None = None) -> list[Claim]:
    """That each defect costs accuracy: an expectation of ours, which no source states.

    Args:
        depth: layers of the model (`fed_hello.importance.depth`). Where no layer's number holds another's,
            the freezing defect cannot act, and what it costs is not testable.
    """
    return [
        Claim(
            f"costs_{variant}",
            f"{variant.replace('_', ' ')} costs best accuracy ({VARIANTS[variant]})",
            "none: an expectation of ours, set down before the runs",
            "the defect SEEN in the released code; what it costs is not known",
            lambda r, v=variant: _costs(r, v, depth),  # type: ignore[misc]
        )
        for variant in variants
        if variant != DESCRIBED
    ]


def _costs(results: pd.DataFrame, variant: str, depth: int | None) -> Verdict:
    if variant == FREEZE_BY_SUBSTRING and depth is not None and depth < 11:
        raise MissingCells(
            f"no layer's number occurs in another's in a model of {depth} layers: the defect cannot act",
            "take a model of 11 layers or more",
        )
    better, worse = {"variant": DESCRIBED}, {"variant": variant}
    return mean_difference(results, BEST, better=better, worse=worse, within=["task", "split"])


def deviations(s: Setting) -> list[str]:
    """As Table II's, and what is special here."""
    lines = list(OWN)
    if s.backbone == "kit/image-tiny":
        lines.append(
            "In a model of 4 layers no layer's number holds another's: freezing by substring needs a layer "
            "10, so that this defect changes nothing in the smoke profile, and what it costs is not testable."
        )
    return table2.deviations(s, lines)


def runs(profile: str, variants: Sequence[str] | None = None, **parameters: Any) -> Runs:
    """The runs of `cells`."""
    return Runs(tuple(cells(setting(profile, **parameters), chosen_variants(variants))))
