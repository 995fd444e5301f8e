"""The ServerApp: takes the run's description from Flower's run config, runs it, writes the store's entry."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import ServerApp

from fedlora_kit.adapter import AdapterSlot, save_peft
from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.tasks import get_task
from fedlora_kit.devices import computing_on, reset_peak
from fedlora_kit.errors import FedloraError, NonFinite, NothingMoved
from fedlora_kit.experiments.atomic import write_json
from fedlora_kit.experiments.placing import device_for
from fedlora_kit.experiments.provenance import collect
from fedlora_kit.experiments.run import RunFailed, summarise
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.source import source_digest
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store, Work
from fedlora_kit.flower.peers import Peers
from fedlora_kit.flower.rounds import computes, run_rounds
from fedlora_kit.flower.support import check_support, read
from fedlora_kit.models.backbones import backbone_fingerprint
from fedlora_kit.training.checks import check
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.precision import passes_of

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
        return _train(spec, work, grid, nodes, timeout, wait, device, say)


def _train(
    spec: RunSpec,
    work: Work,
    grid: Any,
    nodes: int,
    timeout: float,
    wait: float,
    device: str,
    say: Callable[[str], None],
) -> Entry:
    started, clock = datetime.now(UTC), time.perf_counter()
    fed = _federation(spec, device)
    check(fed)
    slot = AdapterSlot(fed.model)
    peers = Peers(grid, spec, fed, slot, nodes=nodes, timeout=timeout, wait=wait)
    peers.gather()
    say(f"{nodes} SuperNodes, {len(fed.clients)} clients")
    try:
        with computing_on(fed.device):
            outcome = run_rounds(fed, slot, peers, say)
    except NonFinite as error:
        work.fail({"error": error.problem, "round": error.round_index, "client": error.client})
        raise RunFailed(work.key, work.failure or {}) from error
    except NothingMoved as error:
        work.fail({"error": error.problem})
        raise RunFailed(work.key, work.failure or {}) from error
    files: dict[str, Any] = {
        "history.jsonl": outcome.history,
        "results.json": summarise(fed, outcome),
        "provenance.json": collect(
            str(fed.device),
            time.perf_counter() - clock,
            started,
            resumed_after_round=None,
            precision=passes_of(spec.precision, spec.model.dtype),
            seed=spec.seed,
            data="; ".join(fingerprint(get_task(name)) for name in spec.tasks()),
            model=backbone_fingerprint(spec.model.backbone),
            source=source_digest(),
            flower={"version": version("flwr"), "nodes": nodes},
        ),
        "adapter": lambda folder: save_peft(fed.model, outcome.state, folder),
    }
    if outcome.privacy is not None:
        files["privacy.json"] = outcome.privacy
    return work.finish(files)


def _federation(spec: RunSpec, asked: str) -> Federation:
    """The server's: on the device asked for if a model's pass is made here, else on the CPU."""
    if not spec.model.load_in_4bit:  # such weights are made on a GPU
        fed = build(spec, torch.device("cpu"))
        if not computes(fed):
            return fed
        device = device_for(spec, asked)
        reset_peak(device)
        return replace(fed, model=fed.model.to(device), device=device)
    device = device_for(spec, asked)
    reset_peak(device)
    return build(spec, device)


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
