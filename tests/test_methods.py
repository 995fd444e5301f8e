"""The conformance suite: what every registered method must hold. A new method needs only its name here."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import data, federation

from fedlora_kit.adapter import AdapterSlot, digest, size_bytes
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
from fedlora_kit.models.components import component_names
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.federation import is_sent, run_federation, trained_names
from fedlora_kit.training.settings import FederationSettings, LocalSettings

ALL = sorted(METHODS)
PRIVATE = [name for name in ALL if not METHODS[name].not_private]
#: settings in which a method does nothing beside local training and aggregation
WITHOUT_STAGES = {"fedlora-optimizer": {"global_trains": None, "local_trains": None}}


def whole(fed, outcome, client=0):
    """The adapter that a method's training made: the global one, or a client's where there is none."""
    own = outcome.personal.get(client, {})
    return outcome.state if fed.method.one_global else fed.method.personalised(outcome.state, own)


def test_doctests():
    assert doctest.testmod(base).failed == 0


def product(state, layer_of):
    """B A of one module; LoRA's shapes are A (r, in), B (out, r)."""
    return state[f"{layer_of}.lora_B.weight"] @ state[f"{layer_of}.lora_A.weight"]


def meaning(name, state):
    """What two adapters of a method must share: the tensors, or for some methods only the products B A."""
    if METHODS[name].keeps_factors:
        return state
    modules = [n.removesuffix(".lora_A.weight") for n in state if ".lora_A" in n]
    rest = {n: t for n, t in state.items() if ".lora_" not in n}
    whole = {m: product(state, m) for m in modules if f"{m}.lora_B.weight" in state}
    merged = {m: state.get(f"{m}.lora_residual.weight", 0.0) for m in whole}  # in the base weights already
    return {**{m: whole[m] + merged[m] for m in whole}, **rest}


def random_updates(names_shapes, weights, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        ClientUpdate(
            k, n, {name: torch.randn(shape, generator=generator) for name, shape in names_shapes.items()}
        )
        for k, n in enumerate(weights)
    ]


SHAPES = {
    "m.lora_A.weight": (2, 5),
    "m.lora_B.weight": (3, 2),
    "head.bias": (4,),
}  # a non-square Linear 5 -> 3


def shapes(m):
    return {**SHAPES, "m.lora_residual.weight": (3, 5)} if m.merges else SHAPES


def sent_shapes(m):
    return {n: s for n, s in SHAPES.items() if ".lora_" not in n or (m.trains(n, 0, 0) and m.sends(n))}


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=20)
@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    random=st.randoms(),
)
def test_aggregation_is_a_pure_function_of_a_set_of_updates(name, weights, seed, random):
    m = method(name)
    start = {n: torch.full(s, 0.25) for n, s in shapes(m).items()}
    updates = random_updates(sent_shapes(m), weights, seed)
    before = digest(start), [digest(u.tensors) for u in updates]
    result = m.aggregate(start, updates)
    shuffled = list(updates)
    random.shuffle(shuffled)
    assert digest(m.aggregate(start, shuffled)) == digest(result)  # permuting clients changes nothing
    assert (digest(start), [digest(u.tensors) for u in updates]) == before  # inputs are left alone
    assert {n: tuple(t.shape) for n, t in result.items()} == shapes(m)  # whole adapter, same shapes
    scaled = [ClientUpdate(u.client, u.num_examples * 7, u.tensors) for u in updates]
    for n, t in m.aggregate(start, scaled).items():
        torch.testing.assert_close(t, result[n])  # weights count relative to each other


@pytest.mark.parametrize("name", ALL)
def test_equal_updates_are_a_fixed_point(name):
    m = method(name)
    start = {n: torch.zeros(s) for n, s in shapes(m).items()}
    one = random_updates(sent_shapes(m), [5], seed=1)[0]
    result = meaning(name, m.aggregate(start, [ClientUpdate(k, 5 + k, one.tensors) for k in range(4)]))
    for n, t in meaning(name, one.tensors).items():
        torch.testing.assert_close(result[n], t)


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_sent_stays_bit_for_bit(name):
    m = method(name)
    start = {n: torch.randn(s) for n, s in shapes(m).items()}
    result = m.aggregate(start, random_updates({"head.bias": (4,)}, [1, 2], seed=0))
    assert digest({n: result[n] for n in start if n != "head.bias"}) == digest(
        {n: start[n] for n in start if n != "head.bias"}
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_one_client_is_plain_local_training(name, kind):
    """A federation of one client for R rounds of S steps = R fresh optimisers on the same batches."""
    # new factors of the same product train in another way from then on: such a method is followed for 1 round
    rounds = 2 if METHODS[name].keeps_factors else 1
    plain = {"kind": kind, "settings": WITHOUT_STAGES.get(name)}
    fed = federation(name, (12,), rounds=FederationSettings(rounds=rounds), **plain)
    outcome = run_federation(fed)
    adapter = whole(fed, outcome)
    fed = federation(name, (12,), **plain)
    slot = AdapterSlot(fed.model)
    slot.set_trainable(trained_names(fed, slot, 0, 0))
    fed.model.train()
    from fedlora_kit.data.batches import shuffled_batches

    for r in range(rounds):
        optimizer = torch.optim.SGD([slot.parameters[n] for n in slot.trainable], lr=0.1)
        for batch in shuffled_batches(12, 4, 3, fed.streams.generator("data", r, 0)):
            inputs, labels = fed.clients[0].batch(batch, torch.device("cpu"))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(fed.model(**inputs).logits, labels).backward()
            optimizer.step()
    result = meaning(name, adapter)
    for n, t in meaning(name, slot.read()).items():
        torch.testing.assert_close(result[n], t, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_clients_with_the_same_data_are_one_client(name):
    clients = [data("roberta", 8, seed=7)] * 3
    fed = federation(name, clients=clients, local=LocalSettings(lr=0.1, steps=2, batch_size=8))
    outcome = run_federation(fed)  # full batches: all three clients do the same
    alone = federation(name, clients=clients[:1], local=fed.local)
    result = meaning(name, whole(fed, outcome, client=2))
    for n, t in meaning(name, whole(alone, run_federation(alone))).items():
        torch.testing.assert_close(result[n], t, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("privacy", [None, PrivacySettings(sigma=0.5, clip=1.0)])
@pytest.mark.parametrize("name", ALL)
def test_exactly_what_should_train_has_moved(name, privacy):
    if privacy is not None and name not in PRIVATE:
        with pytest.raises(BadValue, match=f"{name}' cannot run under DP"):
            run_federation(federation(name, privacy=privacy))
        return
    fed = federation(name, privacy=privacy)
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    trained = set(trained_names(fed, AdapterSlot(fed.model), 0, 0))
    moves = {n for n in start if ".lora_residual" in n} if fed.method.merges else trained
    for n, t in whole(fed, outcome).items():
        assert torch.equal(t, start[n]) == (n not in moves), n
    for n, t in outcome.state.items():
        assert torch.equal(t, start[n]) == (n not in moves or not is_sent(fed, n)), n


@pytest.mark.parametrize("head", ["aggregated", "personal"])
@pytest.mark.parametrize("name", ALL)
def test_what_a_client_keeps_never_reaches_the_server(name, head, monkeypatch):
    """Not in an update; and a client's own adapter is the global one but for what it keeps."""
    fed = federation(name, lora=LoraSettings(rank=2, head=head))
    kept = {n for n in AdapterSlot(fed.model).names if not is_sent(fed, n)}
    seen = []
    aggregate = type(fed.method).aggregate

    def spy(self, global_state, updates):
        seen.extend(n for u in updates for n in u.tensors)
        return aggregate(self, global_state, updates)

    monkeypatch.setattr(type(fed.method), "aggregate", spy)
    outcome = run_federation(fed)
    assert not kept & set(seen)
    assert set(outcome.state) == set(AdapterSlot(fed.model).names)
    for own in outcome.personal.values():
        adapter = fed.method.personalised(outcome.state, own)
        AdapterSlot(fed.model).write(adapter)  # it fits: keys and shapes
        shared = {n for n in outcome.state if not {n, *component_names(n)} & own.keys()}
        assert digest({n: adapter[n] for n in shared}) == digest({n: outcome.state[n] for n in shared})
    keepers = [digest(fed.method.personalised(outcome.state, own)) for own in outcome.personal.values()]
    assert len(set(keepers)) == len(keepers)  # clients with different data


@pytest.mark.parametrize("name", ALL)
def test_the_backbone_never_moves(name):
    fed = federation(name, lora=LoraSettings(rank=2, head="aggregated"))

    def frozen():
        return {n: p for n, p in fed.model.named_parameters() if ".lora_" not in n and "classifier" not in n}

    before = digest({n: p.clone() for n, p in frozen().items()})
    run_federation(fed)
    assert digest(frozen()) == before


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
