"""The lesson on writing a method: its checks, and a table's runs with the new one among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from fedlora_kit.conformance.methods import CHECKS
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

BESIDE = ("lora", "fed-hello")


def setting(seeds: int, own: str = "") -> grid.Setting:
    """Fed-HeLLo's Table II at smoke size, shortened, with the method ``own`` as a further row if it is given.

    Raises:
        UnknownName: ``own`` is not registered.
        BadValue: fewer than one seed.
    """
    return grid.setting(
        "fed-hello/table2",
        grid.PROFILES,
        "smoke",
        methods=[*BESIDE, *([own] if own else [])],
        splits=["iid", "pat_10"],
        rounds=6,
        eval_every=0,
        seeds=seeds,
    )


def cells(seeds: int) -> list[Cell]:
    """The runs of the methods that the table has without a user's own.

    Raises:
        BadValue: fewer than one seed.
    """
    return grid.cells(setting(seeds))


def conformance(name: str, checks: Iterable[Callable[[str], None]] = CHECKS) -> pd.DataFrame:
    """The kit's conformance checks of a registered method.

    Args:
        checks: of `conformance.methods`; all of them take a few seconds.

    Returns:
        check (what must hold, in a sentence), holds, says (what does not, empty if all is well).
    """
    rows = []
    for check in checks:
        said = ""
        try:
            check(name)
        except AssertionError as error:
            said = str(error).splitlines()[0]
        what = " ".join((check.__doc__ or check.__name__).split("\n\n")[0].split())
        rows.append({"check": what, "holds": not said, "says": said})
    return pd.DataFrame(rows)


def claims(own: str) -> list[Claim]:
    """A user's method against FedAvg of LoRA, over `study.grid.results_frame`."""
    return [
        Claim(
            f"{own}_above_lora_{split}",
            f"{own}'s accuracy after six rounds is above that of LoRA ({words})",
            "this notebook",
            "own check",
            lambda r, s=split: mean_difference(  # type: ignore[misc]
                r[r["split"] == s],
                "accuracy",
                better={"method": own},
                worse={"method": "lora"},
                within=["task"],
            ),
        )
        for split, words in (("iid", "alike clients"), ("pat_10", "two classes a client"))
    ]


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(
        tuple(cells(3 if seeds is None else seeds)),
        note="the notebook also trains runs of a method that only it knows",
    )
