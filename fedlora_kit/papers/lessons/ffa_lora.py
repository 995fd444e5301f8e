"""The lesson on FFA-LoRA and the three discordances: its runs, and the noise terms of a real adapter."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from fedlora_kit.papers.ffa_lora import alpha, discordance1, figure1
from fedlora_kit.papers.lessons import lora_and_fedavg
from fedlora_kit.randomness import Streams
from fedlora_kit.study.claims import Judged, judge_all
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs

METHODS = ("lora", "ffa-lora")
SPLIT = "unlike labels (Dirichlet 0.1)"
#: three of them at or above `alpha.LARGE`, where the order of the limit is read off
ALPHAS = (8.0, 64.0, 512.0, 1024.0, 2048.0)


def cells(seeds: int) -> list[Cell]:
    """LoRA and FFA-LoRA × local steps × seeds; LoRA's runs are those of the lesson `lora_and_fedavg`.

    Raises:
        BadValue: fewer than one seed.
    """
    return [one for one in lora_and_fedavg.cells(seeds, METHODS) if one.coords["split"] == SPLIT]


def noise_terms(a: torch.Tensor, b: torch.Tensor, sigmas: Sequence[float], seed: int = 0) -> pd.DataFrame:
    """Frobenius norms of what noise on both factors adds to their product: xi_B A, B xi_A and xi_B xi_A.

    Args:
        a: (r, in); b: (out, r).
        sigmas: standard deviations of a noise entry.

    Returns:
        One row a sigma: sigma, and a column for each term, in the unit of an entry of B A.
    """
    draw = Streams(seed).torch("noise", "terms")
    xi_a = torch.randn(a.shape, generator=draw, dtype=torch.float64)
    xi_b = torch.randn(b.shape, generator=draw, dtype=torch.float64)
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    terms = {"ξ_B A": (1, xi_b @ a), "B ξ_A": (1, b @ xi_a), "ξ_B ξ_A": (2, xi_b @ xi_a)}
    return pd.DataFrame(
        {"sigma": sigma, **{name: float(sigma**power * term.norm()) for name, (power, term) in terms.items()}}
        for sigma in sigmas
    )


def judged(gaps: pd.DataFrame, noise: pd.DataFrame, distances: pd.DataFrame) -> list[Judged]:
    """The three discordances by the claims of their own items.

    Args:
        gaps: from `lora_and_fedavg.mean_gap`.
        noise: from `figure1.measure`.
        distances: from `alpha.measure`.
    """
    first = [
        claim
        for claim in discordance1.claims(lora_and_fedavg.STEPS)
        if claim.id != "grows_with_heterogeneity"  # one split only here
    ]
    return [
        *judge_all(first, gaps.assign(dataset="digits")),
        *judge_all(figure1.claims(), noise),
        *judge_all(alpha.claims(), distances),
    ]


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(tuple(cells(3 if seeds is None else seeds)))
