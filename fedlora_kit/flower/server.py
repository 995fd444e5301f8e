"""The ServerApp: takes the run's description from Flower's run config, runs it, writes the store's entry."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import ServerApp

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.devices import computing_on, reset_peak
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.atomic import write_json
from fedlora_kit.experiments.placing import device_for
from fedlora_kit.experiments.run import finish, recorded
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.flower.peers import Peers
from fedlora_kit.flower.support import check_support, read
from fedlora_kit.numerals import fixed
from fedlora_kit.training.checks import check
from fedlora_kit.training.federation import Federation, Snapshot
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.scores import scores_own

#: names the file where `launch` looks for the outcome; beside it, with ".lines", lie the lines about rounds
REPORT = "FEDLORA_FLOWER_REPORT"

app = ServerApp()


def coordinate(
    spec: RunSpec,
    grid: Any,
    *,
    nodes: int,
    timeout: float = 3600.0,
    wait: float = 120.0,
    device: str = "auto",
    store: Store | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Entry:
    """The finished run, from the store or trained by the SuperNodes behind ``grid``.

    The entry is that of the run in one process, with two differences: tensors that stay with clients are
    not in it (they never leave their node), and the provenance names Flower. There are no checkpoints.

    Args:
        nodes: SuperNodes that must take part.
        timeout: seconds that a node may take for one round, or for one evaluation.
        wait: seconds for all nodes to connect.

    Raises:
        BadValue: the run cannot be spread over machines; see `support`.
        RunFailed: a loss or an adapter became NaN or infinite.
        NodeLost, BadReply: see `Peers`.
    """
    check_support(spec, nodes)
    store = store or Store()
    key = spec.key()
    with store.work(key, spec.model_dump(mode="json")) as work:
        if work.entry is not None:
            return work.entry
        store.clear_failure(key)
        clock = time.perf_counter()
        fed = _federation(spec, device)
        check(fed)
        slot = AdapterSlot(fed.model)
        peers = Peers(grid, spec, fed, slot, nodes=nodes, timeout=timeout, wait=wait)
        peers.gather()
        say(f"{nodes} SuperNodes, {len(fed.clients)} clients")

        def tell(now: Snapshot) -> None:
            say(_line(now.history[-1], spec.rounds.rounds))

        with computing_on(fed.device):
            outcome = recorded(work, lambda: run_federation(fed, elsewhere=peers, save=tell))
        seconds, flower = time.perf_counter() - clock, {"version": version("flwr"), "nodes": nodes}
        return finish(spec, work, fed, outcome, seconds, resumed_after_round=None, flower=flower)


def _line(record: dict[str, Any], rounds: int) -> str:
    loss = "no loss" if record["train_loss"] is None else f"loss {fixed(record['train_loss'], 4)}"
    scores = ", ".join(f"{name} {fixed(s['accuracy'], 4)}" for name, s in record.get("eval", {}).items())
    trained = f"{record['training_clients']} clients"
    return f"round {record['round'] + 1} of {rounds}: {trained}, {loss}" + (f", {scores}" if scores else "")


def _federation(spec: RunSpec, asked: str) -> Federation:
    """The server's: on the device asked for if a model's pass is made here, else on the CPU."""
    if spec.model.load_in_4bit:  # such weights are made on a GPU
        device = device_for(spec, asked)
        reset_peak(device)
        return build(spec, device)
    fed = build(spec, torch.device("cpu"))
    late = fed.rounds.cohort is not None  # clients that have not trained yet are scored by the server
    if not late and scores_own(fed) and fed.proxy is None:
        return fed
    device = device_for(spec, asked)
    reset_peak(device)
    return replace(fed, model=fed.model.to(device), device=device)


def main(grid: Any, context: Any) -> None:
    """Run what the run config describes: spec (JSON), nodes, timeout, wait, device."""
    config = context.run_config
    try:
        entry = coordinate(
            read(str(config["spec"])),
            grid,
            nodes=int(config["nodes"]),
            timeout=float(config["timeout"]),
            wait=float(config["wait"]),
            device=str(config["device"]),
            say=_say,
        )
    except FedloraError as error:
        _report({"problem": error.problem, "remedy": error.remedy})
        print(f"error: {error}", flush=True)
        raise
    print(f"run {entry.key} is finished", flush=True)
    _report({"key": entry.key})


def _say(line: str) -> None:
    print(line, flush=True)
    path = os.environ.get(REPORT)
    if path:
        with open(f"{path}.lines", "a", encoding="utf-8") as lines:
            lines.write(line + "\n")


def _report(outcome: dict[str, Any]) -> None:
    path = os.environ.get(REPORT)
    if path:
        write_json(Path(path), outcome)


app.main()(main)
