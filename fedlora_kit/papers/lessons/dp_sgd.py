"""The lesson on DP-SGD: what epsilon comes to over the rounds, and private runs beside plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fedlora_kit.numerals import fixed
from fedlora_kit.papers.lessons.small import digits_run, iid
from fedlora_kit.privacy import epsilon_of
from fedlora_kit.privacy.stacked import clipped_sums
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.study.claims import Claim, MissingCells, Verdict, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.known_methods import look
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from fedlora_kit.running.many import Finished

METHODS = ("lora", "ffa-lora")
ROUNDS, STEPS, DELTA, CLIP = 3, 5, 1e-5, 1.0
#: target epsilon of the runs; None stands for no DP
TARGETS: tuple[float | None, ...] = (None, 8.0)


def cells(seeds: int) -> list[Cell]:
    """Both methods with and without DP, three clients with alike labels.

    Raises:
        BadValue: fewer than one seed.
    """
    return [
        Cell(
            {"method": method, "eps": "none" if target is None else f"{target:g}"},
            {},
            seed,
            digits_run(
                method,
                seed=seed,
                split=iid(),
                rounds=ROUNDS,
                steps=STEPS,
                data={"eval_limit": 100},
                privacy=None if target is None else {"epsilon": target, "delta": DELTA, "clip": CLIP},
            ),
        )
        for method in METHODS
        for target in TARGETS
        for seed in checked_seeds(seeds)
    ]


def epsilon_curve(
    sigmas: Sequence[float], rounds: Sequence[int], *, steps: int, rate: float, delta: float = DELTA
) -> pd.DataFrame:
    """What so many rounds spend, for each noise multiplier.

    Args:
        steps: local steps a round. rate: q, the probability of an example to be in a step's sample.

    Returns:
        Columns sigma (text), rounds, epsilon.
    """
    return pd.DataFrame(
        {"sigma": f"{sigma:g}", "rounds": r, "epsilon": epsilon_of(sigma, delta, rate, r * steps)}
        for sigma in sigmas
        for r in rounds
    )


def clipping(rows: torch.Tensor, clips: Sequence[float]) -> pd.DataFrame:
    """What several clipping norms do to the sum of the examples' gradients.

    Args:
        rows: (n, D) one example's gradient a row.

    Returns:
        clip; cut (share of the examples that are shortened); cosine (between the sum of the clipped rows and
        the sum as it was).
    """
    owners = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    found = []
    for clip in clips:
        total = clipped_sums(rows, owners, torch.tensor([clip], device=rows.device), 1)[0]
        found.append(
            {
                "clip": clip,
                "cut": float((rows.norm(dim=1) > clip).float().mean()),
                "cosine": float(torch.nn.functional.cosine_similarity(total, rows.sum(0), dim=0)),
            }
        )
    return pd.DataFrame(found)


def agreement(
    rows: torch.Tensor, sizes: Sequence[int], sigma: float, clip: float, seed: int = 0
) -> pd.DataFrame:
    """How much of the direction of a sum of clipped gradients survives the noise.

    Args:
        rows: (n, D) one example's gradient a row, clipped already.
        sizes: numbers of examples that are summed, each at most n.

    Returns:
        examples, signal (norm of the sum), noise (norm of the noise), cosine (between the sum and the noisy
        sum).
    """
    generator = torch.Generator().manual_seed(seed)
    noise = sigma * clip * torch.randn(rows.shape[1], generator=generator)
    found = []
    for n in sizes:
        total = rows[:n].sum(0).cpu()
        noisy = total + noise
        found.append(
            {
                "examples": n,
                "signal": float(total.norm()),
                "noise": float(noise.norm()),
                "cosine": float(torch.nn.functional.cosine_similarity(total, noisy, dim=0)),
            }
        )
    return pd.DataFrame(found)


def by_hand(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """The epsilon that each private run recorded after each round, and what its clients' steps come to.

    Returns:
        method, seed, key, round (from 1), recorded, composed (largest over the clients).
    """
    rows: list[dict[str, Any]] = []
    for one, run in done:
        book = run.entry.privacy if run.entry is not None else None
        if run.entry is None or book is None:
            continue
        for record in run.entry.history:
            taken = STEPS * (record["round"] + 1)
            spent = [
                epsilon_of(sigma, book["delta"], rate, taken)
                for client in book["clients"]
                for sigma, rate, _ in client["phases"]
            ]
            rows.append(
                {
                    "method": one.coords["method"],
                    "seed": one.seed,
                    "key": run.key,
                    "round": record["round"] + 1,
                    "recorded": record["epsilon"],
                    "composed": max(spent),
                }
            )
    return pd.DataFrame(rows)


def claims() -> list[Claim]:
    """Over the results of `cells`, one row a run, with columns accuracy, epsilon and eps."""
    return [
        Claim(
            "keeps_to_its_word",
            "a private run has spent no more than its target when it ends",
            "this kit",
            "own check",
            _keeps,
        ),
        *(
            Claim(
                f"privacy_costs_{method.replace('-', '_')}",
                f"privacy costs accuracy: {look(method).title} without DP is above the same with it",
                "this kit",
                "own check",
                lambda r, m=method: mean_difference(  # type: ignore[misc]
                    r,
                    "accuracy",
                    better={"method": m, "eps": "none"},
                    worse={"method": m, "eps": f"{TARGETS[-1]:g}"},
                    within=["task"],
                ),
            )
            for method in METHODS
        ),
    ]


def _keeps(results: pd.DataFrame) -> Verdict:
    rows = results[results["eps"] != "none"]
    if rows.empty:
        raise MissingCells("no private run", "run one")
    excess = float((rows["epsilon"] - rows["eps"].astype(float)).max())
    reason = f"spent at most {fixed(rows['epsilon'].max(), 4)} of {rows['eps'].max()} in {len(rows)} runs"
    return Verdict("reproduced" if excess <= 0 else "not reproduced", reason, {"excess": excess})


def log_spaced(least: int, most: int, number: int) -> list[int]:
    """Whole numbers from ``least`` to ``most``, about evenly spread on a logarithmic axis.

    >>> log_spaced(1, 100, 3)
    [1, 10, 100]
    """
    return sorted({int(x) for x in np.geomspace(least, most, number).round()})


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(tuple(cells(3 if seeds is None else seeds)))
