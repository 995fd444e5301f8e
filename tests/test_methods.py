"""The conformance suite: what every registered method must hold. A new method needs only its name here."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import federation

from fedlora_kit.adapter import AdapterSlot, digest, size_bytes
from fedlora_kit.conformance import methods as conformance
from fedlora_kit.conformance.methods import SHAPES, product, random_updates, sent_shapes
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.methods import (
    METHODS,
    ClientUpdate,
    FedIT,
    FFALoRA,
    Method,
    base,
    method,
    register,
    weighted_mean,
)
from fedlora_kit.training.federation import trained_names
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings

ALL = sorted(METHODS)


def test_doctests():
    assert doctest.testmod(base).failed == 0


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=20)
@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    random=st.randoms(),
)
def test_aggregation_is_a_pure_function_of_a_set_of_updates(name, weights, seed, random):
    order = list(range(len(weights)))
    random.shuffle(order)
    conformance.aggregates_purely(name, weights, seed, order)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_what_every_method_holds(check, name):
    check(name)


@pytest.mark.parametrize("name", ALL)
def test_one_client_is_plain_local_training_in_another_architecture_too(name):
    conformance.is_local_training_with_one_client(name, "llama")


@pytest.mark.parametrize("name", ALL)
def test_what_a_client_keeps_never_reaches_the_server_with_its_head(name):
    conformance.keeps_what_is_the_clients(name, "personal")


# --- the checks themselves: each finds the method that breaks it ---------------------------------


class Broken(FedIT):
    """A method that a test breaks in one place."""

    name = "broken"


def _adds_to_the_first(self, global_state, updates):
    updates[0].tensors["head.bias"].add_(1.0)
    return {**global_state, **weighted_mean(updates)}


def _sums(self, global_state, updates):
    return {**global_state, **{n: sum(u.tensors[n] for u in updates) for n in updates[0].tensors}}


def _takes_the_first(self, global_state, updates):
    return {**global_state, **updates[0].tensors}


def _weighs_by_number(self, global_state, updates):
    mean = weighted_mean(updates)
    return {
        **global_state,
        **{n: t * min(1, 100 / sum(u.num_examples for u in updates)) for n, t in mean.items()},
    }


def _forgets(self, global_state, updates):
    return weighted_mean(updates)


def _decays(self, global_state, updates):
    return {**{n: 0.9 * t for n, t in global_state.items()}, **weighted_mean(updates)}


def _keeps_b(self, global_state, updates):
    return {**global_state, **{n: t for n, t in weighted_mean(updates).items() if ".lora_B" not in n}}


def _forgets_a(self, global_state, updates):
    return {n: 0 * t if ".lora_A" in n else t for n, t in weighted_mean(updates).items()}


class Alternating(Method):
    """Trains A and B in turn, a round each."""

    name = "alternating"
    first = ".lora_A"

    def trains(self, tensor, client, round_index):
        return (self.first in tensor) == (round_index % 2 == 0)


@pytest.mark.parametrize("first", [".lora_A", ".lora_B"])
def test_a_method_may_train_other_tensors_each_round(monkeypatch, first):
    """Also where it begins with A, which has no gradient while B is zero: the checks start later."""
    monkeypatch.setattr(Alternating, "first", first)
    monkeypatch.setitem(METHODS, Alternating.name, Alternating)
    for check in conformance.CHECKS:
        check(Alternating.name)


@pytest.mark.parametrize(
    ("attribute", "value", "check", "said"),
    [
        ("aggregate", _takes_the_first, conformance.aggregates_purely, "another order"),
        ("aggregate", _adds_to_the_first, conformance.aggregates_purely, "changes its inputs"),
        ("aggregate", _forgets, conformance.leaves_the_rest, "m.lora_"),
        ("aggregate", _weighs_by_number, conformance.aggregates_purely, "seven times as many"),
        ("aggregate", _sums, conformance.keeps_equal_updates, "all clients sent the same"),
        ("aggregate", _decays, conformance.leaves_the_rest, "has changed"),
        ("aggregate", _sums, conformance.counts_equal_clients_as_one, "not like one"),
        ("aggregate", _keeps_b, conformance.moves_what_it_trains, "see `trains`"),
        ("aggregate", _forgets_a, conformance.is_local_training_with_one_client, "plain local training"),
    ],
)
def test_each_check_finds_what_is_broken(monkeypatch, attribute, value, check, said):
    monkeypatch.setitem(METHODS, "broken", type("Broken", (Broken,), {attribute: value}))
    with pytest.raises((AssertionError, KeyError), match=said):
        check("broken")


def test_each_check_holds_for_the_method_before_it_is_broken(monkeypatch):
    monkeypatch.setitem(METHODS, "broken", Broken)
    for check in conformance.CHECKS:
        check("broken")


# --- FFA-LoRA's own invariants -------------------------------------------------------------------


def test_ffa_a_is_bitwise_unchanged_and_common():
    fed = federation("ffa-lora", rounds=FederationSettings(rounds=3))
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    a = {n: t for n, t in outcome.state.items() if ".lora_A" in n}
    assert digest(a) == digest({n: start[n] for n in a})
    assert all((outcome.state[n] != 0).any() for n in outcome.state if ".lora_B" in n)


@settings(deadline=None, max_examples=20)
@given(weights=st.lists(st.integers(1, 50), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_ffa_average_is_exact_and_loras_is_not(weights, seed):
    """mean(B) A0 = mean(B A0); mean(B) mean(A) != mean(B A). FFA-LoRA, section 3, discordance 1."""
    start = {n: torch.randn(s, generator=torch.Generator().manual_seed(seed)) for n, s in SHAPES.items()}
    shares = torch.tensor(weights) / sum(weights)
    for m, exact in ((FFALoRA(), True), (FedIT(), False)):
        updates = random_updates(sent_shapes(m), weights, seed)
        merged = product(m.aggregate(start, updates), "m")
        ideal = sum(w * product({**start, **u.tensors}, "m") for w, u in zip(shares, updates, strict=True))
        assert torch.allclose(merged, ideal, atol=1e-5) == exact


def test_ffa_trains_and_sends_half_on_square_modules():
    sent = {}
    for name in ("lora", "ffa-lora"):
        fed = federation(name)
        outcome = run_federation(fed)
        sent[name] = outcome.history[0]["bytes_up"]
        slot = AdapterSlot(fed.model)
        assert sent[name] == 3 * size_bytes({n: outcome.state[n] for n in trained_names(fed, slot, 0, 0)})
    assert sent["lora"] == 2 * sent["ffa-lora"]


# --- the weighted mean and the registry ----------------------------------------------------------


def test_a_tensor_is_averaged_over_the_clients_that_sent_it():
    a = ClientUpdate(0, 1, {"x": torch.tensor([1.0]), "y": torch.tensor([1.0])})
    b = ClientUpdate(1, 3, {"x": torch.tensor([5.0])})
    result = weighted_mean([a, b])
    assert result["x"].item() == 4.0
    assert result["y"].item() == 1.0


def test_bad_updates():
    with pytest.raises(FedloraError, match="no client"):
        weighted_mean([])
    with pytest.raises(FedloraError, match="client 4"):
        weighted_mean([ClientUpdate(4, 0, {})])


def test_registry():
    with pytest.raises(UnknownName, match="ffa-lora"):
        method("ffalora")
    with pytest.raises(BadValue, match="rank"):
        method("lora", rank=3)
    with pytest.raises(BadValue, match="registered already"):

        @register
        class Other(Method):
            name = "lora"

            def trains(self, tensor, client, round_index):
                return True

    with pytest.raises(BadValue, match="no name"):

        @register
        class Nameless(FedIT):
            name = ""
