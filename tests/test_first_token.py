"""A last layer that computes one token's state gives the scores and gradients of one that computes all."""

import copy
import ctypes
import pickle
import resource

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.experiments.setup import build
from fedlora_kit.models import read_first_token
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.memory import checkpoint_gradients
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.planning.architectures import of_config, random_model
from fedlora_kit.privacy.dpsgd import PerExampleGradients
from fedlora_kit.training import host_memory
from fedlora_kit.training.depth import only_layers


def made(kind, model_type, layers, inner, **others):
    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4}
    config = transformers.AutoConfig.for_model(model_type, **sizes, intermediate_size=inner, **others)
    return of_config(config, kind)


SHAPES = {
    "roberta": made("text", "roberta", 3, 64, vocab_size=100, max_position_embeddings=40),
    "bert": made("text", "bert", 2, 48, vocab_size=100, max_position_embeddings=40),
    "vit": made("image", "vit", 3, 64, image_size=8, patch_size=2, num_channels=1),
}
ALL = ("q", "k", "v", "o", "up", "down")
families = pytest.mark.parametrize("family", SHAPES)


def batch(family, rows=5, seed=0):
    """Images; or texts of which the last is padded to a few tokens and the second to half of them."""
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        return {"pixel_values": torch.randn(rows, 1, 8, 8, generator=generator)}
    ids = torch.randint(5, 90, (rows, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 3:] = 0
    if rows > 1:
        mask[1, 6:] = 0
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


def pair(family, targets=ALL, dtype=torch.float64):
    """The same random model, plain and with the short last layer; LoRA's B is not zero."""
    torch.manual_seed(1)
    plain = attach_lora(random_model(SHAPES[family], 3), LoraSettings(rank=4, targets=targets), 0).to(dtype)
    for module in plain.modules():  # no dropout: it is drawn for other shapes
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    short = copy.deepcopy(plain)
    assert read_first_token(short)
    return plain, short


def gradients(model, inputs):
    model.zero_grad(set_to_none=True)
    model(**inputs).logits.logsumexp(-1).sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@families
@given(rows=st.integers(1, 6), targets=st.sets(st.sampled_from(ALL), min_size=1), seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_scores_and_gradients_are_the_same(family, rows, targets, seed):
    plain, short = pair(family, tuple(t for t in ALL if t in targets))
    inputs = batch(family, rows, seed)
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    torch.testing.assert_close(short(**inputs).logits, plain(**inputs).logits, rtol=1e-9, atol=1e-9)
    expected, found = gradients(plain, inputs), gradients(short, inputs)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-8, atol=1e-9)


@families
def test_the_last_layer_computes_one_state(family):
    plain, short = pair(family, dtype=torch.float32)
    widths = {}

    def note(which):
        return lambda module, inputs, output: widths.setdefault(which, []).append(output.shape[1])

    for which, model in (("plain", plain), ("short", short)):
        for name, module in model.named_modules():
            if name.endswith(("output.LayerNorm", "layernorm_after")):
                module.register_forward_hook(note(which))
        model(**batch(family))
    tokens = widths["plain"][0]
    assert set(widths["plain"]) == {tokens}
    assert tokens > 1
    assert widths["short"][-1] == 1
    assert tokens in widths["short"]


@families
def test_per_example_gradients_are_the_same(family):
    found = []
    for model in pair(family, ("q", "k", "v", "o"), torch.float32):
        with PerExampleGradients(model) as hooks:
            model(**batch(family)).logits.logsumexp(-1).sum().backward()
            found.append([p.grad_sample for p in hooks.parameters])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@families
def test_a_copy_computes_with_its_own_weights(family):
    _, short = pair(family, dtype=torch.float32)
    twin = copy.deepcopy(short)
    before = short(**batch(family)).logits
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(short(**batch(family)).logits, before)
    assert not twin(**batch(family)).logits.any()


@families
def test_without_its_last_layer_and_with_checkpoints_a_model_gives_the_same(family):
    plain, short = pair(family, dtype=torch.float32)
    with only_layers(plain, {0}), only_layers(short, {0}):
        assert torch.equal(plain(**batch(family)).logits, short(**batch(family)).logits)
    expected = gradients(plain, batch(family))
    checkpoint_gradients(short.train())
    found = gradients(short, batch(family))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


def test_models_whose_head_reads_more_stay_as_they_are():
    llama = random_model(made("causal", "llama", 2, 64, vocab_size=50), 0)
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.RobertaConfig(vocab_size=50, **text)
    masked = transformers.AutoModelForMaskedLM.from_config(config)
    tokens = transformers.AutoModelForTokenClassification.from_config(config)
    eager = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    for model in (llama, masked, tokens, eager, torch.nn.Linear(2, 2)):
        assert not read_first_token(model)
        assert not any("forward" in vars(module) for module in model.modules())


def test_runs_train_with_it():
    spec = grid.cell(grid.setting("test", grid.PROFILES, "smoke"), "iid", "1:1:1", "lora", 0, {}).spec
    model = build(spec, torch.device("cpu")).model
    assert sum("forward" in vars(module) for module in model.modules()) == 1


def test_freed_memory_is_kept(monkeypatch):
    """A block of some megabytes, freed and asked for again, comes without the system."""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no such setting")

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def use():
        for _ in range(50):
            torch.zeros(2**20).add_(1)  # 4 MiB: 1,024 pages

    with host_memory.freed_memory_kept() as kept:
        assert kept
        use()
        before = faults()
        use()
        assert faults() - before < 50 * 256
    host_memory._glibc.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with host_memory.freed_memory_kept() as kept:
        assert not kept
    host_memory._glibc.cache_clear()


@families
def test_a_pickled_model_computes_the_same(family):
    _, short = pair(family, dtype=torch.float32)
    again = pickle.loads(pickle.dumps(short))
    assert torch.equal(again(**batch(family)).logits, short(**batch(family)).logits)
    assert "forward" in vars([m for m in again.modules() if type(m).__name__.endswith("Layer")][-1])


@families
def test_checkpoints_leave_the_last_layer_out(family):
    layers = range(SHAPES[family].layers)
    model = read_and_checkpoint(family)
    calls = []
    queries = [
        m for n, m in model.named_modules() if n.endswith(("attention.self.query", "attention.q_proj"))
    ]
    for at, module in enumerate(queries):
        module.register_forward_hook(lambda *_, at=at: calls.append(at))
    gradients(model, batch(family))
    assert [calls.count(at) for at in layers] == [2] * (SHAPES[family].layers - 1) + [1]


def read_and_checkpoint(family):
    _, short = pair(family, ("q", "v"), torch.float32)
    return checkpoint_gradients(short.train())
