"""Operations counted on a few layers and tokens against PyTorch's own counts of whole models; architectures
against recipes and published numbers."""

from contextlib import nullcontext

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.encoded_causal import AnswerTokens
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.memory import checkpoint_gradients
from fedlora_kit.models.targets import layer_index
from fedlora_kit.planning.architectures import (
    PUBLISHED,
    architecture,
    image_tokens,
    of_config,
    published,
    random_model,
    weights_bytes,
)
from fedlora_kit.planning.operations import operations
from fedlora_kit.planning.step_costs import FusedAttention, cost_of, step_cost
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.objective import answer_logits


def made(kind, model_type, layers, width, inner, **others):
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner}
    return of_config(transformers.AutoConfig.for_model(model_type, **sizes, **others), kind)


TEXT = made("text", "roberta", 5, 64, 192, num_attention_heads=4, vocab_size=300)
BERT = made("text", "bert", 2, 48, 96, num_attention_heads=4, vocab_size=120)
IMAGE = made("image", "vit", 5, 64, 128, num_attention_heads=4, image_size=32, patch_size=4)
LLAMA = made("causal", "llama", 5, 96, 256, num_attention_heads=4, vocab_size=460, tie_word_embeddings=True)
GROUPED = made("causal", "llama", 3, 64, 160, num_attention_heads=8, num_key_value_heads=2, vocab_size=100)
QWEN = made(
    "causal", "qwen2", 5, 64, 160, num_attention_heads=4, num_key_value_heads=2, vocab_size=200, head_dim=32
)
SHAPES = {"roberta": TEXT, "bert": BERT, "vit": IMAGE, "llama": LLAMA, "grouped": GROUPED, "qwen2": QWEN}
TARGETS = (("q", "v"), ("q", "k", "v", "o"), ("o", "down"))
LABELS = 10


def adapted(shape, targets, rank=8):
    model = random_model(shape, LABELS, "meta")
    return attach_lora(model, LoraSettings(rank=rank, alpha=8, targets=targets), 0).train()


def counter(shape, targets, checkpointing=False):
    return operations(shape, LABELS, LoraSettings(rank=8, targets=targets), checkpointing)


def logits(model, shape, tokens, scored=None):
    if shape.kind == "image":
        side = shape.config.image_size
        return model(pixel_values=torch.empty(1, 3, side, side, device="meta")).logits
    ids = torch.zeros(1, tokens, dtype=torch.int64, device="meta")
    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device="meta")
    inputs = {"input_ids": ids, **({"attention_mask": mask} if shape.kind == "causal" else {})}
    if scored is None:
        return model(**inputs).logits
    where = torch.zeros(scored, dtype=torch.int64, device="meta")
    return answer_logits(model, inputs, AnswerTokens(where, where, where, where[:1], tokens))


def counted(model, shape, tokens, trained, *, frozen_a=False, present=None, scored=None):
    """(forward, backward) operations of one example, as PyTorch's counter finds them on the whole model."""
    slot = AdapterSlot(model)
    slot.set_trainable(
        [n for n in slot.names if layer_index(n) in trained and not (frozen_a and "lora_A" in n)]
    )
    with only_layers(model, present):
        with FlopCounterMode(display=False) as forward:
            loss = logits(model, shape, tokens, scored).sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def found(ops, tokens, layers, trained, **options):
    cost = ops.step(tokens, [layer in trained for layer in range(layers)], **options)
    return cost.forward_flops, cost.backward_flops


@pytest.mark.parametrize(
    ("name", "targets"), [*((name, TARGETS[0]) for name in SHAPES), *(("vit", t) for t in TARGETS[1:])]
)
def test_operations_are_those_that_pytorch_counts(name, targets):
    shape = SHAPES[name]
    model, ops, tokens, top = adapted(shape, targets), counter(shape, targets), 41, shape.layers - 1
    scored = 7 if shape.kind == "causal" else None
    first = read_first_token(model)
    assert first == ops.reads_first_token == (shape.kind != "causal")
    cases = [
        ({*range(top + 1)}, True, scored),
        ({top}, False, None),
        ({1}, False, scored),
        ({0, top}, False, None),
    ]
    for trained, frozen_a, s in cases:
        whole = counted(model, shape, tokens, trained, frozen_a=frozen_a, scored=s)
        ours = found(ops, tokens, top + 1, trained, frozen_a=frozen_a, first_token=first, scored=s)
        assert ours == pytest.approx(whole, rel=1e-9)


def test_operations_of_a_last_layer_that_computes_all_tokens():
    model, ops = adapted(TEXT, ("q", "v")), counter(TEXT, ("q", "v"))
    for trained in ({*range(TEXT.layers)}, {2}):
        whole = counted(model, TEXT, 41, trained)
        assert found(ops, 41, TEXT.layers, trained) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("shape", [TEXT, LLAMA], ids=["roberta", "llama"])
def test_checkpoints_repeat_the_layers(shape):
    model, targets = adapted(shape, ("q", "v")), ("q", "v")
    first = read_first_token(model)
    checkpoint_gradients(model)
    for trained in ({*range(shape.layers)}, {0}):
        whole = counted(model, shape, 30, trained)
        ours = found(counter(shape, targets, True), 30, shape.layers, trained, first_token=first)
        assert ours == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("present", [{1, 3}, {0, 4}, {2}])
def test_layers_that_are_absent_cost_nothing(present):
    model = adapted(IMAGE, ("q", "v"))
    read_first_token(model)
    whole = counted(model, IMAGE, 65, present, present=frozenset(present))
    options = {"first_token": 4 in present}
    assert found(counter(IMAGE, ("q", "v")), 65, len(present), set(range(9)), **options) == whole


def test_what_does_not_train_has_no_backward_pass():
    ops = counter(TEXT, ("q",))
    assert ops.step(20, [False] * 5).backward_flops == 0
    less, more = (ops.step(20, [False] * n).forward_flops for n in (0, 5))
    assert 0 < less < more / 20  # the head's


@pytest.mark.parametrize("shape", [LLAMA, GROUPED, QWEN], ids=["llama", "grouped", "qwen2"])
def test_a_generated_answer_costs_its_tokens_one_by_one(shape):
    model = adapted(shape, ("q", "v")).eval()
    cache = transformers.DynamicCache()
    with torch.no_grad(), FlopCounterMode(display=False) as slow:
        for n in (12, 1, 1, 1, 1):  # the prompt gives the first of five tokens
            ids = torch.zeros(1, n, dtype=torch.int64, device="meta")
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    ops = counter(shape, ("q", "v"))
    assert ops.generation(12, 5, shape.layers) == pytest.approx(slow.get_total_flops(), rel=0.001)
    held = sum(t.numel() for layer in cache.layers for t in (layer.keys, layer.values))
    assert ops.cache_numbers * 16 * shape.layers == held


@pytest.mark.parametrize("shape", [TEXT, IMAGE, LLAMA], ids=["roberta", "vit", "llama"])
@pytest.mark.parametrize("lowest", [0, 1])
def test_activations_are_what_autograd_keeps_with_fused_attention(shape, lowest):
    model, targets = adapted(shape, ("q", "v")), ("q", "v")
    first = read_first_token(model)
    slot = AdapterSlot(model)
    slot.set_trainable([n for n in slot.names if layer_index(n) >= lowest])
    scored = 5 if shape.kind == "causal" else None
    sizes = []
    for attention in (FusedAttention(), nullcontext()):
        with attention:
            sizes.append(cost_of(model, lambda: logits(model, shape, 41, scored)).activation_bytes)
    layers = [layer >= lowest for layer in range(shape.layers)]
    ours = counter(shape, targets).step(41, layers, first_token=first, scored=scored, kept=True)
    assert ours.activation_bytes == pytest.approx(sizes[0], rel=0.02)
    assert ours.forward_flops == 0
    assert sizes[0] < sizes[1]


def test_a_step_of_an_image_model_is_counted_as_it_is():
    model = adapted(IMAGE, ("q", "v"))
    cost = step_cost(model, torch.empty(1, 3, 32, 32, device="meta"))
    whole = counted(model, IMAGE, 65, range(5))
    assert (cost.forward_flops, cost.backward_flops) == whole


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
        assert weights_bytes(published(name), 2) / 4e6 == pytest.approx(millions, rel=0.01)
    assert image_tokens(published("google/vit-base-patch16-224-in21k")) == 197


@pytest.mark.parametrize("name", ["text-tiny", "image-tiny", "causal-tiny", "instruct-tiny"])
def test_an_architecture_read_from_its_configuration_has_the_weights_parameters(name):
    model = load_backbone(f"kit/{name}", 2, 0)
    total = 4 * sum(p.numel() for p in model.parameters())
    assert weights_bytes(architecture(f"kit/{name}"), 2) == total


def test_half_the_bytes_in_16_bits_and_an_eighth_in_4_but_for_embeddings():
    shape = published("huggyllama/llama-7b")
    assert weights_bytes(shape, 0, "bf16") == weights_bytes(shape, 0) // 2
    assert weights_bytes(shape, 0, four_bit=True) < weights_bytes(shape, 0) / 7


def test_unknown_shapes_say_so(monkeypatch, tmp_path):
    with pytest.raises(FedloraError, match="shape of nobody/nothing is not known"):
        architecture("nobody/nothing")
    monkeypatch.delitem(PUBLISHED, "huggyllama/llama-7b")
    with pytest.raises(FedloraError, match=r"config\.json"):
        architecture("huggyllama/llama-7b")
    file = tmp_path / "models" / "huggyllama" / "llama-7b" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"model_type": "nobodys"}')
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    with pytest.raises(FedloraError, match=r"cannot read .*config\.json"):
        architecture("huggyllama/llama-7b")
    assert len({published("meta-llama/Llama-2-7b-hf"), published("TinyLlama/TinyLlama-1.1B-Chat-v1.0")}) == 2
