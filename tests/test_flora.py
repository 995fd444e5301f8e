"""FLoRA: exact stacking, merging beside the base weights, and the checkpoint that holds it all."""

import copy
import doctest

import pytest
import torch
from tiny import ARCHITECTURES, backbone, data, federation

from fedlora_kit.adapter import AdapterSlot, digest, save_peft
from fedlora_kit.data.batches import shuffled_batches
from fedlora_kit.methods import ClientUpdate, FLoRA, ranks
from fedlora_kit.methods.ranks import truncated
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.models.residual import factorised
from fedlora_kit.training.costs import client_costs
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CPU = torch.device("cpu")
RANKS = {"groups": [1, 1, 1], "ranks": [0.25, 0.5, 1.0]}
LORA = LoraSettings(rank=4, alpha=12)  # scale 3: forgotten or applied twice, it would show


def flora(**extra):
    """Three clients of rank 1, 2 and 4."""
    return federation("flora", lora=LORA, settings={"resources": RANKS}, **extra)


def products(state):
    """M + B A of every module."""
    modules = [n.removesuffix(".lora_A.weight") for n in state if ".lora_A" in n]
    zero = torch.zeros(())
    return {
        m: state.get(f"{m}.lora_residual.weight", zero)
        + state[f"{m}.lora_B.weight"] @ state[f"{m}.lora_A.weight"]
        for m in modules
    }


def test_doctests():
    assert doctest.testmod(ranks).failed == 0


def test_the_stack_is_the_weighted_sum_of_the_products_on_a_non_square_linear():
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=g)

    start = {
        "m.lora_A.weight": draw(3, 5),
        "m.lora_B.weight": draw(4, 3),
        "m.lora_residual.weight": draw(4, 5),
    }
    updates = [
        ClientUpdate(k, n, truncated({"m.lora_A.weight": draw(3, 5), "m.lora_B.weight": draw(4, 3)}, k + 1))
        for k, n in enumerate((1, 5, 2))
    ]
    after = FLoRA().aggregate(start, updates)
    ideal = sum(
        products(u.tensors)["m"] * u.num_examples / 8 for u in updates
    )  # rank 3 + 2 + 1: no noise, no cut
    torch.testing.assert_close(after["m.lora_residual.weight"], start["m.lora_residual.weight"] + ideal)
    assert torch.equal(after["m.lora_A.weight"], start["m.lora_A.weight"])  # fresh adapters: the first A
    assert torch.count_nonzero(after["m.lora_B.weight"]) == 0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_two_rounds_are_two_merges_into_the_base_weights(kind):
    """The oracle writes (alpha / r) sum w B A into the base weights themselves, and starts LoRA anew."""
    rounds = FederationSettings(rounds=2)
    fed = flora(kind=kind, rounds=rounds)
    outcome = run_federation(fed)
    plain = federation("lora", lora=LORA, kind=kind)
    slot, start = AdapterSlot(plain.model), AdapterSlot(plain.model).read()
    slot.set_trainable(slot.names)
    plain.model.train()
    layers = {
        n: m for n, m in plain.model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")
    }
    first = {n: m.base_layer.weight.detach().clone() for n, m in layers.items()}
    total = sum(len(c) for c in plain.clients)
    for r in range(2):
        update = {n: torch.zeros_like(w) for n, w in first.items()}
        for k, rank in enumerate((1, 2, 4)):
            slot.write(truncated(start, rank))
            optimizer = torch.optim.SGD([slot.parameters[n] for n in slot.names], lr=0.1)
            batches = shuffled_batches(len(plain.clients[k]), 4, 3, plain.streams.generator("data", r, k))
            for batch in batches:
                inputs, labels = plain.clients[k].batch(batch, CPU)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(plain.model(**inputs).logits, labels).backward()
                optimizer.step()
                ranks.zero_beyond(slot.parameters, rank)
            for n, m in layers.items():
                b, a = m.lora_B["default"].weight.detach(), m.lora_A["default"].weight.detach()
                update[n] += len(plain.clients[k]) / total * (b @ a)
        with torch.no_grad():
            for n, m in layers.items():
                m.base_layer.weight += LORA.alpha / LORA.rank * update[n]
    found = products(outcome.state)
    for n, m in layers.items():
        expected = (m.base_layer.weight.detach() - first[n]) * LORA.rank / LORA.alpha
        name = n.removeprefix("base_model.model.")
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_its_aggregation_has_no_gap():
    """||B A + M - M_before - sum w B A|| is zero, where FedIT's is not."""
    rounds = FederationSettings(rounds=2, measure_gap=True)
    exact = run_federation(flora(rounds=rounds)).history
    averaged = run_federation(federation("lora", lora=LORA, rounds=rounds)).history
    assert max(h["aggregation_gap"] for h in exact) < 1e-5
    assert min(h["aggregation_gap"] for h in averaged) > 1e-4


def test_a_resumed_run_ends_bit_identical():
    rounds, snapshots = FederationSettings(rounds=3, cohort=2), []
    whole = run_federation(flora(rounds=rounds), save=lambda now: snapshots.append(copy.deepcopy(now)))
    for snapshot in snapshots[:-1]:
        assert digest(run_federation(flora(rounds=rounds), resume=snapshot).state) == digest(whole.state)


@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_the_checkpoint_gives_the_same_logits_elsewhere(kind, tmp_path):
    from peft import PeftModel

    fed = flora(kind=kind, rounds=FederationSettings(rounds=2))
    outcome = run_federation(fed)
    fed.model.eval()
    inputs, _ = data(kind, 6, seed=5).batch(torch.arange(6).numpy(), CPU)
    with torch.no_grad():
        ours = fed.model(**inputs).logits
    save_peft(fed.model, outcome.state, tmp_path)
    elsewhere = PeftModel.from_pretrained(backbone(kind, num_hidden_layers=2), str(tmp_path)).eval()
    with torch.no_grad():
        theirs = elsewhere(**inputs).logits
        bare = backbone(kind, num_hidden_layers=2).eval()(**inputs).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(bare, ours, atol=1e-2)


def test_an_adapter_without_residuals_is_left_alone():
    state = {"m.lora_A.weight": torch.ones(1, 2), "m.lora_B.weight": torch.ones(3, 1)}
    assert factorised(state) == (state, None)


def test_modules_of_different_size_share_one_rank():
    g = torch.Generator().manual_seed(3)
    state = {}
    for m, (out, inner) in {"small": (2, 3), "large": (6, 5)}.items():
        state[f"{m}.lora_A.weight"] = torch.randn(1, inner, generator=g)
        state[f"{m}.lora_B.weight"] = torch.randn(out, 1, generator=g)
        state[f"{m}.lora_residual.weight"] = torch.randn(out, inner, generator=g)
    plain, rank = factorised(state)
    assert rank == 5
    assert {t.shape[0] for n, t in plain.items() if ".lora_A" in n} == {5}
    for m, dense in products(state).items():
        torch.testing.assert_close(products(plain)[m], dense, atol=1e-5, rtol=1e-5)


def test_the_stack_travels_down():
    """16 x 16 modules of rank 1, 2 and 4: up the client's own factors, down 7 directions to everybody."""
    local = LocalSettings(optimizer="adamw", lr=0.01, steps=1, batch_size=4)
    costs = client_costs(flora(local=local, kind="bert"))
    modules = 2 * 4  # layers x (q, k, v, o)
    assert [c.upload_bytes for c in costs] == [modules * 32 * rank * 4 for rank in (1, 2, 4)]
    assert {c.download_bytes for c in costs} == {modules * 32 * 7 * 4}
    crowd = federation(
        "flora", (8,) * 6, lora=LORA, kind="bert", local=local
    )  # 24 directions: dense is smaller
    assert {c.download_bytes for c in client_costs(crowd)} == {modules * 16 * 16 * 4}
    svd = federation("flexlora", lora=LORA, settings={"resources": RANKS}, kind="bert", local=local)
    assert [c.download_bytes for c in client_costs(svd)] == [c.upload_bytes for c in client_costs(svd)]
