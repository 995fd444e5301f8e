"""Federations of unequal clients: layers, ranks, clients that cannot train, layers that leave the model."""

import copy
import re

import numpy as np
import pytest
import torch
from tiny import ARCHITECTURES, data, federation, text_data

from fedlora_kit.adapter import AdapterSlot, digest, size_bytes
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.set_aside import proxy_rows
from fedlora_kit.methods import METHODS, ClientUpdate, FlexLoRA, HETLoRA, weighted_mean
from fedlora_kit.methods.flexlora import redistribute
from fedlora_kit.methods.ranks import truncated
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.models.targets import layer_index
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.costs import ClientCost, client_costs
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CPU = torch.device("cpu")
ROC = {"groups": [1, 1, 1], "layers": [0.5, 0.75, 1.0]}
RANKS = {"groups": [1, 1, 1], "ranks": [0.25, 0.5, 1.0]}
LAYERWISE = sorted(n for n in METHODS if hasattr(METHODS[n], "layers"))
SETTINGS = {
    "fim-hla": {"resources": ROC, "proxy_examples": 5, "start": 1, "every": 2},
    "fed-hello": {"resources": ROC, "proxy_examples": 5, "start": 1, "every": 2},
}
EQUAL = {**{n: {} for n in LAYERWISE}, "hetlora": {"weighting": "examples"}}


def layered(name, **extra):
    """Three clients that can train 2, 3 and 4 of 4 layers."""
    settings = SETTINGS.get(name, {"resources": ROC})
    return federation(name, depth=4, settings=settings, proxy=text_data(5, seed=77), **extra)


def ranked(name, **extra):
    """Three clients of rank 1, 2 and 4."""
    return federation(name, lora=LoraSettings(rank=4, alpha=4), settings={"resources": RANKS}, **extra)


def spied(fed):
    """The federation's outcome, and (global adapter, updates, result) of each aggregation."""
    calls, plain = [], fed.method.aggregate

    def aggregate(state, updates):
        calls.append((dict(state), list(updates), plain(state, updates)))
        return calls[-1][2]

    fed.method.aggregate = aggregate
    return run_federation(fed), calls


@pytest.mark.parametrize("name", EQUAL)
def test_with_equal_resources_it_is_fedit(name):
    rounds = FederationSettings(rounds=3, cohort=2)
    fedit = run_federation(federation("lora", rounds=rounds))
    same = run_federation(federation(name, rounds=rounds, settings=EQUAL[name]))
    for n, t in fedit.state.items():
        torch.testing.assert_close(same.state[n], t, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", LAYERWISE)
def test_a_layer_is_averaged_over_the_clients_that_trained_it(name):
    fed = layered(name, rounds=FederationSettings(rounds=2))
    _, calls = spied(fed)
    for r, (before, updates, after) in enumerate(calls):
        if name != "fed-hello" and name != "fim-hla":  # those two have learned new scores since
            for u in updates:
                assert {layer_index(n) for n in u.tensors} == fed.method.layers(u.client, r)
        for n in before:
            holders = [u for u in updates if n in u.tensors]
            if not holders:
                assert torch.equal(after[n], before[n])
                continue
            total = sum(u.num_examples for u in holders)
            mean = sum(u.tensors[n] * (u.num_examples / total) for u in holders)
            torch.testing.assert_close(after[n], mean)
            assert not any(torch.equal(u.tensors[n], before[n]) for u in holders)  # each really moved


@pytest.mark.parametrize("name", ["gd-hla", "hetlora"])
def test_traffic_and_memory_grow_with_the_resources(name):
    local = LocalSettings(optimizer="adamw", lr=0.01, steps=1, batch_size=4)
    fed = layered(name, local=local) if name == "gd-hla" else ranked(name, local=local)
    costs = client_costs(fed)
    whole = costs[-1].upload_bytes  # every client gets all layers, but only the directions of its rank
    down = [whole] * 3 if name == "gd-hla" else [c.upload_bytes for c in costs]
    assert [c.download_bytes for c in costs] == down
    assert [c.trained_parameters / costs[0].trained_parameters for c in costs] == (
        [1, 1.5, 2] if name == "gd-hla" else [1, 2, 4]
    )
    assert all(c.training_bytes == 4 * c.upload_bytes == 16 * c.trained_parameters for c in costs)
    history = run_federation(fed).history
    assert history[0]["parameters_sent"] == [c.trained_parameters for c in costs]
    assert history[0]["bytes_up"] == sum(c.upload_bytes for c in costs)
    assert client_costs(layered("exclusive"))[0] == ClientCost(0, 0, 0, 0)


@pytest.mark.parametrize("name", ["fed-hello", "rgd-hla", "fedra", "exclusive", "hetlora", "flexlora"])
def test_a_resumed_run_ends_bit_identical(name):
    make = ranked if name in ("hetlora", "flexlora") else layered
    rounds = FederationSettings(rounds=4, cohort=2)
    snapshots = []
    whole = run_federation(make(name, rounds=rounds), save=lambda now: snapshots.append(copy.deepcopy(now)))
    for snapshot in snapshots[:-1]:
        again = run_federation(make(name, rounds=rounds), resume=snapshot)
        assert digest(again.state) == digest(whole.state)
        assert again.history == whole.history


def test_a_federation_can_run_again():
    fed = layered("fed-hello", rounds=FederationSettings(rounds=3))
    start = AdapterSlot(fed.model).read()
    first = run_federation(fed)
    AdapterSlot(fed.model).write(start)
    assert digest(run_federation(fed).state) == digest(first.state)


def test_released_frozen_layers_are_averaged_in_as_zeros():
    """Without layer 1, layer 10 freezes at one client; its unchanged tensor still halves the other's step."""
    settings = {
        "resources": {"groups": [1, 1], "layers": [0.5, 1.0]},
        "pattern": "uniform",
        "defects": ["freeze_by_substring"],
    }
    _, calls = spied(federation("gd-hla", (10, 10), depth=12, settings=settings))
    before, (low, high), after = calls[0]
    for n in (n for n in before if layer_index(n) == 10):
        assert torch.equal(low.tensors[n], before[n])
        torch.testing.assert_close(after[n] - before[n], (high.tensors[n] - before[n]) / 2)
    settings["defects"] = []
    _, calls = spied(federation("gd-hla", (10, 10), depth=12, settings=settings))
    before, (low, _), _ = calls[0]
    assert not any(torch.equal(low.tensors[n], before[n]) for n in low.tensors)


def test_rounds_in_which_nobody_can_train():
    fed = layered("exclusive", rounds=FederationSettings(rounds=8, cohort=1))
    states = [digest(AdapterSlot(fed.model).read())]
    history = run_federation(fed, save=lambda now: states.append(digest(now.state))).history
    idle = [h["round"] for h in history if h["cohort"] != [2]]
    assert 0 < len(idle) < 8
    for h in history:
        nobody = h["round"] in idle
        assert h["training_clients"] == (0 if nobody else 1)
        assert (states[h["round"] + 1] == states[h["round"]]) == nobody
        assert (h["train_loss"] is None) == nobody
        assert (h["bytes_up"] == 0) == nobody
        assert "eval" in h


# --- ranks ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:delta")
@pytest.mark.parametrize("privacy", [None, PrivacySettings(sigma=1.0, clip=1.0)])
@pytest.mark.parametrize("name", ["hetlora", "flexlora"])
def test_beyond_a_clients_rank_everything_stays_exactly_zero(name, privacy):
    local = LocalSettings(optimizer="adamw", lr=0.01, weight_decay=0.1, steps=3, batch_size=4)
    outcome, calls = spied(ranked(name, local=local, privacy=privacy))
    for _, updates, _ in calls:
        for u, rank in zip(updates, (1, 2, 4), strict=True):
            for n, t in u.tensors.items():
                beyond = t[rank:] if ".lora_A" in n else t[:, rank:]
                within = t[:rank] if ".lora_A" in n else t[:, :rank]
                assert torch.count_nonzero(beyond) == 0
                assert torch.count_nonzero(within) > 0
    sent = outcome.history[0]["parameters_sent"]
    assert (sent[1] / sent[0], sent[2] / sent[0]) == (2, 4)  # the padding does not travel
    assert outcome.history[0]["bytes_up"] == 4 * sum(sent)
    assert sent[2] * 4 == size_bytes(outcome.state)


def pair(seed, rank=2, inner=5, outer=3):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, inner, generator=g), torch.randn(outer, rank, generator=g)
    return {"m.lora_A.weight": a, "m.lora_B.weight": b}


def product(state):
    return state["m.lora_B.weight"] @ state["m.lora_A.weight"]


def test_full_rank_svd_restores_the_average_of_the_products_on_a_non_square_linear():
    updates = [ClientUpdate(k, n, pair(k, rank=3)) for k, n in enumerate((1, 5, 2))]
    ideal = sum(product(u.tensors) * u.num_examples / 8 for u in updates)  # no scaling anywhere
    result = FlexLoRA().aggregate(pair(9, rank=3), updates)
    torch.testing.assert_close(product(result), ideal)
    singular = torch.linalg.svdvals(ideal)  # the root of Sigma stands on both factors
    a, b = result["m.lora_A.weight"], result["m.lora_B.weight"]
    torch.testing.assert_close(a @ a.T, torch.diag(singular), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(b.T @ b, torch.diag(singular), atol=1e-5, rtol=1e-5)
    for rank in (1, 2):  # a truncated client holds the best approximation of its rank
        error = torch.linalg.matrix_norm(product(truncated(result, rank)) - ideal)
        torch.testing.assert_close(error, singular[rank:].norm(), atol=1e-5, rtol=1e-5)


def test_a_direction_without_weight_can_train_again():
    one = truncated(pair(0, rank=3), 1)
    start = pair(9, rank=3)
    result = FlexLoRA().aggregate(start, [ClientUpdate(0, 4, one)])
    torch.testing.assert_close(product(result), product(one))
    assert torch.equal(result["m.lora_A.weight"][1:], start["m.lora_A.weight"][1:])
    assert torch.count_nonzero(result["m.lora_B.weight"][:, 1:]) == 0
    zero = torch.zeros(3, 2, dtype=torch.float64)
    a, b = redistribute(zero, torch.ones(2, 5, dtype=torch.float64), start["m.lora_A.weight"])
    assert torch.equal(a, start["m.lora_A.weight"])
    assert torch.count_nonzero(b) == 0


def test_hetlora_weighs_by_the_norm_of_the_product():
    updates = [ClientUpdate(k, 1 + k, pair(k)) for k in range(3)]
    norms = [product(u.tensors).norm() for u in updates]
    result = HETLoRA().aggregate(pair(9), updates)
    for n in result:
        mean = sum(u.tensors[n] * norm for u, norm in zip(updates, norms, strict=True)) / sum(norms)
        torch.testing.assert_close(result[n], mean)
    still = {**pair(1), "m.lora_B.weight": torch.zeros(3, 2)}
    empty = [ClientUpdate(0, 1, still), ClientUpdate(1, 3, still)]
    assert digest(HETLoRA().aggregate(still, empty)) == digest(weighted_mean(empty))


# --- layers that leave the model -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_absent_layers_are_not_passed_through(kind):
    fed = federation("fedra", (4,), kind=kind, depth=4)
    model = fed.model.eval()
    inputs, _ = fed.clients[0].batch(np.arange(4), CPU)
    names = dict(model.named_modules())
    layers = [m for n, m in names.items() if re.search(r"\.layers?\.\d+$", n)]
    assert len(layers) == 4
    seen: list[int] = []
    for i, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, i=i: seen.append(i))
    with torch.no_grad():
        whole = model(**inputs).logits
        assert seen == [0, 1, 2, 3]
        seen.clear()
        with only_layers(model, {3, 1}):
            part = model(**inputs).logits
        assert seen == [1, 3]
        with pytest.raises(ZeroDivisionError), only_layers(model, {0}):
            raise ZeroDivisionError
        with only_layers(model, set(range(4))):
            assert torch.equal(model(**inputs).logits, whole)
        assert torch.equal(model(**inputs).logits, whole)  # whole again, also after an error
    assert not torch.allclose(part, whole)
    assert list(dict(model.named_modules())) == list(names)
    with pytest.raises(BadValue, match="no layer 4"), only_layers(model, {4}):
        pass


@pytest.mark.filterwarnings("ignore:delta")
@pytest.mark.parametrize("kind", ["vit", "llama"])
def test_fedra_under_dp_on_other_architectures(kind):
    fed = layered("fedra", kind=kind, privacy=PrivacySettings(sigma=0.5, clip=1.0))
    assert run_federation(fed).history[-1]["training_clients"] == 3


# --- Fisher scores -------------------------------------------------------------------------------


def test_fisher_scores_are_the_mean_of_squared_gradients_over_all_examples():
    fed = federation("lora", depth=3, lora=LoraSettings(rank=2, dropout=0.3))
    slot = AdapterSlot(fed.model)
    with torch.no_grad():
        for p in slot.parameters.values():
            p.add_(0.1)  # away from B = 0
    slot.set_trainable(slot.names)
    proxy = data("roberta", 6, seed=3)
    fed.model.train()
    before = digest(slot.read())
    scores = fisher_scores(fed.model, slot, proxy, CPU)
    assert fed.model.training
    assert digest(slot.read()) == before
    fed.model.eval()
    squares = {n: torch.zeros_like(p) for n, p in slot.parameters.items()}
    for i in range(6):
        inputs, label = proxy.batch(np.array([i]), CPU)
        fed.model.zero_grad()
        torch.log_softmax(fed.model(**inputs).logits, -1)[0, label].sum().backward()
        for n, p in slot.parameters.items():
            squares[n] += p.grad**2 / 6
    for layer in range(3):
        expected = sum(s.norm() for n, s in squares.items() if layer_index(n) == layer)
        assert scores[layer] == pytest.approx(float(expected), rel=1e-4)
    first = fisher_scores(fed.model, slot, proxy.subset(np.array([0])), CPU)
    assert first != pytest.approx(scores, rel=0.05)  # one example is not all of them
    released = fisher_scores(fed.model, slot, proxy, CPU, one_logit=True)
    inputs, label = proxy.batch(np.array([0]), CPU)
    fed.model.zero_grad()
    fed.model(**inputs).logits[0, label].sum().backward()
    names = [n for n in slot.names if layer_index(n) == 0]
    expected = sum(float((slot.parameters[n].grad ** 2).norm()) for n in names)
    assert released[0] == pytest.approx(expected, rel=1e-4)


def test_fed_hello_scores_at_its_rounds_and_writes_them_down():
    history = run_federation(layered("fed-hello", rounds=FederationSettings(rounds=5))).history
    assert [h["round"] for h in history if "layer_scores" in h] == [1, 3]
    assert all(len(h["layer_scores"]) == 4 and min(h["layer_scores"]) > 0 for h in history[1:4:2])


def test_fisher_scores_need_examples_and_no_dp():
    with pytest.raises(BadValue, match="Federation.proxy"):
        run_federation(federation("fed-hello", settings=SETTINGS["fed-hello"]))
    with pytest.raises(BadValue, match="under DP"):
        run_federation(layered("fed-hello", privacy=PrivacySettings(sigma=1.0)))
    fed = federation("lora")
    with pytest.raises(FedloraError, match="0 examples"):
        fisher_scores(fed.model, AdapterSlot(fed.model), text_data(0), CPU)


def test_proxy_examples_are_set_aside():
    train = text_data(20)
    rows = proxy_rows(train, 5, Streams(1))
    assert len(set(rows)) == 5
    assert set(rows) <= set(range(20))
    assert len(proxy_rows(train, 0, Streams(1))) == 0
    with pytest.raises(BadValue, match="proxy_examples=20"):
        proxy_rows(train, 20, Streams(1))
