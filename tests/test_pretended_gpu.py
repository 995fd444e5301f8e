"""Whole runs on a pretended GPU: every tensor is where it should be, and the host seldom waits for it."""

from __future__ import annotations

from dataclasses import replace

import pretend_cuda
import pytest
import torch
import toy
from pretend_cuda import MixedDevices, pretended

from fedlora_kit.adapter import load_peft
from fedlora_kit.data.encoded import EncodedText
from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.methods import METHODS
from fedlora_kit.papers.runs_of import planned_items
from fedlora_kit.planning.rate import given_rate
from fedlora_kit.study.plan import plan
from fedlora_kit.training import client_states
from fedlora_kit.training.client_states import ClientStates
from fedlora_kit.training.stack_batches import StackLoader

if (missing := pretend_cuda.why_not()) is not None:
    pytest.skip(f"no pretended GPU: {missing}", allow_module_level=True)

REAL_GENERATOR = torch.Generator
PRIVATE = {"sigma": 0.8, "delta": 1e-3, "clip": 1.0}
GROUPS = {"groups": [1, 1, 1], "layers": [0.5, 0.5, 1.0]}
IMAGES = {
    "model": {"backbone": "kit/image-tiny", "lora": {"rank": 4, "alpha": 8}},
    "data": {"task": "digits", "train_limit": 60, "eval_limit": 20, "augment": "crop_flip"},
    "local": {"lr": 0.02, "steps": 2, "batch_size": 4},
    "rounds": {"rounds": 2},
}
CAUSAL = {
    "model": {"backbone": "kit/causal-tiny", "gradient_checkpointing": True},
    "data": {
        "task": "arithmetic",
        "max_length": 100,
        "train_limit": 9,
        "eval_limit": 2,
        "max_new_tokens": 3,
    },
    "local": {"lr": 0.1, "steps": 2, "batch_size": 2},
}
OWN = {"task": "toy", "holdout": 10, "client_holdout": 0.25}
LOCAL = {"lr": 0.1, "steps": 2, "batch_size": 4, "max_tokens": 16}  # two pieces a step and more
ONE_BY_ONE = {**LOCAL, "stack": "never"}
SETTINGS = {
    "text, one by one": {"local": {**ONE_BY_ONE, "optimizer": "adamw", "lr": 0.01}},
    "text, private by rows": {"privacy": PRIVATE, "method": {"name": "ffa-lora"}},
    "text, private by hooks": {"privacy": PRIVATE, "local": ONE_BY_ONE},
    "images with views, Fed-HeLLo": {
        **IMAGES,
        "method": {
            "name": "fed-hello",
            "settings": {"resources": GROUPS, "start": 0, "every": 1, "proxy_examples": 8},
        },
    },
    "causal, checkpointing, answers": CAUSAL,
    "FedLoRA-Optimizer": {
        "method": {"name": "fedlora-optimizer", "settings": {"local_when": "every_round"}},
        "data": {**OWN, "server_examples": 6},
    },
    "FedSA, states in files": {"method": {"name": "fedsa-lora"}, "data": OWN, "rounds": {"rounds": 2}},
    "FLoRA": {"method": {"name": "flora"}, "rounds": {"rounds": 2}},
}
#: how often the host may wait in a run: a piece of a client's step, a client's round, a round, a run
READS = {
    "text, one by one": (0, 2, 2, 6),
    "text, private by rows": (0, 1, 2, 6),
    "text, private by hooks": (0, 2, 2, 6),
    "images with views, Fed-HeLLo": (0, 1, 1, 4),
    "causal, checkpointing, answers": (1, 2, 8, 6),
    "FedLoRA-Optimizer": (0, 5, 8, 6),
    "FedSA, states in files": (0, 5, 2, 6),
    "FLoRA": (0, 2, 7, 6),
}


def allowed(name):
    """Of three clients and two steps; a step has at least the pieces that are counted here."""
    piece, client, a_round, a_run = READS[name]
    rounds = SETTINGS[name].get("rounds", {"rounds": 1})["rounds"]
    return rounds * (3 * (2 * piece + client) + a_round) + a_run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")


def described(name, **changes):
    return RunSpec.parse(
        toy.description(**{"local": LOCAL, "rounds": {"rounds": 1}, **SETTINGS[name], **changes})
    )


def products(adapter):
    """B A in place of A and B."""
    plain = {name: t for name, t in adapter.items() if ".lora_" not in name}
    a = {name: t for name, t in adapter.items() if ".lora_A" in name}
    return plain | {name: adapter[name.replace(".lora_A", ".lora_B")] @ t for name, t in a.items()}


def same(one, other):
    mine, theirs = load_peft(one.adapter_dir), load_peft(other.adapter_dir)
    assert mine.keys() == theirs.keys()
    if not METHODS[one.spec["method"]["name"]].keeps_factors:  # of them the product alone has a meaning
        mine, theirs = products(mine), products(theirs)
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_on_a_gpu_is_the_cpus(hub, tmp_path, monkeypatch, name):
    monkeypatch.setattr(client_states, "MEMORY", 0)
    spec = described(name)
    on_cpu = run(spec, device="cpu", store=Store(tmp_path / "cpu"))
    with pretended() as machine:
        on_card = run(spec, device="cuda", store=Store(tmp_path / "cuda"))
    same(on_card, on_cpu)
    assert sum(machine.reads.values()) <= allowed(name), machine.reads


def test_a_resumed_run_ends_as_one_that_was_not(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(client_states, "MEMORY", 0)
    spec, pack = described("FedSA, states in files", rounds={"rounds": 3, "eval_every": 3}), run_module._pack

    def interrupted(now):
        return pack(now) if now.next_round == 1 else 1 / 0

    with pretended():
        whole = run(spec, device="cuda", store=Store(tmp_path / "whole"))
        monkeypatch.setattr(run_module, "_pack", interrupted)
        with pytest.raises(ZeroDivisionError):
            run(spec, device="cuda", store=Store(tmp_path / "cut"))
        monkeypatch.setattr(run_module, "_pack", pack)
        resumed = run(spec, device="cuda", store=Store(tmp_path / "cut"))
    assert resumed.provenance["resumed_after_round"] == 0
    assert (resumed.results, resumed.history) == (whole.results, whole.history)


def test_the_second_of_two_gpus_is_recorded_as_such(hub, tmp_path):
    with pretended(2) as machine:
        entry = run(described("text, private by rows"), device="cuda:1", store=Store(tmp_path))
    assert machine.current == 1
    device, peak = entry.provenance["device"], entry.provenance["peak_memory_bytes"]
    assert (device["type"], device["index"], device["name"]) == ("cuda", 1, "Pretended GPU 1")
    assert (peak["cuda"], peak["cuda_reserved"]) == (1001, 2001)


def test_a_run_on_the_cpu_and_a_plan_leave_the_gpus_alone(hub, tmp_path):
    with pretended(2) as machine:
        run(described("text, one by one"), device="cpu", store=Store(tmp_path))
        made = plan(
            "smoke",
            planned_items("smoke", {"start_here": {"seeds": 1}}),
            lambda _: given_rate(1.0),
            Store(tmp_path),
        )
        assert made.totals.missing
    assert machine.started is None, machine.started
    assert not machine.reads


def noise_from_the_cpu(monkeypatch):
    monkeypatch.setattr(torch, "Generator", lambda device=None: REAL_GENERATOR())


def labels_on_the_cpu(monkeypatch):
    batch = EncodedText.batch

    def left(self, indices, device):
        inputs, labels = batch(self, indices, device)
        return inputs, labels.cpu()

    monkeypatch.setattr(EncodedText, "batch", left)


def owners_on_the_cpu(monkeypatch):
    piece = StackLoader._piece

    def left(self, *args):
        made = piece(self, *args)
        return replace(made, owners=made.owners.cpu())

    monkeypatch.setattr(StackLoader, "_piece", left)


def states_on_the_cpu(monkeypatch):
    monkeypatch.setattr(client_states, "MEMORY", 0)
    monkeypatch.setattr(run_module, "ClientStates", lambda _, *rest: ClientStates(torch.device("cpu"), *rest))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (noise_from_the_cpu, "text, private by rows"),
        (noise_from_the_cpu, "text, private by hooks"),
        (labels_on_the_cpu, "text, one by one"),
        (owners_on_the_cpu, "text, private by rows"),
        (states_on_the_cpu, "FedSA, states in files"),
    ],
)
def test_a_planted_mixture_is_found(hub, tmp_path, fault, name):
    with pretended(), pytest.MonkeyPatch.context() as patch:
        fault(patch)
        with pytest.raises(MixedDevices):
            run(described(name), device="cuda", store=Store(tmp_path))


def test_a_planted_read_is_counted(hub, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def watched(self, *args):
        float(self.param_groups[0]["params"][0].detach().sum())
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    with pretended() as machine:
        run(described("text, one by one"), device="cuda", store=Store(tmp_path))
    assert sum(machine.reads.values()) > allowed("text, one by one")
