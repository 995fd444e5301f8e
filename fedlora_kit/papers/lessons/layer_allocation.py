"""The lesson on allocating layers (Fed-HeLLo): who sends which layer, and what the average makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from fedlora_kit.adapter import State
from fedlora_kit.experiments.spec import MethodSpec
from fedlora_kit.looks import SINGLE
from fedlora_kit.methods.base import ClientUpdate, Method
from fedlora_kit.models.targets import layer_index
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.study.claims import Claim, MissingCells, Status, Verdict, mean_difference
from fedlora_kit.study.grid import Cell, results_frame
from fedlora_kit.study.known_methods import look
from fedlora_kit.study.planned import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedlora_kit.running.many import Finished

METHODS = ("straggler", "exclusive", "fed-hello", "lora")
#: Fed-HeLLo where every client can train every layer
EQUAL = "fed-hello, equal clients"
WORDS = {
    "straggler": "everybody trains what the weakest can",
    "exclusive": "only those take part who can train everything",
    "fed-hello": "everybody trains what it can: layers by Fed-HeLLo",
    "lora": "as if everybody could train everything",
    EQUAL: "Fed-HeLLo as if everybody could train everything",
}


def setting(seeds: int) -> grid.Setting:
    """Twelve clients on turned digits, four of them a round, two classes a client, six rounds.

    Raises:
        BadValue: fewer than one seed.
    """
    return grid.setting(
        "lessons/layer_allocation",
        grid.PROFILES,
        "smoke",
        methods=list(METHODS),
        splits=["pat_10"],
        rounds=6,
        eval_every=0,
        seeds=seeds,
    )


def cells(seeds: int) -> list[Cell]:
    """`METHODS`, with a third of the clients for 2, 3 and 4 of 4 layers; and `EQUAL`.

    Raises:
        BadValue: fewer than one seed.
    """
    s = setting(seeds)
    made = grid.cells(s)
    everything = MethodSpec(name="fed-hello")
    equal = [
        Cell(
            {**one.coords, "method": EQUAL}, {}, one.seed, one.spec.model_copy(update={"method": everything})
        )
        for one in made
        if one.coords["method"] == "lora"
    ]
    return [*made, *equal]


def frame(done: Sequence[tuple[Cell, Finished]]) -> pd.DataFrame:
    """The results, one row a run (see `study.grid.results_frame`), and the final adapter's digest."""
    results = results_frame(done)
    digests = ["" if run.entry is None else run.entry.results["adapter_digest"] for _, run in done]
    return results.assign(digest=digests)


def allocated(
    method: Method, clients: Sequence[int], round_index: int, names: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """(clients, layers): whether a client trains a layer in a round.

    Args:
        method: bound to a federation.
        names: of the adapter's tensors.
    """
    depth = 1 + max(layer for layer in map(layer_index, names) if layer is not None)
    held = np.zeros((len(clients), depth), dtype=bool)
    for row, client in enumerate(clients):
        for name in names:
            layer = layer_index(name)
            if layer is not None and method.trains(name, client, round_index):
                held[row, layer] = True
    return held


def what_is_sent(method: Method, update: ClientUpdate, round_index: int) -> ClientUpdate:
    """A client's update without the layers that it does not train."""
    kept = {n: t for n, t in update.tensors.items() if method.trains(n, update.client, round_index)}
    return ClientUpdate(update.client, update.num_examples, kept)


def moved(before: Mapping[str, torch.Tensor], after: State) -> pd.Series:
    """Norm of the change of B in each layer; index: layer."""
    squares: dict[int, float] = {}
    for name, tensor in before.items():
        layer = layer_index(name)
        if layer is not None and ".lora_B" in name:
            squares[layer] = squares.get(layer, 0.0) + float((after[name] - tensor).double().square().sum())
    return pd.Series(squares).sort_index() ** 0.5


def claims() -> list[Claim]:
    """Over `frame`."""
    return [
        Claim(
            "equal_is_fedavg",
            "where every client can train everything, Fed-HeLLo is FedAvg of LoRA, bit for bit",
            "this kit",
            "own check",
            _same,
        ),
        *(
            Claim(
                f"above_{other}",
                f"Fed-HeLLo's accuracy after six rounds is above that of {look(other).title}",
                "abstract: above the baselines; own check at toy size",
                "SECOND",
                lambda r, o=other: mean_difference(  # type: ignore[misc]
                    r, "accuracy", better={"method": "fed-hello"}, worse={"method": o}, within=["split"]
                ),
            )
            for other in ("straggler", "exclusive")
        ),
    ]


def _same(results: pd.DataFrame) -> Verdict:
    digests: Any = results.pivot(index="seed", columns="method", values="digest")
    if not {EQUAL, "lora"} <= set(digests.columns):
        raise MissingCells(f"no result for {EQUAL} and lora", "run the missing cells")
    same = int((digests[EQUAL] == digests["lora"]).sum())
    status: Status = "reproduced" if same == len(digests) else "not reproduced"
    return Verdict(
        status, f"the same SHA-256 of the adapter in {same} of {len(digests)} seeds", {"same": same}
    )


def figure(held: npt.NDArray[np.bool_], clients: Sequence[int], sizes: Sequence[int]) -> Figure:
    """Who trains which layer in a round: clients × layers.

    Args:
        held: from `allocated`.
        sizes: examples of these clients.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(figsize=(SINGLE, 0.6 + 0.3 * len(clients)))
    axes.imshow(held, cmap="Blues", vmin=0, vmax=1.35, aspect="auto")
    axes.set_yticks(
        range(len(clients)), [f"client {k}, {n} examples" for k, n in zip(clients, sizes, strict=True)]
    )
    axes.set_xticks(range(held.shape[1]), [str(layer) for layer in range(held.shape[1])])
    axes.set_xticks(np.arange(held.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(clients) + 1) - 0.5, minor=True)
    axes.grid(False)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    for (row, layer), trains in np.ndenumerate(held):
        if trains:
            axes.text(layer, row, "trains", ha="center", va="center", fontsize=7, color="white")
    axes.set_xlabel("layer, from the input")
    return fig


def runs(profile: str, seeds: int | None = None) -> Runs:
    """The lesson's runs: those of `cells`, the same in every profile."""
    return Runs(tuple(cells(3 if seeds is None else seeds)))
