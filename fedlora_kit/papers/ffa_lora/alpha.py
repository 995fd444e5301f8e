"""FFA-LoRA, Theorem 1: with the learning rate scaled as 1 / alpha^2, LoRA's trajectory tends to FFA-LoRA's.

The problem is small, deterministic and in float64, so that the limit can be seen down to 1e-4: a network of
two layers, x -> W2 tanh(W1 x), fits a teacher; three clients with shifted inputs take full-batch gradient
steps and average A and B apart, as in training. With W = W0 + (alpha / r) B A and eta = c / alpha^2, a step
moves (alpha / r) B by an amount that does not depend on alpha, and A by one of order 1 / alpha^2: so the
distance to FFA-LoRA, whose A stays, should fall with the square of alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fedlora_kit.errors import BadValue
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.ffa_lora.table4 import runs as runs
from fedlora_kit.randomness import Streams, checked_seeds
from fedlora_kit.study.claims import Claim, MissingCells, Verdict
from fedlora_kit.study.sequential import interval_name
from fedlora_kit.study.statistics import mean_interval

ALPHAS = tuple(8.0 * 2**k for k in range(10))  # 8 to 4096
#: from here on the order of the limit is read off
LARGE = 512.0
RANK, CLIENTS, EXAMPLES = 8, 3, 64
SHAPES = ((24, 32), (10, 24))  # W1 and W2, (out, in)
#: c in eta = c / alpha^2: eta = 1/8 at alpha = 8
SCALE = 8.0


def trajectory(
    method: str, alpha: float, seed: int, *, scale: float = SCALE, rounds: int = 20, steps: int = 5
) -> torch.Tensor:
    """The change of both weights after every round, float64 (rounds, number of weights).

    Args:
        method: "lora" or "ffa-lora".
        alpha: the learning rate is ``scale / alpha^2``.
        seed: of W0, the teacher, the inputs and A0.

    Raises:
        BadValue: another method, or alpha not positive.
    """
    if method not in {"lora", "ffa-lora"} or not alpha > 0:
        raise BadValue(f"method={method!r}, alpha={alpha}", "use lora or ffa-lora, and alpha above 0")
    start, teacher, inputs, a0 = _problem(seed)
    rate = scale / alpha**2
    a = [x.clone() for x in a0]
    b = [torch.zeros(out, RANK, dtype=torch.float64) for out, _ in SHAPES]
    changes = []
    for _ in range(rounds):
        ends = [
            _local(method, start, teacher, x, a, b, alpha / RANK, rate, steps) for x in inputs
        ]  # per client (a, b)
        a = [torch.stack([end[0][i] for end in ends]).mean(0) for i in range(len(SHAPES))]
        b = [torch.stack([end[1][i] for end in ends]).mean(0) for i in range(len(SHAPES))]
        changes.append(torch.cat([(alpha / RANK * b[i] @ a[i]).flatten() for i in range(len(SHAPES))]))
    return torch.stack(changes)


def measure(alphas: Sequence[float] = ALPHAS, seeds: int = 5) -> pd.DataFrame:
    """LoRA's distance to FFA-LoRA's trajectory, relative to the length of the latter's way.

    Returns:
        Columns alpha, seed, round (from 1), distance.
    """
    rows = []
    for seed in checked_seeds(seeds):
        limit = trajectory("ffa-lora", 8.0, seed)
        for alpha in alphas:
            gap = (trajectory("lora", alpha, seed) - limit).norm(dim=1) / limit.norm(dim=1)
            rows += [
                {"alpha": alpha, "seed": seed, "round": r + 1, "distance": float(d)}
                for r, d in enumerate(gap)
            ]
    return pd.DataFrame(rows)


def claims() -> list[Claim]:
    """Theorem 1, as predicates over `measure`."""
    return [
        Claim(
            "limit",
            "with the learning rate scaled as 1/α², LoRA's trajectory converges to FFA-LoRA's as α grows: "
            "the distance falls with α²",
            "Theorem 1",
            "SEEN; the order α² is derived",
            _slope,
        )
    ]


def _slope(measured: pd.DataFrame) -> Verdict:
    last = measured[(measured["round"] == measured["round"].max()) & (measured["alpha"] >= LARGE)]
    if last["alpha"].nunique() < 3 or last["seed"].nunique() < 2:
        raise MissingCells(
            f"a slope needs three values of α from {LARGE:g} on and two seeds", "measure more of them"
        )
    slopes = last.groupby("seed")[["alpha", "distance"]].apply(
        lambda g: float(np.polyfit(np.log(g["alpha"]), np.log(g["distance"]), 1)[0])
    )
    found = mean_interval(slopes.to_numpy())
    holds = abs(found.lower + 2) < 0.1 and abs(found.upper + 2) < 0.1
    closest = float(last[last["alpha"] == last["alpha"].max()]["distance"].max())
    return Verdict(
        "reproduced" if holds else "not reproduced",
        f"slope of log distance over log α from {LARGE:g} on, after the last round: {fixed(found.mean, 3)} "
        f"[{interval_name()} {fixed(found.lower, 3)}, {fixed(found.upper, 3)}], derived −2; distance at "
        f"α = {last['alpha'].max():g}: {closest:.1e} of the way",
        {"slope": found.mean, "lower": found.lower, "upper": found.upper, "closest": closest},
    )


Weights = list[torch.Tensor]


def _problem(seed: int) -> tuple[Weights, Weights, list[torch.Tensor], Weights]:
    """W0, the teacher's weights, each client's inputs (n, in), and A0."""
    draw = Streams(seed).torch("init", "theorem1")

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    start = [normal(*shape) / shape[1] ** 0.5 for shape in SHAPES]
    teacher = [w + 0.3 * normal(*w.shape) / w.shape[1] ** 0.5 for w in start]
    width = SHAPES[0][1]
    inputs = [normal(EXAMPLES, width) + normal(width) for _ in range(CLIENTS)]
    a0 = [
        (torch.rand(RANK, shape[1], generator=draw, dtype=torch.float64) * 2 - 1) / shape[1] ** 0.5
        for shape in SHAPES
    ]
    return start, teacher, inputs, a0


def _local(
    method: str,
    start: Weights,
    teacher: Weights,
    x: torch.Tensor,
    a: Weights,
    b: Weights,
    factor: float,
    rate: float,
    steps: int,
) -> tuple[Weights, Weights]:
    """Full-batch gradient steps at one client."""
    a, b = [t.clone() for t in a], [t.clone() for t in b]
    moving = b if method == "ffa-lora" else [*a, *b]
    with torch.no_grad():
        wanted = torch.tanh(x @ teacher[0].T) @ teacher[1].T  # (n, 10)
    for _ in range(steps):
        for t in moving:
            t.requires_grad_(True)
        w1, w2 = (w + factor * bi @ ai for w, ai, bi in zip(start, a, b, strict=True))
        loss = ((torch.tanh(x @ w1.T) @ w2.T - wanted) ** 2).sum(1).mean() / 2
        gradients = torch.autograd.grad(loss, moving)
        with torch.no_grad():
            for t, g in zip(moving, gradients, strict=True):
                t.requires_grad_(False)
                t -= rate * g
    return a, b
