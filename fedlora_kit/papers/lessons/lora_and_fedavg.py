"""The lesson on LoRA and its federated averaging: how far averaging A and B is from averaging B A."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from fedlora_kit.looks import DOUBLE
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.lessons.small import digits_run, dirichlet, iid
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (1, 3, 9)
SPLITS = {"alike labels (IID)": iid(), "unlike labels (Dirichlet 0.1)": dirichlet(0.1)}
ALONE = "one client"


def cells(seeds: int, methods: Sequence[str] = ("lora",)) -> list[Cell]:
    """Runs of three rounds: splits × local steps × seeds, and one client alone; the gap is measured.

    Raises:
        BadValue: fewer than one seed.
    """
    places = [(name, split, steps) for name, split in SPLITS.items() for steps in STEPS]
    places.append((ALONE, {"partitioner": "iid", "clients": 1}, STEPS[1]))
    return [
        Cell(
            {"method": method, "split": name, "steps": str(steps)},
            {},
            seed,
            digits_run(method, seed=seed, split=split, steps=steps, measure_gap=True, eval_every=0),
        )
        for method in methods
        for name, split, steps in places
        for seed in checked_seeds(seeds)
    ]


def mean_gap(rounds: pd.DataFrame) -> pd.DataFrame:
    """The gap of each run, mean over its rounds but the first.

    In the first round B starts at 0: after one step A has not moved at any client, and there is no gap.

    Args:
        rounds: from `small.rounds_frame`.
    """
    late = rounds[rounds["round"] > 1].assign(local_steps=lambda r: r["steps"].astype(int))
    names = ["method", "split", "steps", "local_steps", "seed", "key"]
    return late.groupby(names, sort=False)["gap"].mean().reset_index()


def claims() -> list[Claim]:
    """Over `mean_gap`."""
    few, many = str(STEPS[0]), str(STEPS[-1])
    return [
        Claim(
            "factors_err",
            "averaging A and B is not averaging B A: with three clients the relative error is larger than "
            "with one, which has none",
            "FFA-LoRA, section 3 (discordance 1); own check",
            "SEEN",
            lambda r: mean_difference(
                r[(r["method"] == "lora") & (r["steps"] == str(STEPS[1]))],
                "gap",
                better={"split": "unlike labels (Dirichlet 0.1)"},
                worse={"split": ALONE},
                within=["method"],
            ),
        ),
        Claim(
            "grows_with_steps",
            f"the error is larger with {many} local steps a round than with {few}",
            "FFA-LoRA, section 3 (discordance 1); own check",
            "SEEN",
            lambda r: mean_difference(
                r[(r["method"] == "lora") & r["split"].isin(SPLITS)],
                "gap",
                better={"steps": many},
                worse={"steps": few},
                within=["split"],
            ),
        ),
        Claim(
            "grows_with_unlikeness",
            "the error is larger where the clients' labels are unlike than where they are alike",
            "FFA-LoRA, section 3 (discordance 1); own check",
            "SEEN",
            lambda r: mean_difference(
                r[r["method"] == "lora"],
                "gap",
                better={"split": "unlike labels (Dirichlet 0.1)"},
                worse={"split": "alike labels (IID)"},
                within=["steps"],
            ),
        ),
    ]


def figure(products: Mapping[str, torch.Tensor], title: str) -> Figure:
    """Matrices side by side as heat maps, on one scale about zero.

    Args:
        products: heading -> matrix (out, in).
    """
    from matplotlib import pyplot as plt

    bound = max(float(m.abs().max()) for m in products.values())
    fig, axes = plt.subplots(1, len(products), figsize=(DOUBLE, 2.75), squeeze=False)
    for place, (heading, matrix) in zip(axes[0], products.items(), strict=True):
        image = place.imshow(
            matrix.cpu().numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="none"
        )
        place.set_title(f"{heading}\n‖·‖ = {fixed(matrix.norm(), 3)}", fontsize=8)
        place.set(xticks=[], yticks=[], xlabel=f"{matrix.shape[1]} inputs")
        place.grid(False)
    axes[0][0].set_ylabel(f"{products[next(iter(products))].shape[0]} outputs")
    fig.colorbar(image, ax=axes[0].tolist(), shrink=0.75, label="entry")
    fig.suptitle(title, fontsize=9, fontweight="bold")
    return fig


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(tuple(cells(4 if seeds is None else seeds)))
