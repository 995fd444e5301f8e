"""The error of averaging A and B apart, against the products formed in full."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.errors import FedloraError
from fedlora_kit.methods import method
from fedlora_kit.methods.aggregation_gap import aggregation_gap
from fedlora_kit.methods.base import ClientUpdate

A, B = "m.0.lora_A.weight", "m.0.lora_B.weight"


def in_full(after, updates, before):
    total = sum(u.num_examples for u in updates)
    wanted = sum(
        u.num_examples / total * ({**before, **u.tensors}[B].double() @ {**before, **u.tensors}[A].double())
        for u in updates
    )
    return float((after[B].double() @ after[A].double() - wanted).norm() / wanted.norm())


def state(generator, out, rank, width):
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {A: draw(rank, width), B: draw(out, rank)}


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_it_equals_the_products_formed_in_full(out, rank, width, clients, seed):
    generator = torch.Generator().manual_seed(seed)
    before = state(generator, out, rank, width)
    updates = [ClientUpdate(k, k + 1, state(generator, out, rank, width)) for k in range(clients)]
    after = method("lora").aggregate(before, updates)
    assert aggregation_gap(before, after, updates) == pytest.approx(
        in_full(after, updates, before), rel=1e-6, abs=1e-7
    )


def test_ffa_lora_has_none_and_one_client_has_none():
    generator = torch.Generator().manual_seed(0)
    before = state(generator, 40, 4, 30)
    only_b = [ClientUpdate(k, k + 1, {B: torch.randn(40, 4, generator=generator)}) for k in range(3)]
    assert aggregation_gap(before, method("ffa-lora").aggregate(before, only_b), only_b) < 1e-6
    alone = [ClientUpdate(0, 5, state(generator, 40, 4, 30))]
    assert aggregation_gap(before, method("lora").aggregate(before, alone), alone) < 1e-6


def test_the_order_of_the_clients_changes_nothing_and_unmoved_clients_have_no_gap():
    generator = torch.Generator().manual_seed(0)
    before = {**state(generator, 6, 2, 5), B: torch.zeros(6, 2)}
    updates = [ClientUpdate(k, 1, state(generator, 6, 2, 5)) for k in range(3)]
    after = method("lora").aggregate(before, updates)
    assert aggregation_gap(before, after, updates) == pytest.approx(
        aggregation_gap(before, after, updates[::-1])
    )
    still = [ClientUpdate(k, 1, dict(before)) for k in range(2)]
    assert aggregation_gap(before, before, still) == 0.0


def test_an_adapter_without_pairs():
    with pytest.raises(FedloraError, match="no pair"):
        aggregation_gap(
            {}, {"head.weight": torch.ones(1)}, [ClientUpdate(0, 1, {"head.weight": torch.ones(1)})]
        )
