"""HETLoRA's self-pruning of ranks: the penalty on the last directions, and the rank that falls."""

import copy

import pytest
import torch
from tiny import federation

from fedlora_kit.adapter import digest
from fedlora_kit.errors import BadValue
from fedlora_kit.methods import Context, method
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

A, B = "m.lora_A.weight", "m.lora_B.weight"


def bound(keep, penalty=0.0):
    made = method("hetlora", keep=keep, penalty=penalty)
    made.bind(Context(3, 1, 4, Streams(0)))
    return made


def pruning(keep=0.5, penalty=5.0, **extra):
    local = LocalSettings(lr=0.1, steps=3, batch_size=4)
    settings = {"keep": keep, "penalty": penalty}
    lora = LoraSettings(rank=4, alpha=4)
    return federation("hetlora", lora=lora, local=local, settings=settings, **extra)


def test_the_penalty_is_the_product_of_the_norms_of_the_last_directions():
    a = torch.arange(12.0).reshape(4, 3).requires_grad_()
    b = torch.arange(8.0).reshape(2, 4).requires_grad_()
    found = bound(0.5, penalty=0.1).penalty({A: a, B: b}, client=0)
    expected = 0.1 * b[:, 2:].norm() * a[2:].norm()
    torch.testing.assert_close(found, expected)
    found.backward()
    assert (
        torch.count_nonzero(a.grad[:2]) == torch.count_nonzero(b.grad[:, :2]) == 0
    )  # the first ones are free
    assert torch.count_nonzero(a.grad[2:]) == 6
    assert method("hetlora").penalty({A: a, B: b}, client=0) is None


def test_the_rank_falls_where_the_last_directions_shrank_and_nowhere_else():
    made = bound(0.5)
    before = {A: torch.ones(4, 3), B: torch.ones(2, 4)}
    smaller, same = {**before, B: before[B] * 0.9}, before
    larger_first = {A: before[A] * torch.tensor([[9.0], [9.0], [0.9], [0.9]]), B: before[B]}
    made.after_training(0, before, same)
    made.after_training(1, before, smaller)
    made.after_training(2, before, larger_first)
    assert [made.rank(k) for k in range(3)] == [None, 2, 2]
    made.after_training(1, before, smaller)
    assert made.rank(1) == 1
    made.after_training(1, before, smaller)
    assert made.rank(1) == 1  # at least one direction stays
    again = bound(0.5)
    again.remember(made.memory())
    assert [again.rank(k) for k in range(3)] == [None, 1, 2]
    again.bind(again.context)
    assert [again.rank(k) for k in range(3)] == [None] * 3


def test_a_strong_penalty_prunes_and_what_is_pruned_does_not_travel():
    history = run_federation(pruning(rounds=FederationSettings(rounds=4))).history
    full = history[0]["parameters_sent"][0]
    assert history[0]["method"] == {"ranks": {}}  # B is zero at the start: nothing can shrink
    last = history[-1]["method"]["ranks"]
    assert last
    for client, rank in last.items():
        assert history[-1]["parameters_sent"][int(client)] == full * rank // 4


def test_without_the_penalty_local_training_is_that_of_plain_hetlora():
    rounds = FederationSettings(rounds=1)
    plain = run_federation(federation("hetlora", lora=LoraSettings(rank=4, alpha=4), rounds=rounds))
    quiet = run_federation(pruning(penalty=0.0, rounds=rounds))
    assert digest(plain.state) == digest(quiet.state)
    assert digest(run_federation(pruning(rounds=rounds)).state) != digest(plain.state)
    assert "method" not in plain.history[0]


def test_a_resumed_run_ends_bit_identical():
    rounds, snapshots = FederationSettings(rounds=4, cohort=2), []
    whole = run_federation(pruning(rounds=rounds), save=lambda now: snapshots.append(copy.deepcopy(now)))
    assert whole.history[1]["method"]["ranks"] != whole.history[-1]["method"]["ranks"]
    for snapshot in snapshots[:-1]:
        again = run_federation(pruning(rounds=rounds), resume=snapshot)
        assert digest(again.state) == digest(whole.state)
        assert again.history == whole.history


@pytest.mark.parametrize(
    "bad", [{"keep": 0.0}, {"keep": 1.5}, {"keep": 0.5, "penalty": -1}, {"penalty": 1.0}]
)
def test_impossible_settings(bad):
    with pytest.raises(BadValue, match="cannot prune"):
        method("hetlora", **bad)


def test_not_under_dp():
    with pytest.raises(BadValue, match="add a penalty"):
        run_federation(pruning(privacy=PrivacySettings(sigma=1.0)))
