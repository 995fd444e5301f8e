"""FedLoRA-Optimizer's method as a picture, drawn from the real tensors of one adapted layer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from fedlora_kit.adapter import State
from fedlora_kit.looks import DOUBLE, FAINT, GREY, SERIES
from fedlora_kit.models.components import component_names, decompose, part_of, vector_dim
from fedlora_kit.papers.fedlora_optimizer import setting
from fedlora_kit.papers.fedlora_optimizer.setting import Setting
from fedlora_kit.study.claims import Claim, Verdict
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.pairing import MissingCells
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

A_COLOUR, B_COLOUR = SERIES[:2]
DEVIATIONS = (
    "Known are the four components, that A's direction is the global optimiser's and B's magnitude the local "
    "optimisers', and the order (the pipeline). All else here is a setting of the kit, with a default of its "
    "own: the axis, whether averaged directions are brought back to length 1, the data, steps, rates and "
    "rounds of either optimiser, and what a client carries from round to round.",
    "The paper's own figure is not known: this is a drawing of what the code does.",
    "A vector of length zero has no direction. B starts at 0, so that its directions are the uniform one "
    "until it has trained once.",
)


def cells(s: Setting, axis: str = "rank") -> list[Cell]:
    """FedIT and the whole method on the same split, for every seed; coordinate: method."""
    settings: dict[str, dict[str, Any]] = {"lora": {}, "fedlora-optimizer": {"axis": axis}}
    return [
        Cell({"method": name}, {}, seed, setting.spec(s, name, seed, **given))
        for name, given in settings.items()
        for seed in s.seeds
    ]


def shapes(state: State, module: str, axis: str) -> pd.DataFrame:
    """The tensors of one module, whole and split.

    Returns:
        tensor (A, A_M, A_D, B, ...), shape, scalars, and the smallest and largest length of its vectors.
    """
    rows: list[dict[str, Any]] = []
    for factor in ("A", "B"):
        name = f"{module}.lora_{factor}.weight"
        dim = vector_dim(name, axis)
        magnitude, direction = decompose(state[name], dim)
        lengths = (magnitude, None, direction.norm(dim=dim))
        tensors = (state[name], magnitude, direction)
        for label, tensor, length in zip(
            (factor, f"{factor}_M", f"{factor}_D"), tensors, lengths, strict=True
        ):
            least, most = ("", "") if length is None else (float(length.min()), float(length.max()))
            rows.append(
                {
                    "tensor": label,
                    "shape": " × ".join(map(str, tensor.shape)),
                    "scalars": tensor.numel(),
                    "shortest vector": least,
                    "longest vector": most,
                }
            )
    return pd.DataFrame(rows)


def step_frame(before: State, after: State, axis: str) -> pd.DataFrame:
    """What a stage changed, component by component over all modules.

    Returns:
        component, and change: the largest absolute one of an entry.
    """
    largest = dict.fromkeys(("A_M", "A_D", "B_M", "B_D"), 0.0)
    for name, tensor in before.items():
        if part_of(name) not in ("A", "B"):
            continue
        dim = vector_dim(name, axis)
        magnitude, direction = decompose(tensor, dim)
        size, heading = decompose(after[name], dim)
        # a magnitude trained to below 0 comes back as its length and exactly the opposite direction
        sign = torch.where((direction * heading).sum(dim, keepdim=True) < -1 + 1e-6, -1.0, 1.0)
        split = ((magnitude, sign * size), (direction, sign * heading))
        pairs = ((old, new, c) for (old, new), c in zip(split, component_names(name), strict=True))
        for old, new, component in pairs:
            part = str(part_of(component))
            largest[part] = max(largest[part], float((new - old).abs().max()))
    return pd.DataFrame({"component": list(largest), "change": list(largest.values())})


def claims() -> list[Claim]:
    """What the abstract says of the two optimisers, as predicates over `step_frame` with a column stage."""
    return [
        Claim(
            "global_moves_a_direction",
            "the global optimiser trains A's direction and nothing else",
            "abstract",
            "SEEN",
            lambda r: _moves_alone(r, "global optimiser", "A_D"),
        ),
        Claim(
            "local_moves_b_magnitude",
            "the local optimisers train B's magnitude and nothing else",
            "abstract",
            "SEEN",
            lambda r: _moves_alone(r, "local optimiser", "B_M"),
        ),
    ]


def _moves_alone(changes: pd.DataFrame, stage: str, component: str, rounding: float = 1e-5) -> Verdict:
    rows = changes[changes["stage"].str.startswith(stage)]
    if rows.empty:
        raise MissingCells(f"no result of the {stage}", "run it")
    own = float(rows.loc[rows["component"] == component, "change"].min())
    rest = float(rows.loc[rows["component"] != component, "change"].max())
    return Verdict(
        "reproduced" if own > rounding >= rest else "not reproduced",
        f"largest change of {component} {own:.1e}, of the others {rest:.1e}; rounding: {rounding:.0e}",
        {"own": own, "rest": rest},
    )


def figure(state: State, module: str, axis: str = "rank") -> Figure:
    """Decomposition of one module's A and B (above) and the pipeline of a round (below)."""
    from matplotlib import pyplot as plt

    fig = plt.figure(figsize=(DOUBLE, 5.2))
    halves: Any = fig.subfigures(2, 1, height_ratios=[1.25, 1.0])
    top, bottom = halves
    axes = top.subplots(2, 3, width_ratios=[6, 1.1, 6])
    for row, factor in enumerate(("A", "B")):
        name = f"{module}.lora_{factor}.weight"
        tensor = state[name].detach().double()
        magnitude, direction = decompose(tensor, vector_dim(name, axis))
        if factor == "B":  # lies down, so that both have a row a rank component
            tensor, magnitude, direction = tensor.T, magnitude.T, direction.T
        label = "$A$" if factor == "A" else r"$B^\top$"
        _matrix(axes[row, 0], tensor, f"{label}   ({tensor.shape[0]} × {tensor.shape[1]})", "RdBu_r")
        _lengths(axes[row, 1], magnitude, f"${factor}_M$")
        _matrix(axes[row, 2], direction, f"${factor}_D$   (unit vectors)", "RdBu_r")
        axes[row, 0].annotate(
            "=", (1.035, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=12
        )
        axes[row, 1].annotate(
            "·", (1.35, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=15
        )
    for place, colour, said in (
        (axes[0, 2], A_COLOUR, "global optimiser"),
        (axes[1, 1], B_COLOUR, "local optimisers"),
    ):
        for spine in place.spines.values():
            spine.set(visible=True, color=colour, linewidth=1.8)
        place.set_xlabel(said, color=colour, fontweight="bold")
    _pipeline(bottom.subplots())
    return fig


def _lengths(place: Axes, magnitude: torch.Tensor, title: str) -> None:
    """Magnitudes as bars: beside the rows they belong to, or above the columns."""
    values = magnitude.flatten().numpy()
    if magnitude.shape[1] == 1:
        place.barh(range(len(values)), values, color=FAINT, height=0.8)
        place.set(ylim=(len(values) - 0.5, -0.5), xlim=(0, None))
    else:
        place.bar(range(len(values)), values, color=FAINT, width=1.0)
        place.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, None))
    place.set(xticks=[], yticks=[])
    place.set_title(title, fontsize=8, fontweight="normal")
    place.grid(False)


def _matrix(place: Axes, values: torch.Tensor, title: str, cmap: str) -> None:
    bound = float(values.abs().max()) or 1.0
    place.imshow(
        values.numpy(),
        cmap=cmap,
        vmin=-bound,
        vmax=bound,
        aspect="auto",
        interpolation="none",
    )
    place.set(xticks=[], yticks=[])
    place.set_title(title, fontsize=8, fontweight="normal")
    place.grid(False)


#: x, width, heading, lines below, colour
_STEPS: tuple[tuple[float, float, str, str, str], ...] = (
    (0.0, 2.1, "1  clients train", "A and B of the global\nadapter, each on its\nown examples", GREY),
    (
        2.6,
        2.1,
        "2  server averages",
        "$A_M$, $A_D$, $B_M$, $B_D$\napart, weights $n_k$;\nunit directions again",
        GREY,
    ),
    (5.2, 2.1, "3  global optimiser", "trains $A_D$,\nall else frozen", A_COLOUR),
    (
        7.8,
        2.1,
        "4  local optimisers",
        "train $B_M$ at each\nclient, which keeps it\n(default: at the end)",
        B_COLOUR,
    ),
)


def _pipeline(place: Axes) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    for x, width, heading, lines, colour in _STEPS:
        place.add_patch(
            FancyBboxPatch(
                (x, 0.9),
                width,
                1.5,
                boxstyle="round,pad=0.06",
                facecolor="white",
                edgecolor=colour,
                linewidth=1.4,
            )
        )
        place.text(x + width / 2, 2.16, heading, ha="center", va="center", fontweight="bold", color=colour)
        place.text(x + width / 2, 1.42, lines, ha="center", va="center", fontsize=7)
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 10, "color": GREY, "linewidth": 1.1}
    for (x, width, *_), (following, *_) in pairwise(_STEPS):
        place.add_patch(FancyArrowPatch((x + width + 0.08, 1.65), (following - 0.08, 1.65), **arrow))
    place.add_patch(FancyArrowPatch((6.25, 0.8), (1.05, 0.8), connectionstyle="arc3,rad=-0.17", **arrow))
    place.text(3.65, 0.12, "the global adapter, next round", ha="center", fontsize=7)
    place.text(8.85, 0.5, "one personalised adapter a client", ha="center", fontsize=7, color=B_COLOUR)
    place.set(xlim=(-0.15, 10.05), ylim=(-0.1, 2.6))
    place.axis("off")


def runs(profile: str, axis: str = "rank", **parameters: Any) -> Runs:
    """The runs of `cells`, with directions of columns or rows."""
    return Runs(
        tuple(cells(setting.setting("fedlora-optimizer/method", profile, **parameters), axis)),
        note="the notebook also trains a few single rounds of its own, which are not kept in the store",
    )
