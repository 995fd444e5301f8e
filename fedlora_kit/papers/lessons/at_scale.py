"""The lesson on scale: plans as a table, shares of runs, a run that is stopped and goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedlora_kit.adapter import State, digest
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.looks import SINGLE, of_method
from fedlora_kit.numerals import duration
from fedlora_kit.papers.lessons.small import digits_run
from fedlora_kit.planning.rate import given_rate
from fedlora_kit.randomness import checked_seeds
from fedlora_kit.study.claims import Claim, MissingCells, Verdict
from fedlora_kit.study.plan import plan
from fedlora_kit.study.planned import Runs
from fedlora_kit.training.federation import Outcome, Snapshot
from fedlora_kit.training.rounds import run_federation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedlora_kit.training.federation import Federation

ITEMS = ("ffa-lora/table5", "ffa-lora/gsm8k", "fed-hello/table2", "fedlora-optimizer/global")
#: item -> the method whose colour its paper has in the figure
PAPERS = {"ffa-lora": "ffa-lora", "fed-hello": "fed-hello", "fedlora-optimizer": "fedlora-optimizer"}


def plan_frame(planned: Mapping[str, Runs], profile: str, tflops: float) -> pd.DataFrame:
    """What items need on a device of a given speed: one row an item.

    Args:
        planned: item -> its runs.
        tflops: 10^12 operations a second that training reaches.

    Returns:
        item, runs, device_hours (one device, one run after the other), memory_gb (of the largest run),
        traffic_gb (up and down, all clients), store_gb; 1 GB is 10^9 bytes.
    """
    rate = given_rate(tflops)
    rows = []
    for item in plan(profile, planned, lambda spec: rate).items:
        needed = item.totals
        rows.append(
            {
                "item": item.item,
                "runs": needed.missing + needed.finished,
                "device_hours": needed.device_hours,
                "memory_gb": needed.memory_bytes / 1e9,
                "traffic_gb": (needed.bytes_up + needed.bytes_down) / 1e9,
                "store_gb": needed.store_bytes / 1e9,
            }
        )
    return pd.DataFrame(rows)


def shared_specs(seeds: int) -> list[RunSpec]:
    """Small runs to share out: two methods × seeds, two rounds each."""
    return [
        digits_run(name, seed=seed, rounds=2, steps=2)
        for name in ("lora", "ffa-lora")
        for seed in checked_seeds(seeds)
    ]


def train(specs: Sequence[RunSpec], store: Store, device: str) -> int:
    """Train what a store lacks of these runs, one after the other; returns how many it has of them then."""
    from fedlora_kit.running.many import run_all

    done = run_all(specs, device=device, jobs=1, store=store) if specs else []
    return sum(run.entry is not None for run in done)


class Stopped(Exception):
    """Stands for a machine that is lost."""


def stop_after(federation: Federation, rounds: int) -> Snapshot:
    """Run so many rounds, then lose the machine: what is left is the last snapshot."""
    kept: list[Snapshot] = []

    def save(now: Snapshot) -> None:
        kept.append(
            Snapshot(
                now.next_round,
                {name: tensor.clone() for name, tensor in now.state.items()},
                {client: dict(own) for client, own in now.personal.items()},
                list(now.history),
                now.ledger,
            )
        )
        if now.next_round == rounds:
            raise Stopped

    with suppress(Stopped):
        run_federation(federation, save=save)
    return kept[-1]


def outcome_digest(outcome: Outcome) -> str:
    """SHA-256 of the global adapter's bits."""
    state: State = outcome.state
    return digest(state)


def claims() -> list[Claim]:
    """Over a frame with the columns check and holds."""
    texts = {
        "shares": "every run of the array falls to exactly one share",
        "resumed": "a run that is stopped and goes on ends with the same bits as one that is not",
        "fetched": "an entry that went through the shared store is the same as the one that was published",
    }
    return [
        Claim(check, text, "this kit", "own check", lambda r, c=check: _holds(r, c))  # type: ignore[misc]
        for check, text in texts.items()
    ]


def _holds(frame: pd.DataFrame, check: str) -> Verdict:
    rows = frame[frame["check"] == check]
    if rows.empty:
        raise MissingCells(f"no result for {check}", "run the cell")
    good = int(rows["holds"].sum())
    return Verdict(
        "reproduced" if good == len(rows) else "not reproduced", f"{good} of {len(rows)}", {"held": good}
    )


def figure(planned: pd.DataFrame, tflops: float) -> Figure:
    """Device hours by item, as bars on a logarithmic axis.

    Args:
        planned: from `plan_frame`.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(figsize=(SINGLE, 0.7 + 0.3 * len(planned)))
    colours = [of_method(PAPERS.get(item.partition("/")[0], "")).colour for item in planned["item"]]
    axes.barh(planned["item"], planned["device_hours"], color=colours, height=0.65)
    for at, hours in enumerate(planned["device_hours"]):
        axes.annotate(
            duration(3600 * hours), (hours, at), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel=f"hours of one device at {tflops:g} TFLOP/s")
    axes.set_xlim(1, 6 * planned["device_hours"].max())
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return fig


def runs(profile: str, **parameters: Any) -> Runs:
    """None that are stored."""
    return Runs(note="trains a few runs in stores of its own; trains nothing that is kept")
