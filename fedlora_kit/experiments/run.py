"""From a description to a finished run in the store: trained once, resumed if it was killed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedlora_kit.adapter import AdapterSlot, State, count, digest, on_host, save_peft
from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.tasks import get_task
from fedlora_kit.devices import computing_on, release, reset_peak
from fedlora_kit.errors import FedloraError, Interrupted, NonFinite, NothingMoved
from fedlora_kit.experiments.checkpoints import Checkpoint
from fedlora_kit.experiments.placing import device_for
from fedlora_kit.experiments.provenance import collect
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.source import source_digest
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store, Work
from fedlora_kit.models.backbones import backbone_fingerprint
from fedlora_kit.training.client_states import ClientStates
from fedlora_kit.training.federation import Federation, Outcome, Snapshot, trained_names
from fedlora_kit.training.precision import passes_of
from fedlora_kit.training.rounds import run_federation


class RunFailed(FedloraError):
    """A run that cannot be finished (it diverged, or nothing moved); the store has the record.

    Attributes:
        key: the run's key.
        record: error, round and client.
    """

    def __init__(self, key: str, record: dict[str, Any]) -> None:
        super().__init__(
            f"run {key} failed: {record.get('error', 'unknown')}",
            "lower the learning rate; or, if the cause is gone, run again with force",
        )
        self.key, self.record = key, record
        self.args = (key, record)


def run(spec: RunSpec, *, device: str = "auto", store: Store | None = None, force: bool = False) -> Entry:
    """The finished run that ``spec`` describes: from the store, or trained now.

    A run that was killed goes on from its last round and ends bit-identical, on the kind of device that it
    began on (and, on a GPU, with deterministic algorithms: `devices.resolve_device`). On another kind it goes
    on with that kind's own noise and dropout; a warning and the provenance say so. A run that failed before
    fails again at once, without training.

    Args:
        device: "auto", "cpu", "cuda", "cuda:<n>". Not part of the description. "auto" is a GPU if there is
            one, but for the kit's own small backbones (`placing.wanted_device`).
        force: try a run again that failed.

    Raises:
        RunFailed: the loss or an adapter became NaN or infinite.
        BadValue, FedloraError: the device is not here, or cannot be used.
        Interrupted: by Ctrl-C, or the notebook's stop button.
    """
    store = store or Store()
    key = spec.key()
    entry = store.load(key)
    if entry is not None:
        return entry
    with store.work(key, spec.model_dump(mode="json")) as work:
        if work.entry is not None:
            return work.entry
        if work.failure is not None and not force:
            raise RunFailed(key, work.failure)
        store.clear_failure(key)
        where = device_for(spec, device)
        try:
            with computing_on(where):
                return _train(spec, work, where)
        except KeyboardInterrupt:
            raise Interrupted(f"run {key} is kept up to its last whole round") from None
        finally:
            if where.type == "cuda":
                release()  # to other processes on the GPU


def _train(spec: RunSpec, work: Work, device: torch.device) -> Entry:
    clock = time.perf_counter()
    reset_peak(device)
    federation = build(spec, device)
    checkpoint = work.checkpoints.load_latest()
    devices = _devices(work.key, checkpoint, device.type)
    # the last round's files, too, lie there until finish() has made the entry
    personal = ClientStates(device, work.checkpoints.folder, checkpoint.files if checkpoint else None)

    def save(now: Snapshot) -> None:
        if now.next_round < spec.rounds.rounds:  # the last round becomes the entry itself
            tensors, meta = _pack(now)
            meta["devices"] = devices
            work.checkpoints.save(now.next_round - 1, tensors, meta, personal.files())

    def train() -> Outcome:
        return run_federation(federation, resume=_unpack(checkpoint), save=save, personal=personal)

    outcome, seconds = recorded(work, train), time.perf_counter() - clock
    resumed = checkpoint.round_index if checkpoint else None
    return finish(spec, work, federation, outcome, seconds, resumed_after_round=resumed, devices=devices)


def recorded(work: Work, train: Callable[[], Outcome]) -> Outcome:
    """What ``train`` gives; a run that cannot be finished is recorded as failed.

    Raises:
        RunFailed: it diverged, or nothing moved.
    """
    try:
        return train()
    except (NonFinite, NothingMoved) as error:
        place = {"round": error.round_index, "client": error.client} if isinstance(error, NonFinite) else {}
        work.fail({"error": error.problem, **place})
        raise RunFailed(work.key, work.failure or {}) from error


def finish(
    spec: RunSpec, work: Work, fed: Federation, outcome: Outcome, seconds: float, **facts: Any
) -> Entry:
    """The run as an entry; ``facts`` are of its provenance."""
    provenance = collect(
        str(fed.device),
        seconds,
        precision=passes_of(spec.precision, spec.model.dtype),
        seed=spec.seed,
        data="; ".join(fingerprint(get_task(name)) for name in spec.tasks()),
        model=backbone_fingerprint(spec.model.backbone),
        source=source_digest(),
        **facts,
    )
    files: dict[str, Any] = {
        "history.jsonl": outcome.history,
        "results.json": summarise(fed, outcome),
        "provenance.json": provenance,
        "adapter": lambda folder: save_peft(fed.model, outcome.state, folder),
    }
    if outcome.privacy is not None:
        files["privacy.json"] = outcome.privacy
    if outcome.personal:
        files["personal"] = lambda folder: _save_personal(outcome.personal, folder)
    return work.finish(files)


def summarise(federation: Federation, outcome: Outcome) -> dict[str, Any]:
    """The run in a few numbers.

    Returns:
        scores: scored name -> {final, last10, best, best_round, loss, examples}; accuracies in [0, 1]. Each
            further metric of `training.evaluation` stands there by its name, as {final, last10, best}.
            ``last10`` is the mean over the evaluations in the last 10 rounds. ``best`` is the maximum over
            the evaluations *on the scored part itself*: optimistic, given because papers report it.
        local: with held-out examples of the clients: metric -> {final, last10, best} of the unweighted mean
            over the clients, each by its own adapter, and "clients": the last value of each; then "examples".
        trained_parameters: scalars that train at client 0 in round 0.
        sent_parameters: what the first client sends after its local training in round 0.
        sent_bytes: what the mean client sends in round 0, stages included.
        bytes_up: total of all clients and rounds, stages included.
        client_sizes: examples of each client.
        adapter_digest: SHA-256 of the final adapter's bits.
    """
    history = outcome.history
    slot = AdapterSlot(federation.model)
    trained = {n: outcome.state[n] for n in trained_names(federation, slot, 0, 0)}
    scored = [(h["round"], h["eval"]) for h in history if "eval" in h]
    last_rounds = federation.rounds.rounds - 10
    return {
        "scores": {
            name: _scores([(r, e[name]) for r, e in scored], last_rounds) for name in federation.evals
        },
        **_local(history, last_rounds),
        "trained_parameters": count(trained),
        "sent_parameters": history[0]["parameters_sent"][0] if history[0]["parameters_sent"] else 0,
        "sent_bytes": history[0]["bytes_up"] // max(1, history[0]["training_clients"]),
        "bytes_up": sum(h["bytes_up"] for h in history),
        "rounds": federation.rounds.rounds,
        "client_sizes": [len(c) for c in federation.clients],
        "epsilon": outcome.privacy["epsilon"] if outcome.privacy else None,
        "adapter_digest": digest(outcome.state),
    }


def _scores(scored: Sequence[tuple[int, Mapping[str, float]]], last_rounds: int) -> dict[str, Any]:
    best_round, _ = max(((r, e["accuracy"]) for r, e in scored), key=lambda pair: pair[1])
    last = scored[-1][1]
    further = [name for name in last if name not in {"accuracy", "loss", "examples"}]
    return {
        **_metric(scored, "accuracy", last_rounds),
        "best_round": best_round,
        "loss": last["loss"],
        "examples": last["examples"],
        **{name: _metric(scored, name, last_rounds) for name in further},
    }


def _metric(
    scored: Sequence[tuple[int, Mapping[str, float]]],
    name: str,
    last_rounds: int,
    best: Callable[..., float] = max,
) -> dict[str, float]:
    late = [e[name] for r, e in scored if r >= last_rounds]
    return {
        "final": scored[-1][1][name],
        "last10": sum(late) / len(late),
        "best": best(e[name] for _, e in scored),
    }


def _local(history: Sequence[Mapping[str, Any]], last_rounds: int) -> dict[str, Any]:
    scored = [(h["round"], h["local"]) for h in history if "local" in h]
    if not scored:
        return {}
    last = scored[-1][1]
    metrics = [name for name in last if name not in {"clients", "examples"}]
    means = [(r, {name: sum(table[name]) / len(table[name]) for name in metrics}) for r, table in scored]
    found: dict[str, Any] = {
        name: {
            **_metric(means, name, last_rounds, best=min if name == "loss" else max),
            "clients": dict(zip(map(str, last["clients"]), last[name], strict=True)),
        }
        for name in metrics
    }
    return {
        "local": {**found, "examples": dict(zip(map(str, last["clients"]), last["examples"], strict=True))}
    }


def _pack(now: Snapshot) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a checkpoint's own file holds; the clients' tensors lie beside it (`ClientStates.files`)."""
    return on_host(now.state), {"history": now.history, "ledger": now.ledger}


def _unpack(checkpoint: Checkpoint | None) -> Snapshot | None:
    if checkpoint is None:
        return None
    meta = checkpoint.meta
    return Snapshot(checkpoint.round_index + 1, checkpoint.tensors, {}, meta["history"], meta["ledger"])


def _devices(key: str, checkpoint: Checkpoint | None, kind: str) -> list[list[Any]]:
    """[first round, kind of device] of each part of the run, this one included; a change is said aloud."""
    if checkpoint is None:
        return [[0, kind]]
    before: list[list[Any]] = checkpoint.meta["devices"]
    if before[-1][1] == kind:
        return before
    warnings.warn(
        f"run {key} was trained on {before[-1][1]} for {checkpoint.round_index + 1} rounds and goes on on "
        f"{kind}, with noise and dropout drawn there: as good a run, but it ends with other bits",
        stacklevel=4,
    )
    return [*before, [checkpoint.round_index + 1, kind]]


def _save_personal(personal: Mapping[int, State], folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for client, tensors in personal.items():
        plain = {name: t.contiguous() for name, t in on_host(tensors).items()}
        save_file(plain, folder / f"client-{client:05d}.safetensors")
