"""Magnitude and direction of A and B: round trips, gradients, what trains alone, plain factors outside."""

import doctest

import numpy as np
import peft
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit import adapter
from fedlora_kit.adapter import AdapterSlot, digest, load_peft, save_peft
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.models import components
from fedlora_kit.models.components import (
    AXES,
    component_names,
    compose,
    decompose,
    decomposed,
    part_of,
    split_factors,
    vector_dim,
    with_components,
)
from fedlora_kit.models.lora import LoraSettings, attach_lora

CPU = torch.device("cpu")


def test_doctests():
    assert doctest.testmod(components).failed == 0
    assert doctest.testmod(adapter).failed == 0


def matrix(rows, columns, seed, zeros=()):
    """Entries of very different sizes, some vectors zero."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-6, 6, size=(rows, columns))
    for row in zeros:
        values[row % rows] = 0
    return torch.from_numpy(values.astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 9),
    dim=st.integers(0, 1),
    seed=st.integers(0, 999),
    zeros=st.lists(st.integers(0, 6), max_size=3),
)
def test_a_factor_comes_back_bit_for_bit(rows, columns, dim, seed, zeros):
    whole = matrix(rows, columns, seed, zeros)
    magnitude, direction = decompose(whole, dim)
    assert torch.equal(compose(magnitude, direction, dim), whole)
    ones = torch.ones(direction.shape[1 - dim], dtype=torch.float64)
    torch.testing.assert_close(direction.norm(dim=dim), ones)  # every direction is a unit vector
    # oracle: one vector at a time
    for i in range(whole.shape[1 - dim]):
        vector = whole.double().select(1 - dim, i).numpy()
        length = np.sqrt((vector**2).sum())
        assert float(magnitude.select(1 - dim, i)) == pytest.approx(length, rel=1e-12)
        expected = vector / length if length else np.full(len(vector), len(vector) ** -0.5)
        np.testing.assert_allclose(direction.select(1 - dim, i).numpy(), expected, atol=1e-12)


def test_shapes_of_a_non_square_layer_by_axis():
    a, b = torch.randn(2, 5), torch.zeros(3, 2)  # Linear 5 -> 3, r = 2
    shapes = {
        axis: [
            tuple(decompose(m, vector_dim(n, axis))[0].shape)
            for n, m in (("m.lora_A.weight", a), ("m.lora_B.weight", b))
        ]
        for axis in AXES
    }
    assert shapes == {"rank": [(2, 1), (1, 2)], "vector": [(1, 5), (3, 1)]}
    with pytest.raises(UnknownName, match="rank"):
        vector_dim("m.lora_A.weight", "row")
    with pytest.raises(BadValue, match="classifier"):
        vector_dim("classifier.weight", "rank")


@pytest.mark.parametrize("dim", [0, 1])
def test_gradients_through_the_normalisation_equal_finite_differences(dim):
    torch.manual_seed(0)
    magnitude, direction = decompose(torch.randn(3, 4, dtype=torch.float64), dim)
    direction = 1.7 * direction  # the length of a direction does not count
    magnitude.requires_grad_(), direction.requires_grad_()
    weights = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda m, d: (weights * compose(m, d, dim, torch.float64)).sin().sum(), (magnitude, direction)
    )
    (weights * compose(magnitude, direction, dim, torch.float64)).sin().sum().backward()
    across = (direction.grad * direction).sum(dim)
    torch.testing.assert_close(across, torch.zeros_like(across))  # orthogonal to the direction itself


def loss_of(model, kind):
    inputs, labels = tiny.data(kind, 8, seed=3).batch(np.arange(8), CPU)
    return torch.nn.functional.cross_entropy(model(**inputs).logits, labels)


def ready(kind, **lora):
    """A model whose B is not zero, apart from one column and one row."""
    model = attach_lora(tiny.backbone(kind), LoraSettings(**{"rank": 3, "alpha": 6, **lora}), seed=1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
                p[:, 1], p[2] = 0, 0
    return model


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", ["roberta", "vit", "llama"])
@pytest.mark.parametrize(
    "parts", [("A_M",), ("A_D",), ("B_M",), ("B_D",), ("A_D", "B_M"), ("A_M", "A_D", "B_M", "B_D")]
)
def test_each_component_trains_alone_or_together(kind, axis, parts):
    model = ready(kind)
    slot = AdapterSlot(model)
    before = slot.read()
    objects = dict(slot.parameters)
    expected = loss_of(model, kind).item()
    factors = sorted({part[0] for part in parts})
    with decomposed(model, factors, axis):
        inner = AdapterSlot(model)
        assert {part_of(n) for n in inner.names} >= {f"{f}_{c}" for f in factors for c in "MD"}
        assert digest(inner.read()) == digest(split_factors(before, factors, axis))
        assert loss_of(model, kind).item() == expected  # the same model, bit for bit
        inner.set_trainable(n for n in inner.names if part_of(n) in parts)
        optimizer = torch.optim.SGD([inner.parameters[n] for n in inner.trainable], lr=0.1)
        loss_of(model, kind).backward()
        optimizer.step()
        after = inner.read()
        start = split_factors(before, factors, axis)
        assert {part_of(n) for n in after if not torch.equal(after[n], start[n])} == set(parts)
        now = loss_of(model, kind).item()
    assert AdapterSlot(model).names == slot.names  # plain A and B again, in the same objects
    assert all(AdapterSlot(model).parameters[n] is p for n, p in objects.items())
    assert loss_of(model, kind).item() == now != expected
    untouched = {n: t for n, t in before.items() if part_of(n) not in factors}
    assert digest(slot.read(untouched)) == digest(untouched)


def test_the_factors_are_plain_again_after_an_error():
    model = ready("roberta")
    before = digest(AdapterSlot(model).read())
    with pytest.raises(RuntimeError, match="stop"), decomposed(model, ["A", "B"], "rank"):
        raise RuntimeError("stop")
    assert digest(AdapterSlot(model).read()) == before
    assert not any("parametrizations" in n for n, _ in model.named_parameters())


def test_bad_requests():
    with pytest.raises(UnknownName, match="factor"), decomposed(ready("roberta"), ["C"], "rank"):
        pass
    with pytest.raises(BadValue, match="attach LoRA"), decomposed(tiny.backbone("roberta"), ["A"], "rank"):
        pass
    with pytest.raises(UnknownName, match="axis"), decomposed(ready("roberta"), ["A"], "rows"):
        pass


@pytest.mark.parametrize("axis", AXES)
def test_components_put_into_an_adapter(axis):
    state = AdapterSlot(ready("roberta")).read()
    name = next(n for n in state if ".lora_B" in n)
    magnitude, direction = component_names(name)
    own = split_factors(state, ["B"], axis)
    same = with_components(state, {n: t for n, t in own.items() if part_of(n) in ("B_M", "B_D")}, axis)
    assert digest(same) == digest(state)
    doubled = with_components(state, {magnitude: 2 * own[magnitude]}, axis)
    torch.testing.assert_close(doubled[name], 2 * state[name])
    flipped = with_components(state, {magnitude: -own[magnitude]}, axis)  # a magnitude that crossed zero
    torch.testing.assert_close(flipped[name], -state[name])
    assert digest({n: t for n, t in doubled.items() if n != name}) == digest(
        {n: t for n, t in state.items() if n != name}
    )
    turned = with_components(state, {direction: -own[direction]}, axis)
    torch.testing.assert_close(turned[name], -state[name])


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_export_is_an_ordinary_peft_adapter(tmp_path, use_dora):
    model = ready("roberta", use_dora=use_dora).eval()
    slot = AdapterSlot(model)
    with decomposed(model, ["A", "B"], "rank"), torch.no_grad():
        for name, p in AdapterSlot(model).parameters.items():
            if name.endswith(".magnitude"):
                p.mul_(1.5)
    save_peft(model, slot.read(), tmp_path)
    assert digest({n: t for n, t in load_peft(tmp_path).items() if ".lora_" in n}) == digest(slot.read())
    loaded = peft.PeftModel.from_pretrained(tiny.backbone("roberta"), str(tmp_path)).eval()
    assert loss_of(loaded, "roberta").item() == loss_of(model, "roberta").item()
