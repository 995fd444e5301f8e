"""The round loop: resumption, head policies, schedules, failures, evaluation."""

import copy

import numpy as np
import pytest
import torch
from tiny import federation, text_data

from fedlora_kit.adapter import AdapterSlot, digest
from fedlora_kit.errors import BadValue, NonFinite, NothingMoved
from fedlora_kit.methods import FedIT
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.federation import cohort_of
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CPU = torch.device("cpu")
CASES = {
    "lora": {"method_name": "lora"},
    "ffa under DP": {"method_name": "ffa-lora", "privacy": PrivacySettings(epsilon=5.0, clip=1.0)},
    "personal head, cohort, dropout": {
        "method_name": "lora",
        "lora": LoraSettings(rank=2, dropout=0.2, head="personal"),
        "rounds": FederationSettings(rounds=4, cohort=2),
        "local": LocalSettings(optimizer="adamw", lr=0.01, steps=2, batch_size=3, lr_decay=0.9),
    },
}


@pytest.mark.filterwarnings("ignore:delta")
@pytest.mark.parametrize("case", CASES)
def test_a_run_resumed_after_any_round_ends_bit_identical(case):
    settings = {"rounds": FederationSettings(rounds=4), **CASES[case]}
    snapshots = []
    whole = run_federation(federation(**settings), save=lambda now: snapshots.append(copy.deepcopy(now)))
    assert [s.next_round for s in snapshots] == [1, 2, 3, 4]
    for snapshot in snapshots:
        torch.manual_seed(snapshot.next_round)  # the global generator must not matter
        again = run_federation(federation(**settings), resume=snapshot)
        assert digest(again.state) == digest(whole.state)
        assert again.history == whole.history
        assert again.privacy == whole.privacy
        assert {k: digest(t) for k, t in again.personal.items()} == {
            k: digest(t) for k, t in whole.personal.items()
        }


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run_federation(federation(lora=LoraSettings(rank=2, dropout=0.5)))
    assert torch.equal(torch.rand(2), expected)


def test_cohorts_do_not_depend_on_the_method():
    """One seed, named streams: another method at the same seed sees the same cohorts and batches."""
    rounds = FederationSettings(rounds=5, cohort=2)
    cohorts = [
        [h["cohort"] for h in run_federation(federation(m, rounds=rounds)).history]
        for m in ("lora", "ffa-lora")
    ]
    assert cohorts[0] == cohorts[1] == [cohort_of(federation("lora", rounds=rounds), r) for r in range(5)]
    assert len({tuple(c) for c in cohorts[0]}) > 1


def test_physical_batches_do_not_change_the_result():
    results = [
        run_federation(federation(local=LocalSettings(lr=0.1, steps=3, batch_size=6, max_tokens=t))).state
        for t in (1, 20, 10_000)
    ]
    for other in results[1:]:
        for n, t in results[0].items():
            torch.testing.assert_close(other[n], t, atol=1e-5, rtol=1e-4)


# --- head policies -------------------------------------------------------------------------------


def head_of(state):
    return {n: t for n, t in state.items() if "classifier" in n}


def test_a_frozen_head_never_moves_and_never_travels():
    fed = federation(lora=LoraSettings(rank=2, head="frozen"))
    before = {n: p.clone() for n, p in fed.model.named_parameters() if "classifier" in n}
    outcome = run_federation(fed)
    assert before
    assert all(torch.equal(before[n], p) for n, p in fed.model.named_parameters() if n in before)
    assert head_of(outcome.state) == {}


def test_an_aggregated_head_is_averaged():
    outcome = run_federation(federation(lora=LoraSettings(rank=2, head="aggregated")))
    start = AdapterSlot(federation(lora=LoraSettings(rank=2, head="aggregated")).model).read()
    assert len(head_of(outcome.state)) == 4
    assert all((t != start[n]).any() for n, t in head_of(outcome.state).items())
    assert outcome.personal == {}


def test_a_personal_head_stays_with_its_client_and_leaks_to_nobody():
    outcome = run_federation(federation(lora=LoraSettings(rank=2, head="personal")))
    start = AdapterSlot(federation(lora=LoraSettings(rank=2, head="personal")).model).read()
    assert digest(head_of(outcome.state)) == digest(head_of(start))  # the server's never moved
    heads = [digest(outcome.personal[k]) for k in range(3)]
    assert len(set(heads)) == 3
    once = {
        "lora": LoraSettings(rank=2, head="personal"),
        "rounds": FederationSettings(rounds=1),
        "local": LocalSettings(lr=0.1, steps=3, batch_size=4, stack="never"),
    }
    alone = run_federation(federation(**once))
    only = run_federation(federation(sizes=(12,), **once))
    assert digest(alone.personal[0]) == digest(
        only.personal[0]
    )  # client 0's first head, with or without others


# --- schedules and evaluation --------------------------------------------------------------------


def test_the_learning_rate_at_rounds_0_1_and_last():
    local = LocalSettings(lr=0.5, lr_decay=0.9)
    assert [local.rate(r) for r in (0, 1, 99)] == [0.5, 0.45, 0.5 * 0.9**99]
    assert LocalSettings(lr=0.5).rate(99) == 0.5


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (0, [4]), (7, [4])])
def test_evaluation_rounds(every, expected):
    settings = FederationSettings(rounds=5, eval_every=every)
    assert [r for r in range(5) if settings.evaluates(r)] == expected
    history = run_federation(federation(rounds=settings)).history
    assert [h["round"] for h in history if "eval" in h] == expected


def test_evaluation_equals_one_example_at_a_time():
    fed = federation()
    examples = text_data(23, seed=5)
    scores = evaluate(fed.model, examples, CPU, max_tokens=30)
    correct, loss = 0, 0.0
    for i in range(23):
        inputs, label = examples.batch(np.array([i]), CPU)
        with torch.no_grad():
            logits = fed.model(**inputs).logits
        correct += int(logits.argmax() == label)
        loss += float(torch.nn.functional.cross_entropy(logits, label))
    assert scores["accuracy"] == correct / 23
    assert scores["loss"] == pytest.approx(loss / 23, rel=1e-5)
    assert scores["examples"] == 23


def test_macro_f1_equals_the_definition_class_by_class():
    fed = federation()
    examples = text_data(31, seed=6)
    answers, truth = [], []
    for i in range(31):
        inputs, label = examples.batch(np.array([i]), CPU)
        with torch.no_grad():
            answers.append(int(fed.model(**inputs).logits.argmax()))
        truth.append(int(label))
    f1 = []
    for c in set(answers) | set(truth):
        hits = sum(a == t == c for a, t in zip(answers, truth, strict=True))
        f1.append(2 * hits / (answers.count(c) + truth.count(c)))
    assert evaluate(fed.model, examples, CPU, max_tokens=64)["macro_f1"] == pytest.approx(np.mean(f1))


def test_the_loss_falls():
    rounds = FederationSettings(rounds=15, eval_every=0)
    history = run_federation(
        federation(rounds=rounds, local=LocalSettings(lr=0.5, steps=10, batch_size=8))
    ).history
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]


# --- failures ------------------------------------------------------------------------------------


def test_nan_stops_the_run_and_names_round_and_client():
    with pytest.raises(NonFinite) as error:
        run_federation(federation(local=LocalSettings(lr=1e30, steps=3, batch_size=4)))
    assert error.value.round_index == 0
    assert error.value.client == 0
    assert "round 1 at client 0" in str(error.value)


@pytest.mark.filterwarnings("ignore:delta")
def test_nan_is_not_hidden_by_clipping():
    with pytest.raises(NonFinite):
        run_federation(
            federation(local=LocalSettings(lr=1e38, steps=3), privacy=PrivacySettings(sigma=1.0, clip=1.0))
        )


def test_a_client_without_examples_is_named():
    with pytest.raises(BadValue, match="client 1 has no examples"):
        run_federation(federation(sizes=(3, 0, 2)))


def test_a_cohort_larger_than_the_federation():
    with pytest.raises(BadValue, match="cohort=9"):
        run_federation(federation(rounds=FederationSettings(rounds=1, cohort=9)))


def test_steps_that_change_nothing_are_an_error():
    fed = federation()
    for parameter in fed.model.get_base_model().classifier.parameters():
        torch.nn.init.zeros_(parameter)  # every gradient is exactly zero
    with pytest.raises(NothingMoved, match="changed no trained tensor\n.*learning rate"):
        run_federation(fed)


@pytest.mark.parametrize("stack", ["never", "always"])
def test_a_schedule_that_begins_with_a_alone_is_told_why_nothing_moved(stack, monkeypatch):
    local = LocalSettings(lr=0.1, steps=1, batch_size=4, stack=stack)
    fed = federation(local=local)
    monkeypatch.setattr(FedIT, "trains", lambda self, tensor, client, round_index: ".lora_A" in tensor)
    with pytest.raises(NothingMoved, match="client 0 in round 1 .*A trains alone, and B is zero") as error:
        run_federation(fed)
    assert "let it train in the first round" in error.value.remedy
    after = federation(local=local, under_way=True)
    assert run_federation(after).history[0]["training_clients"] == 3


@pytest.mark.filterwarnings("ignore:delta")
def test_empty_poisson_batches_count_for_the_ledger():
    fed = federation(
        "ffa-lora",
        (40, 40),
        privacy=PrivacySettings(sigma=1.0),
        local=LocalSettings(lr=0.1, steps=10, batch_size=1),
    )
    outcome = run_federation(fed)
    assert outcome.privacy is not None
    assert [c["steps"] for c in outcome.privacy["clients"]] == [20, 20]
    assert sum(h["examples"] for h in outcome.history) < 80  # q = 1/40: about 40 of 40 steps, many empty
    assert outcome.history[-1]["epsilon"] == outcome.privacy["epsilon"]


def test_a_diverged_last_round_is_no_result():
    """Huge but finite tensors after the last step: no training loss sees them, the evaluation must."""
    fed = federation(rounds=FederationSettings(rounds=1), local=LocalSettings(lr=1e12, steps=1, batch_size=4))
    with pytest.raises(NonFinite, match="evaluation") as error:
        run_federation(fed)
    assert error.value.client is None
