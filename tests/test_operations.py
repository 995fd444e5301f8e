"""Operations in closed form against PyTorch's own counts on real small models; shapes against recipes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.encoded_causal import AnswerTokens
from fedlora_kit.errors import FedloraError, UnknownName
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.memory import checkpoint_gradients
from fedlora_kit.models.targets import layer_index
from fedlora_kit.planning.operations import (
    Adapters,
    activation_bytes,
    backward_flops,
    forward_flops,
    generation_flops,
)
from fedlora_kit.planning.shapes import (
    PUBLISHED,
    Shape,
    from_config,
    random_model,
    shape_of,
    weights_bytes,
)
from fedlora_kit.planning.step_costs import _Flops, step_cost
from fedlora_kit.pretraining import causal as pretrain_causal
from fedlora_kit.pretraining import image_mirror as pretrain_image_mirror
from fedlora_kit.pretraining import instruct as pretrain_instruct
from fedlora_kit.pretraining import lines as pretrain_lines
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.objective import answer_logits

TEXT = Shape("roberta", 4, 64, 4, 192, vocabulary=300, positions=130)
BERT = Shape("bert", 2, 48, 4, 96, vocabulary=120, positions=64)
IMAGE = Shape("vit", 4, 64, 4, 128, image=32, patch=4)
LLAMA = Shape("llama", 4, 96, 4, 256, vocabulary=460, tied=True)
GROUPED = Shape("llama", 3, 64, 8, 160, key_value_heads=2, vocabulary=100)
TARGETS = (("q", "v"), ("q", "k", "v", "o"), ("o", "down"))
LABELS = 10


def adapted(shape, targets, rank=8):
    model = random_model(shape, LABELS, "meta" if shape.patch else "cpu")
    return attach_lora(model, LoraSettings(rank=rank, alpha=8, targets=targets), 0).train()


def counted(model, shape, tokens, trained, *, frozen_a=False, present=None):
    """(forward, backward) operations of one example, as PyTorch counts them."""
    slot = AdapterSlot(model)
    slot.set_trainable(
        [n for n in slot.names if layer_index(n) in trained and not (frozen_a and "lora_A" in n)]
    )
    if shape.patch:
        batch = {"pixel_values": torch.empty(1, 3, shape.image, shape.image, device="meta")}
    else:
        ids = torch.full((1, tokens), 5)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with sdpa_kernel(SDPBackend.MATH), only_layers(model, present):  # PyTorch counts no fused CPU kernel
        with _Flops() as forward:
            loss = model(**batch).logits.float().logsumexp(-1).sum()
        with _Flops() as backward:
            loss.backward()
    return forward.total, backward.total


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [(TEXT, 40), (BERT, 21), (IMAGE, 65), (LLAMA, 50), (GROUPED, 33)],
    ids=["roberta", "bert", "vit", "llama", "grouped"],
)
@pytest.mark.parametrize("targets", TARGETS, ids="".join)
def test_operations_are_those_that_pytorch_counts(shape, tokens, targets):
    model, adapters = adapted(shape, targets), Adapters(8, targets)
    top = shape.layers - 1
    for trained in ({*range(shape.layers)}, {top}, {1}):
        for frozen_a in (False, True):
            forward, backward = counted(model, shape, tokens, trained, frozen_a=frozen_a)
            assert forward_flops(shape, adapters, tokens, labels=LABELS) == pytest.approx(forward)
            ours = backward_flops(shape, adapters, tokens, trained, labels=LABELS, frozen_a=frozen_a)
            assert ours == pytest.approx(backward, rel=0.001)


@pytest.mark.parametrize(
    ("shape", "tokens"), [(TEXT, 40), (BERT, 21), (IMAGE, 65)], ids=["roberta", "bert", "vit"]
)
@pytest.mark.parametrize("targets", TARGETS, ids="".join)
def test_operations_of_a_last_layer_that_computes_one_token(shape, tokens, targets):
    model, adapters = adapted(shape, targets), Adapters(8, targets)
    assert read_first_token(model)
    top = shape.layers - 1
    for trained in ({*range(shape.layers)}, {top}, {0}):
        forward, backward = counted(model, shape, tokens, trained)
        ours = forward_flops(shape, adapters, tokens, labels=LABELS, first_token=True)
        assert ours == pytest.approx(forward)
        ours = backward_flops(shape, adapters, tokens, trained, labels=LABELS, first_token=True)
        assert ours == pytest.approx(backward, rel=0.001)


def test_layers_that_are_absent_cost_nothing():
    model, adapters = adapted(IMAGE, ("q", "v")), Adapters(8, ("q", "v"))
    present = frozenset({1, 3})
    forward, backward = counted(model, IMAGE, 65, {1, 3}, present=present)
    assert forward_flops(IMAGE, adapters, 65, layers=2, labels=LABELS) == pytest.approx(forward)
    ours = backward_flops(IMAGE, adapters, 65, {1, 3}, present=sorted(present), labels=LABELS)
    assert ours == pytest.approx(backward, rel=0.001)


def test_a_causal_head_computes_at_the_answer():
    model, adapters = adapted(LLAMA, ("q", "v")), Adapters(8, ("q", "v"))
    inputs = {"input_ids": torch.full((1, 50), 5), "attention_mask": torch.ones(1, 50, dtype=torch.int64)}
    answer = AnswerTokens(
        torch.zeros(7, dtype=torch.int64),
        torch.arange(42, 49),
        torch.full((7,), 5),
        torch.tensor([7]),
        50,
    )
    with sdpa_kernel(SDPBackend.MATH):
        with _Flops() as forward:
            loss = answer_logits(model, inputs, answer).logsumexp(-1).sum()
        with _Flops() as backward:
            loss.backward()
    everything = range(LLAMA.layers)
    assert forward_flops(LLAMA, adapters, 50, scored=7) == pytest.approx(forward.total)
    ours = backward_flops(LLAMA, adapters, 50, everything, scored=7)
    assert ours == pytest.approx(backward.total, rel=0.001)


def test_what_does_not_train_has_no_backward_pass():
    assert backward_flops(TEXT, Adapters(8, ("q",)), 20, set()) == 0


def test_checkpointing_repeats_the_layers():
    model, adapters = adapted(LLAMA, ("q", "v")), Adapters(8, ("q", "v"))
    checkpoint_gradients(model)
    everything = set(range(LLAMA.layers))
    for trained in (everything, {2}):
        _, backward = counted(model, LLAMA, 30, trained)
        ours = backward_flops(LLAMA, adapters, 30, trained, checkpointing=True)
        assert ours == pytest.approx(backward, rel=0.02)


def test_a_generated_answer_costs_its_tokens_one_by_one():
    adapters = Adapters(8, ("q", "v"))
    slow = forward_flops(LLAMA, adapters, 12) - 2 * 12 * LLAMA.width * LLAMA.vocabulary
    for token in range(1, 5):  # the prompt gives the first one
        inside = LLAMA.layers * (LLAMA.layer_weights + adapters.entries(LLAMA))
        slow += 2 * inside + LLAMA.layers * 4 * (12 + token) * LLAMA.width
    slow += 5 * 2 * LLAMA.width * LLAMA.vocabulary
    assert generation_flops(LLAMA, adapters, 12, 5) == pytest.approx(slow, rel=0.15)
    assert generation_flops(LLAMA, adapters, 12, 6) > generation_flops(LLAMA, adapters, 12, 5)


@pytest.mark.parametrize("shape", [IMAGE, PUBLISHED["google/vit-base-patch16-224-in21k"]])
@pytest.mark.parametrize("lowest", [0, 2])
def test_activations_are_about_what_autograd_keeps(shape, lowest):
    model, adapters = adapted(shape, ("q", "v"), 16), Adapters(16, ("q", "v"))
    slot = AdapterSlot(model)
    slot.set_trainable([n for n in slot.names if layer_index(n) >= lowest])
    image = torch.empty(1, 3, shape.image, shape.image, device="meta")
    kept = step_cost(model, image).activation_bytes
    attention = 4 * (shape.layers - lowest) * shape.heads * shape.image_tokens**2  # kept by the plain kernel
    ours = activation_bytes(shape, adapters, shape.image_tokens, shape.layers - lowest)
    assert kept / 2 <= ours <= 2 * kept
    assert ours <= 2 * (kept - attention)


def test_the_table_holds_the_published_numbers_of_parameters():
    """Millions of parameters as the papers and cards round them."""
    told = {
        "FacebookAI/roberta-base": 125,
        "FacebookAI/roberta-large": 355,
        "google-bert/bert-base-uncased": 110,
        "google/vit-base-patch16-224-in21k": 86,
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1100,
        "huggyllama/llama-7b": 6738,
        "meta-llama/Llama-2-7b-hf": 6738,
        "deepseek-ai/deepseek-llm-7b-base": 6910,
    }
    for name, millions in told.items():
        assert weights_bytes(PUBLISHED[name], 2) / 4e6 == pytest.approx(millions, rel=0.01)


def test_the_kits_backbones_have_the_shapes_of_their_recipes():
    image, lines = pretrain_image_mirror.Recipe(), pretrain_lines.Recipe()
    found = PUBLISHED["kit/image-mirror"]
    assert (found.layers, found.width, found.heads, found.inner) == (
        image.layers,
        image.hidden,
        image.heads,
        image.inner,
    )
    assert (found.patch, found.image) == (image.patch, pretrain_image_mirror.SIDE)
    found = PUBLISHED["kit/text-mirror"]
    assert (found.layers, found.width, found.heads, found.inner) == (
        lines.layers,
        lines.hidden,
        lines.heads,
        lines.intermediate,
    )
    assert found.positions == lines.max_length + 2
    for name, recipe in (("causal", pretrain_causal.MIRROR), ("instruct", pretrain_instruct.MIRROR)):
        found = PUBLISHED[f"kit/{name}-mirror"]
        assert (found.layers, found.width, found.inner) == (recipe.layers, recipe.hidden, recipe.inner)
        assert (found.heads, found.vocabulary) == (recipe.heads, recipe.vocabulary)


@pytest.mark.parametrize("name", ["text-tiny", "image-tiny", "causal-tiny", "instruct-tiny"])
def test_a_shape_read_from_its_configuration_has_the_weights_parameters(name):
    from fedlora_kit.models.backbones import load_backbone

    model = load_backbone(f"kit/{name}", 2, 0)
    total = 4 * sum(p.numel() for p in model.parameters())
    assert weights_bytes(shape_of(f"kit/{name}"), 2) == total


def test_half_the_bytes_in_16_bits_and_an_eighth_in_4_but_for_embeddings():
    shape = PUBLISHED["huggyllama/llama-7b"]
    assert weights_bytes(shape, 0, "bf16") == weights_bytes(shape, 0) // 2
    assert weights_bytes(shape, 0, four_bit=True) < weights_bytes(shape, 0) / 7


def test_unknown_shapes_say_so(monkeypatch):
    with pytest.raises(UnknownName):
        shape_of("nobody/nothing")
    with pytest.raises(FedloraError, match="gpt2"):
        from_config({"model_type": "gpt2"})
    monkeypatch.delitem(PUBLISHED, "huggyllama/llama-7b")
    with pytest.raises(FedloraError, match=r"config\.json"):
        shape_of("huggyllama/llama-7b")


def test_grouped_heads_have_narrow_keys():
    assert GROUPED.kv_width == 16
    assert replace(GROUPED, key_value_heads=0).kv_width == 64
    assert np.prod(GROUPED.matrix("k")) == 64 * 16
