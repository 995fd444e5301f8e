"""Whole runs: trained once, resumed bit-identically, failures recorded, adapters that load elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import toy
from cells import cell
from store_tools import killed_again_and_again

from fedlora_kit.adapter import digest, load_peft
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments.run import RunFailed, run
from fedlora_kit.experiments.setup import load_data, split_indices
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.methods import METHODS
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.running.many import default_jobs, run_all


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")
    return tmp_path / "hub"


def parsed(**changes):
    return RunSpec.parse(toy.description(**changes))


PRIVATE = {"epsilon": 5.0, "delta": 1e-3, "clip": 1.0}


def test_a_run_is_trained_once(hub, monkeypatch):
    first = run(parsed())
    assert Store().status(first.key) == "finished"
    monkeypatch.setattr(run_module, "_train", lambda *a: pytest.fail("trained again"))
    assert run(parsed()).results == first.results


def test_what_an_entry_holds(hub):
    entry = run(parsed(privacy=PRIVATE, method={"name": "ffa-lora"}))
    assert entry.spec["method"]["name"] == "ffa-lora"
    assert [h["round"] for h in entry.history] == [0, 1, 2, 3]
    scores = entry.results["scores"]
    assert set(scores) == {"validation", "holdout"}
    assert scores["validation"]["final"] == entry.history[-1]["eval"]["validation"]["accuracy"]
    assert scores["validation"]["last10"] == pytest.approx(
        np.mean([h["eval"]["validation"]["accuracy"] for h in entry.history])
    )
    assert scores["validation"]["examples"] == 30
    assert scores["holdout"]["examples"] == 10
    assert entry.results["client_sizes"] == [17, 17, 16]
    assert entry.results["trained_parameters"] == 8 * 2 * 16  # 8 modules, B of (16, 2)
    assert entry.results["sent_bytes"] == 4 * 8 * 2 * 16
    assert entry.privacy["epsilon"] <= 5.0
    assert entry.privacy["steps"] == 8
    assert entry.provenance["versions"]["torch"] == torch.__version__
    assert entry.results["adapter_digest"] == digest(
        {n: t for n, t in load_peft(entry.adapter_dir).items() if "lora" in n}
    )


ROC = {"groups": [1, 1, 1], "layers": [0.5, 0.5, 1.0]}
FIM = {"resources": ROC, "start": 1, "every": 2, "proxy_examples": 8}


def test_fed_hello_as_a_run(hub):
    entry = run(parsed(method={"name": "fed-hello", "settings": FIM}))
    sizes = entry.results["client_sizes"]
    assert sum(sizes) == 60 - 10 - 8  # less 10 held out and 8 set aside, from the parts of a run without
    assert all(size <= whole for size, whole in zip(sizes, (17, 17, 16), strict=True))
    assert [h["round"] for h in entry.history if "layer_scores" in h] == [1, 3]
    sent = entry.history[0]["parameters_sent"]
    assert sent == [sent[0], sent[0], 2 * sent[0]]  # 1, 1 and 2 of 2 layers
    assert entry.results["sent_bytes"] == 4 * sum(sent) // 3


def test_method_settings_are_checked_before_anything_runs(hub):
    for settings, said in (
        ({"resources": {"groups": [1, 1], "layers": [2, 1]}}, "layers"),
        ({"depth": 3}, "depth"),
    ):
        with pytest.raises(BadValue, match=said):
            parsed(method={"name": "fed-hello", "settings": settings})
    with pytest.raises(BadValue, match="not under DP"):
        parsed(method={"name": "fed-hello", "settings": FIM}, privacy=PRIVATE)


def test_the_adapter_loads_elsewhere_with_the_same_accuracy(hub):
    spec = parsed()
    entry = run(spec)
    _, evals = load_data(spec.data, spec.model.backbone)
    stranger = load_backbone(spec.model.backbone, 2, head_seed=12345)  # another random head
    model = peft.PeftModel.from_pretrained(stranger, str(entry.adapter_dir)).eval()
    data = evals["validation"]
    inputs, labels = data.batch(np.arange(len(data)), torch.device("cpu"))
    with torch.no_grad():
        accuracy = float((model(**inputs).logits.argmax(-1) == labels).float().mean())
    assert accuracy == pytest.approx(entry.results["scores"]["validation"]["final"])


def test_methods_at_equal_seed_see_the_same_split_and_head(hub):
    one, other = parsed(), parsed(method={"name": "ffa-lora"}, privacy=PRIVATE)
    train, _ = load_data(one.data, one.model.backbone)
    for a, b in zip(split_indices(one, train), split_indices(other, train), strict=True):
        assert a.tolist() == b.tolist()
    heads = [load_peft(run(s).adapter_dir)["classifier.out_proj.weight"] for s in (one, other)]
    assert torch.equal(*heads)


def test_holdout_and_limits_are_disjoint_and_the_same_for_all_seeds(hub):
    whole, _ = load_data(parsed(data={"task": "toy"}).data, toy.BACKBONE)
    train, evals = load_data(
        parsed(data={"task": "toy", "holdout": 20, "train_limit": 25}).data, toy.BACKBONE
    )
    assert (len(train), len(evals["holdout"]), len(whole)) == (25, 20, 60)

    def rows(data):
        flat = data.fields["input_ids"]
        return {tuple(flat[a:b]) for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)}

    assert not rows(train) & rows(evals["holdout"])
    assert rows(train) | rows(evals["holdout"]) <= rows(whole)
    _, scored = load_data(parsed(data={"task": "toy", "eval_limit": 7}).data, toy.BACKBONE)
    assert len(scored["validation"]) == 7
    with pytest.raises(BadValue, match="holdout=60"):
        load_data(parsed(data={"task": "toy", "holdout": 60}).data, toy.BACKBONE)


def test_a_failure_is_recorded_and_not_tried_again(hub, monkeypatch):
    spec = parsed(local={"lr": 1e30, "steps": 2, "batch_size": 4})
    with pytest.raises(RunFailed, match="round 1 at client 0"):
        run(spec)
    key = spec.key()
    assert Store().status(key) == "failed"
    assert Store().failure(key)["client"] == 0
    trained = []
    monkeypatch.setattr(run_module, "_train", lambda *a: trained.append(1))
    with pytest.raises(RunFailed):
        run(spec)
    assert not trained
    run(spec, force=True)
    assert trained == [1]


def test_a_failure_is_tried_again_when_its_code_has_changed(hub):
    """The key is another one: there is nothing to force."""
    source = """
from fedlora_kit.methods import FedIT, register
SCALE = float("inf")

def scaled(state):
    return {name: SCALE * tensor for name, tensor in state.items()}

@register
class Mine(FedIT):
    name = "mine"
    def aggregate(self, global_state, updates):
        return scaled(super().aggregate(global_state, updates))
"""
    try:
        cell(source)
        spec = parsed(method={"name": "mine"})
        with pytest.raises(RunFailed):
            run(spec)
        cell(source.replace('float("inf")', "1.0"))
        assert run(spec).results == run(parsed()).results
    finally:
        METHODS.pop("mine", None)


def test_one_failure_does_not_stop_the_rest(hub):
    specs = [
        parsed(seed=0),
        parsed(local={"lr": 1e30, "steps": 2, "batch_size": 4}),
        parsed(seed=1),
        parsed(seed=0),
    ]
    with pytest.warns(UserWarning, match="failed"):
        done = run_all(specs, jobs=1)
    assert [d.entry is None for d in done] == [False, True, False, False]
    assert done[1].failure["round"] == 0
    assert done[0].key == done[3].key != done[2].key


def test_a_split_that_cannot_be_made_stops_all_before_anything_is_trained(hub):
    greedy = {"partitioner": "pathological", "clients": 3, "settings": {"classes_per_client": 2}}
    greedy["settings"]["min_per_holder"] = 1000
    with pytest.raises(BadValue, match="min_per_holder"):
        run_all([parsed(seed=0), parsed(seed=1, split=greedy)], jobs=1)
    assert not list(Store().entries())


def test_a_budget_that_cannot_be_kept_stops_all_before_anything_is_trained(hub):
    large = {**PRIVATE, "epsilon": 5000.0, "accountant": "prv"}
    with pytest.raises(BadValue, match="accountant rdp"):
        run_all([parsed(seed=0), parsed(seed=1, privacy=large)], jobs=1)
    assert not list(Store().entries())


def test_jobs_do_not_change_results(hub, tmp_path):
    spec = parsed(rounds={"rounds": 2}, privacy=PRIVATE)
    here = run(spec, store=Store(tmp_path / "a"))
    script = (
        "import sys, toy; from pathlib import Path; toy.enter(Path(sys.argv[1]));"
        "from fedlora_kit.running.training import work; import json;"
        "print(work(json.loads(sys.argv[2]), [], sys.argv[4], 'cpu', sys.argv[3], False))"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(hub), spec.canonical(), str(tmp_path / "b"), spec.key()],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": "7"},
    )
    there = Store(tmp_path / "b").load(spec.key())
    assert there is not None
    assert there.results == here.results
    assert there.history == here.history


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_bit_identical(hub, tmp_path):
    """SIGKILL at random moments until it gets through; then compared with a run that was never killed."""
    spec = parsed(
        model={"backbone": toy.BACKBONE, "lora": {"rank": 2, "alpha": 4, "dropout": 0.1}},
        privacy=PRIVATE,
        rounds={"rounds": 40, "cohort": 2, "eval_every": 7},
    )
    whole = run(spec, store=Store(tmp_path / "whole"))
    store = Store(tmp_path / "killed")
    reached = killed_again_and_again(lambda: run(spec, store=store), store.root)
    assert reached == sorted(reached)  # every start goes on from where the one before was killed
    assert 0 < reached[-1] < 39
    end = run(spec, store=store)
    assert end.results == whole.results
    assert end.history == whole.history
    assert end.privacy == whole.privacy
    assert end.provenance["resumed_after_round"] == reached[-1]


def test_default_jobs(monkeypatch):
    monkeypatch.setenv("FEDLORA_JOBS", "3")
    assert default_jobs() == 3
    monkeypatch.setenv("FEDLORA_JOBS", "many")
    assert default_jobs() >= 1


@pytest.mark.parametrize("alone", [True, False])
def test_an_interrupted_cell_says_in_one_line_what_is_kept(hub, monkeypatch, capsys, alone):
    """The stop button while the second of three runs trains; as IPython shows it."""
    from IPython.core.interactiveshell import InteractiveShell

    specs = [parsed(seed=seed) for seed in range(3)]
    run(specs[0])

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedlora_kit.experiments.run._train", stopped)
    space = {"train": (lambda: run(specs[1])) if alone else (lambda: run_all(specs, jobs=1))}
    shell = InteractiveShell(user_ns=space)
    assert not shell.run_cell("train()").success
    kept = (
        f"run {specs[1].key()} is kept up to its last whole round"
        if alone
        else "1 of 3 runs are finished and kept"
    )
    assert capsys.readouterr().out.strip() == f"stopped: {kept}; run the cell again to go on"
