"""The lesson on writing a method: a table's runs with the new one among them, and checks of its average."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch

from fedlora_kit.adapter import State, digest
from fedlora_kit.methods import ClientUpdate, Method, method
from fedlora_kit.papers import fed_hello_grid
from fedlora_kit.papers.claims import Claim, mean_difference
from fedlora_kit.papers.grid import Cell

BESIDE = ("lora", "fed-hello")
_SHAPES = {"m.lora_A.weight": (2, 5), "m.lora_B.weight": (3, 2)}  # a Linear 5 -> 3: not square


def setting(seeds: int, own: str = "") -> fed_hello_grid.Setting:
    """Fed-HeLLo's Table II at smoke size, shortened, with the method ``own`` as a further row if it is given.

    Raises:
        UnknownName: ``own`` is not registered.
        BadValue: fewer than one seed.
    """
    return fed_hello_grid.setting(
        "fed-hello/table2",
        fed_hello_grid.PROFILES,
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
    return fed_hello_grid.cells(setting(seeds))


def check_average(name: str, seed: int = 0) -> pd.DataFrame:
    """Invariants of a registered method's `aggregate`, on random updates of three clients.

    A part of the kit's conformance suite (tests/test_methods.py), which runs whole federations as well. For
    methods that hand back averages of A and B themselves (`Method.keeps_factors`).

    Returns:
        invariant, holds.
    """
    rule = method(name)
    draw = torch.Generator().manual_seed(seed)

    def state() -> State:
        return {n: torch.randn(shape, generator=draw) for n, shape in _SHAPES.items()}

    start, sizes = state(), (3, 5, 40)
    updates = [ClientUpdate(k, n, _sent(rule, state())) for k, n in enumerate(sizes)]
    same = [ClientUpdate(u.client, u.num_examples, updates[0].tensors) for u in updates]
    before = digest(start), [digest(u.tensors) for u in updates]
    result = rule.aggregate(start, updates)
    scaled = [ClientUpdate(u.client, 7 * u.num_examples, u.tensors) for u in updates]
    checks: dict[str, Callable[[], bool]] = {
        "the order of the updates changes nothing, not a bit": lambda: (
            digest(rule.aggregate(start, updates[::-1])) == digest(result)
        ),
        "clients that agree are averaged to what they sent": lambda: _close(
            rule.aggregate(start, same), {**start, **same[0].tensors}
        ),
        "one client alone is taken as it is": lambda: _close(
            rule.aggregate(start, updates[:1]), {**start, **updates[0].tensors}
        ),
        "numbers of examples count relative to each other": lambda: _close(
            rule.aggregate(start, scaled), result
        ),
        "the adapter keeps its tensors and shapes": lambda: (
            {n: tuple(t.shape) for n, t in result.items()} == _SHAPES
        ),
        "what came in is left alone": lambda: (digest(start), [digest(u.tensors) for u in updates]) == before,
    }
    return pd.DataFrame({"invariant": text, "holds": check()} for text, check in checks.items())


def claims(own: str) -> list[Claim]:
    """A user's method against FedAvg of LoRA, over `papers.grid.results_frame`."""
    return [
        Claim(
            f"{own}_above_lora_{split}",
            f"{own}'s accuracy after six rounds is above that of lora ({words})",
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


def _sent(rule: Method, state: State) -> State:
    return {n: t for n, t in state.items() if rule.trains(n, 0, 0) and rule.sends(n)}


def _close(one: State, other: State) -> bool:
    return all(torch.allclose(one[n], t, atol=1e-6, rtol=1e-5) for n, t in other.items())
