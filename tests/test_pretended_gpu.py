"""Whole runs on a pretended GPU: every tensor is where it should be, and the host seldom waits for the device."""

from __future__ import annotations

import pretend_cuda
import pytest
import torch
import toy
from pretend_cuda import pretended

from fedlora_kit.adapter import load_peft
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.training import client_states

if (missing := pretend_cuda.why_not()) is not None:
    pytest.skip(f"no pretended GPU: {missing}", allow_module_level=True)

PRIVATE = {"sigma": 0.8, "delta": 1e-3, "clip": 1.0}
GROUPS = {"groups": [1, 1, 1], "layers": [0.5, 0.5, 1.0]}
IMAGES = {
    "model": {"backbone": "kit/image-tiny", "lora": {"rank": 4, "alpha": 8}},
    "data": {"task": "digits", "train_limit": 60, "eval_limit": 20, "augment": "crop_flip"},
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
    "local": {"lr": 0.1, "steps": 1, "batch_size": 2},
    "rounds": {"rounds": 1},
}
OWN = {"task": "toy", "holdout": 10, "client_holdout": 0.25}
ONE_BY_ONE = {"lr": 0.2, "steps": 2, "batch_size": 4, "stack": "never"}
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
    "FedSA, states in files": {"method": {"name": "fedsa-lora"}, "data": OWN},
    "FLoRA": {"method": {"name": "flora"}},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")


def described(name):
    return RunSpec.parse(toy.description(**{"rounds": {"rounds": 2}, **SETTINGS[name]}))


def same(one, other):
    mine, theirs = load_peft(one.adapter_dir), load_peft(other.adapter_dir)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_on_a_gpu_is_the_cpus(hub, tmp_path, monkeypatch, name):
    monkeypatch.setattr(client_states, "MEMORY", 0)
    spec = described(name)
    on_cpu = run(spec, device="cpu", store=Store(tmp_path / "cpu"))
    with pretended() as machine:
        on_card = run(spec, device="cuda", store=Store(tmp_path / "cuda"))
    assert machine.started is not None
    same(on_card, on_cpu)
    print(name, sum(machine.reads.values()), machine.reads.most_common(12))
