"""What stays with a client: baselines, scores on its own held-out examples, resumption, the store."""

import copy
import math

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file
from tiny import federation, text_data

from fedlora_kit.adapter import DORA, AdapterSlot, digest, load_peft
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments import set_aside
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.set_aside import evenly, hold_out
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.models.components import part_of
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.study.grid import Cell, results_frame
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CPU = torch.device("cpu")
FLO = {"global_data": "clients", "local_when": "every_round", "personal_start": "carried"}
PERSONAL = {
    "fedsa": {"method_name": "fedsa-lora"},
    "ditto, aggregated head": {"method_name": "ditto", "lora": LoraSettings(rank=2, head="aggregated")},
    "local only": {"method_name": "local-only"},
    "fedlora-optimizer": {"method_name": "fedlora-optimizer", "settings": FLO},
    "joint, personal head, cohort, dropout": {
        "method_name": "fedlora-optimizer",
        "settings": {"structure": "joint", "personal_start": "carried"},
        "lora": LoraSettings(rank=2, dropout=0.2, head="personal"),
        "rounds": FederationSettings(rounds=3, cohort=2),
        "local": LocalSettings(optimizer="adamw", lr=0.01, steps=2, batch_size=3, lr_decay=0.9),
    },
}


def held_out():
    return [text_data(5, seed=50), None, text_data(7, seed=51)]


@pytest.mark.parametrize("case", PERSONAL)
def test_a_run_with_personal_state_resumes_bit_identical(case):
    settings = {"rounds": FederationSettings(rounds=3), "held_out": held_out(), **PERSONAL[case]}
    snapshots = []
    whole = run_federation(federation(**settings), save=lambda now: snapshots.append(copy.deepcopy(now)))
    assert whole.personal
    for snapshot in snapshots:
        again = run_federation(federation(**settings), resume=snapshot)
        assert digest(again.state) == digest(whole.state)
        assert again.history == whole.history
        assert {k: digest(t) for k, t in again.personal.items()} == {
            k: digest(t) for k, t in whole.personal.items()
        }


# --- the baselines -------------------------------------------------------------------------------


def test_fedsa_shares_a_and_keeps_b():
    fed = federation("fedsa-lora")
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    lora = run_federation(federation("lora"))
    assert 2 * outcome.history[0]["bytes_up"] == lora.history[0]["bytes_up"]
    for n, t in outcome.state.items():
        assert torch.equal(t, start[n]) == (part_of(n) == "B")
    for own in outcome.personal.values():
        assert {part_of(n) for n in own} == {"B"}
        assert all(t.any() for t in own.values())


def test_local_only_is_each_client_on_its_own():
    outcome = run_federation(federation("local-only", lora=LoraSettings(rank=2, head="aggregated")))
    assert sum(h["bytes_up"] for h in outcome.history) == 0
    # batches are drawn by client id: client 0 is the one that a federation of one has too
    alone = federation("local-only", (12,), lora=LoraSettings(rank=2, head="aggregated"))
    own = run_federation(alone).personal[0]
    assert own.keys() == outcome.personal[0].keys()
    for name, tensor in own.items():  # trained alone, and in a stack
        torch.testing.assert_close(tensor, outcome.personal[0][name], atol=1e-5, rtol=0)
    assert {".lora_" in n for n in outcome.personal[0]} == {True, False}  # the head stays, too


def test_dittos_global_adapter_is_fedits_and_its_own_are_pulled_towards_it():
    fedit = run_federation(federation("lora"))
    distance = {}
    for strength in (0.0, 1.0, 5.0):
        fed = federation("ditto", settings={"strength": strength})
        outcome = run_federation(fed)
        assert digest(outcome.state) == digest(fedit.state)
        own = outcome.personal[0]
        assert {part_of(n) for n in own} == {"A", "B"}
        distance[strength] = math.sqrt(sum(float((own[n] - outcome.state[n]).square().sum()) for n in own))
    assert distance[0.0] > distance[1.0] > distance[5.0] > 0


def test_one_step_of_ditto_by_hand():
    """v - lr (grad F(v) + strength (v - w)), with w the new global adapter and v from the round before."""
    rounds = FederationSettings(rounds=2)
    local = LocalSettings(lr=0.1, steps=1, batch_size=12)  # full batches: no order of the data
    settings = {"strength": 0.7}
    snapshots = []
    fed = federation("ditto", (12,), rounds=rounds, local=local, settings=settings)
    run_federation(fed, save=lambda now: snapshots.append(copy.deepcopy(now)))
    before, after = snapshots
    slot = AdapterSlot(fed.model)
    slot.write({**before.state, **before.personal[0]})
    slot.set_trainable(slot.names)
    fed.model.train()
    inputs, labels = fed.clients[0].batch(np.arange(12), CPU)
    torch.nn.functional.cross_entropy(fed.model(**inputs).logits, labels).backward()
    for n, p in slot.parameters.items():
        v = before.personal[0][n]
        expected = v - 0.1 * (p.grad + 0.7 * (v - after.state[n]))
        torch.testing.assert_close(after.personal[0][n], expected, atol=1e-6, rtol=1e-5)


def test_ditto_settings():
    for bad in ({"strength": -1}, {"strength": math.inf}, {"steps": 0}, {"lr": 0}):
        with pytest.raises(BadValue, match=next(iter(bad))):
            federation("ditto", settings=bad)


@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_dora_trains_sends_and_averages_its_magnitudes(kind):
    outcomes = {}
    for use_dora in (False, True):
        fed = federation("lora", kind=kind, lora=LoraSettings(rank=2, use_dora=use_dora))
        start = AdapterSlot(fed.model).read()
        outcomes[use_dora] = (start, run_federation(fed))
    start, outcome = outcomes[True]
    vectors = [n for n in start if DORA in n]
    assert len(vectors) == 8
    assert all(not torch.equal(start[n], outcome.state[n]) for n in vectors)
    extra = outcome.history[0]["bytes_up"] - outcomes[False][1].history[0]["bytes_up"]
    assert extra == 3 * 4 * sum(start[n].numel() for n in vectors)


def test_dora_keeps_the_magnitudes_of_ffa_frozen_and_is_refused_under_dp():
    fed = federation("ffa-lora", lora=LoraSettings(rank=2, use_dora=True))
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    assert all(torch.equal(start[n], outcome.state[n]) for n in start if DORA in n)
    with pytest.raises(BadValue, match="DoRA"):
        run_federation(
            federation("lora", lora=LoraSettings(rank=2, use_dora=True), privacy=PrivacySettings(sigma=1.0))
        )


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lora", "fedsa-lora", "ditto", "fedlora-optimizer"])
def test_local_scores_are_those_of_each_clients_own_adapter(name):
    fed = federation(name, held_out=held_out())
    outcome = run_federation(fed)
    table = outcome.history[-1]["local"]
    assert table["clients"] == [0, 2]
    assert table["examples"] == [5, 7]
    slot = AdapterSlot(fed.model)
    for place, k in enumerate(table["clients"]):
        slot.write(fed.method.personalised(outcome.state, outcome.personal.get(k, {})))
        score = evaluate(fed.model, fed.held_out[k], CPU, 4096)
        assert score["accuracy"] == table["accuracy"][place]
        assert score["loss"] == pytest.approx(table["loss"][place], rel=1e-6)


def test_the_global_score_is_of_the_one_global_adapter_where_there_is_one():
    for name, one in (("ditto", True), ("fedlora-optimizer", True), ("fedsa-lora", False)):
        fed = federation(name)
        outcome = run_federation(fed)
        slot = AdapterSlot(fed.model)
        losses = []
        for adapter in (
            [outcome.state] if one else [{**outcome.state, **own} for own in outcome.personal.values()]
        ):
            slot.write(adapter)
            losses.append(evaluate(fed.model, fed.evals["validation"], CPU, 4096)["loss"])
        assert outcome.history[-1]["eval"]["validation"]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


DRAWN_LATE = {
    "fedsa-lora": {"method_name": "fedsa-lora"},
    "local-only": {"method_name": "local-only", "lora": LoraSettings(rank=2, head="aggregated")},
    "personal head": {"lora": LoraSettings(rank=2, head="personal")},
    "ditto": {"method_name": "ditto", "lora": LoraSettings(rank=2, head="personal")},
}


@pytest.mark.parametrize("case", DRAWN_LATE)
def test_clients_that_were_never_drawn_are_scored_as_they_would_start(case):
    """Against an oracle that takes one client after the other, whoever has trained."""
    fed = federation(
        sizes=(12, 3, 5, 9, 4, 6), rounds=FederationSettings(rounds=2, cohort=1), **DRAWN_LATE[case]
    )
    snapshots = []
    outcome = run_federation(fed, save=lambda now: snapshots.append(copy.deepcopy(now)))
    assert 1 <= len(outcome.personal) <= 2
    slot = AdapterSlot(fed.model)
    for now, record in zip(snapshots, outcome.history, strict=True):
        scores = []
        for k in range(6):
            own = now.personal.get(k, {})
            if case in ("personal head", "ditto"):
                own = {n: t for n, t in own.items() if ".lora_" not in n}
            slot.write({**now.state, **own})
            scores.append(evaluate(fed.model, fed.evals["validation"], CPU, 4096))
        for metric, value in record["eval"]["validation"].items():
            assert value == pytest.approx(np.mean([s[metric] for s in scores]), rel=1e-6), metric
        assert record["scored_clients"] == 6
        drawn = np.mean([scores[k]["loss"] for k in now.personal])  # another mean, or nothing is shown
        assert drawn != pytest.approx(record["eval"]["validation"]["loss"], rel=2e-6)


def test_a_thousand_clients_that_never_trained_are_scored_once(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(1)
        return evaluate(*args)

    monkeypatch.setattr("fedlora_kit.training.scores.evaluate", counted)
    clients = [text_data(3, seed=7)] * 1000
    fed = federation("local-only", clients=clients, rounds=FederationSettings(rounds=2, cohort=2))
    outcome = run_federation(fed)
    assert outcome.history[-1]["scored_clients"] == 1000
    assert len(calls) <= (2 + 1) + (4 + 1)


def test_held_out_parts_must_fit_the_clients():
    with pytest.raises(BadValue, match="2 held-out parts for 3 clients"):
        run_federation(federation(held_out=held_out()[:2]))


# --- setting aside -------------------------------------------------------------------------------


def test_evenly_takes_labels_in_turn():
    import doctest

    assert doctest.testmod(set_aside).failed == 0
    labels = np.repeat([0, 1, 2], [50, 3, 20])
    for wanted in (1, 9, 12, 30, 73):
        chosen = evenly(labels, wanted, np.random.default_rng(3))
        assert len(set(chosen.tolist())) == wanted
        counts = np.bincount(labels[chosen], minlength=3)
        fair = min(wanted // 3, 3)
        assert counts[1] == (fair if wanted % 3 == 0 or fair == 3 else counts[1])
        if wanted <= 9:
            assert counts.max() - counts.min() <= 1
        else:
            assert counts[1] == 3
            assert abs(counts[0] - counts[2]) <= 1 or counts[2] == 20


def test_a_client_holds_out_a_share_of_its_own():
    whole = text_data(21, seed=1)
    kept, own = hold_out(whole, 0.2, Streams(0), client=3)
    assert (len(kept), len(own)) == (17, 4)
    again, _ = hold_out(whole, 0.2, Streams(0), client=3)
    assert again.fields["input_ids"].tolist() == kept.fields["input_ids"].tolist()
    assert hold_out(whole, 0.0, Streams(0), 3) == (whole, None)
    assert hold_out(text_data(1), 0.5, Streams(0), 3)[1] is None
    assert [len(d) for d in hold_out(text_data(2), 0.99, Streams(0), 3)] == [1, 1]
    assert [len(d) for d in hold_out(text_data(9), 0.01, Streams(0), 3)] == [8, 1]


# --- whole runs ----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")
    return tmp_path / "hub"


def parsed(**changes):
    settings = {"personal_start": "carried", "local_when": "every_round"}
    personal = {
        "method": {"name": "fedlora-optimizer", "settings": settings},
        "data": {"task": "toy", "holdout": 10, "server_examples": 6, "client_holdout": 0.25},
    }
    return RunSpec.parse(toy.description(**{**personal, **changes}))


def test_examples_of_server_and_clients_are_disjoint(hub):
    fed = build(parsed(), CPU)
    assert (len(fed.server), [len(c) for c in fed.clients]) == (6, [11, 11, 10])
    assert [len(c) for c in fed.held_out] == [4, 4, 4]
    assert np.bincount(fed.server.labels).tolist() == [3, 3]

    def rows(part):
        flat = part.fields["input_ids"]
        return [tuple(flat[a:b]) for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True)]

    everything = [r for part in (fed.server, *fed.clients, *fed.held_out) for r in rows(part)]
    assert len(everything) == 50
    same = build(parsed(method={"name": "lora"}), CPU)  # another method sees the same split
    assert [rows(c) for c in same.clients] == [rows(c) for c in fed.clients]
    default = build(RunSpec.parse(toy.description()), CPU)
    assert (default.server, tuple(default.held_out)) == (None, ())


def test_what_an_entry_and_a_table_hold(hub):
    spec = parsed()
    entry = run(spec)
    local, last = entry.results["local"], entry.history[-1]["local"]
    assert local["accuracy"]["final"] == pytest.approx(np.mean(last["accuracy"]))
    assert local["accuracy"]["clients"] == {str(k): v for k, v in enumerate(last["accuracy"])}
    assert local["examples"] == {"0": 4, "1": 4, "2": 4}
    assert {"accuracy", "macro_f1", "loss", "examples"} == set(local)
    assert local["loss"]["best"] <= local["loss"]["last10"]
    own = load_file(entry.path / "personal" / "client-00001.safetensors")
    assert {part_of(n) for n in own} == {"B_M"}
    assert not any("magnitude" in n for n in load_peft(entry.adapter_dir))

    class Finished:
        key = entry.key

    Finished.entry = entry
    frame = results_frame([(Cell({"method": "flo"}, {}, 0, spec), Finished)])
    assert frame["local_accuracy"].item() == pytest.approx(100 * local["accuracy"]["final"])
    assert frame["local_loss"].item() == pytest.approx(local["loss"]["final"])
    plain = run(RunSpec.parse(toy.description()))
    assert "local" not in plain.results
    Finished.entry = plain
    frame = results_frame([(Cell({}, {}, 0, spec), Finished)])
    assert not [c for c in frame.columns if c.startswith("local")]
    with pytest.raises(BadValue, match="'sigma'"):
        results_frame([(Cell({"sigma": 1.0}, {}, 0, spec), Finished)])


def test_descriptions_that_cannot_run(hub):
    private = {"epsilon": 5.0, "delta": 1e-3}
    for changes, said in (
        ({"data": {"task": "toy"}}, "server_examples"),
        ({"privacy": private}, "cannot run under DP"),
        ({"method": {"name": "ditto"}, "privacy": private}, "cannot run under DP"),
        ({"data": {"task": "toy", "client_holdout": 1.0}}, "client_holdout"),
        (
            {
                "method": {"name": "lora"},
                "privacy": private,
                "model": {"backbone": toy.BACKBONE, "lora": {"use_dora": True}},
            },
            "use_dora",
        ),
    ):
        with pytest.raises(BadValue, match=said):
            parsed(**changes)
    with pytest.raises(BadValue, match="server_examples=60"):
        build(parsed(data={"task": "toy", "server_examples": 60}), CPU)


def test_an_interrupted_run_goes_on_bit_identical(hub, tmp_path, monkeypatch):
    """Personal components come back from the checkpoint to the last bit."""
    spec = parsed(rounds={"rounds": 6})
    whole = run(spec, store=Store(tmp_path / "whole"))
    pack = run_module._pack

    def interrupted(now):
        if now.next_round == 4:
            raise KeyboardInterrupt
        return pack(now)

    monkeypatch.setattr(run_module, "_pack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(spec, store=Store(tmp_path / "cut"))
    monkeypatch.setattr(run_module, "_pack", pack)
    resumed = run(spec, store=Store(tmp_path / "cut"))
    assert resumed.provenance["resumed_after_round"] == 2
    assert resumed.history == whole.history
    assert resumed.results == whole.results
    for k in range(3):
        name = f"personal/client-{k:05d}.safetensors"
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
