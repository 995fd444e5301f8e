"""Where A starts: what each start is, and that training sees it."""

import pytest
import torch
from tiny import backbone

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.errors import BadValue
from fedlora_kit.models.lora import LoraSettings, attach_lora


def layers(kind, init, seed=0, rank=4):
    """(A, W0) of every adapted layer."""
    model = attach_lora(backbone(kind), LoraSettings(rank=rank, init=init), seed=seed)
    found = [m for m in model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
    assert found
    return [(m.lora_A["default"].weight.detach(), m.base_layer.weight.detach()) for m in found]


@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_orthogonal_rows_have_kaimings_norm(kind):
    for a, _ in layers(kind, "orthogonal"):
        assert torch.allclose(a @ a.T, torch.eye(4) / 3, atol=1e-5)


def test_kaimings_norm_is_what_the_others_are_scaled_to():
    norms = torch.tensor(
        [float(a.norm() ** 2) for seed in range(30) for a, _ in layers("roberta", "kaiming", seed)]
    )
    assert float(norms.mean()) == pytest.approx(4 / 3, rel=0.03)


@pytest.mark.parametrize("kind", ["roberta", "llama"])  # llama's k and v are not square
def test_svd_takes_the_directions_that_w0_stretches_most(kind):
    for a, w0 in layers(kind, "svd"):
        values, vectors = torch.linalg.eigh(
            (w0.T @ w0).double()
        )  # ascending: another way to the same vectors
        stretched = (w0.double() @ a.double().T).norm(dim=0) * 3**0.5
        assert torch.allclose(stretched, values.flip(0)[:4].sqrt(), rtol=1e-4)
        best = vectors.flip(1)[:, :4]
        assert torch.allclose((best @ best.T), 3 * a.double().T @ a.double(), atol=1e-4)


@pytest.mark.parametrize(("init", "moves"), [("kaiming", True), ("orthogonal", True), ("svd", False)])
def test_the_seed_moves_the_random_starts_only(init, moves):
    one, two, again = (layers("roberta", init, seed)[0][0] for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert torch.equal(one, two) != moves


def test_b_stays_zero_and_the_model_as_it_was():
    slot = AdapterSlot(attach_lora(backbone("roberta"), LoraSettings(rank=2, init="svd"), seed=0))
    assert all(not t.any() for n, t in slot.parameters.items() if ".lora_B" in n)


def test_more_rows_than_directions():
    with pytest.raises(BadValue, match="directions"):
        layers("roberta", "svd", rank=1000)
