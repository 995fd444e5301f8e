"""Targets, LoRA, the head policy, and the adapter that goes in and out."""

import copy
import doctest

import peft
import pytest
import torch
import transformers
from tiny import ARCHITECTURES, backbone, data
from torch import nn

from fedlora_kit import adapter
from fedlora_kit.adapter import AdapterSlot, all_finite, count, digest, load_peft, save_peft, size_bytes
from fedlora_kit.errors import FedloraError, UnknownName
from fedlora_kit.models import targets
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.names import backbone_folder
from fedlora_kit.models.targets import layer_index, lora_targets
from fedlora_kit.models.tokenizer import load_tokenizer


def test_doctests():
    assert doctest.testmod(targets).failed == doctest.testmod(adapter).failed == 0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_qkvo_are_four_attention_modules_a_layer(kind):
    model = backbone(kind)
    names = lora_targets(model, ("q", "k", "v", "o"))
    assert len(names) == 8
    assert {layer_index(n) for n in names} == {0, 1}
    modules = dict(model.named_modules())
    assert all(isinstance(modules[n], nn.Linear) and modules[n].in_features == 16 for n in names)
    assert not any("intermediate" in n or "mlp" in n or "classifier" in n for n in names)


def test_output_projection_is_not_confused_with_the_feed_forward_one():
    names = lora_targets(backbone("roberta"), ("o",))
    assert all(n.endswith("attention.output.dense") for n in names)
    assert not set(names) & set(lora_targets(backbone("roberta"), ("down",)))


def test_layers_are_integers_not_substrings():
    model = backbone("roberta", num_hidden_layers=12)
    layers = [layer_index(n) for n in lora_targets(model, ("q",))]
    assert layers == list(range(12))


def test_targets_that_match_nothing_list_the_candidates():
    with pytest.raises(
        FedloraError, match=r"'gate' matches no module of this roberta model\n.*; up: \S+interm"
    ):
        lora_targets(backbone("roberta"), ("gate",))
    with pytest.raises(FedloraError, match="no LoRA targets"):
        lora_targets(backbone("roberta"), ())
    broken = backbone("vit")
    for layer in broken.vit.layers:
        layer.attention.q_proj = nn.Identity()
    with pytest.raises(FedloraError, match=r"layers.<i>.attention.k_proj"):
        lora_targets(broken, ("q",))
    with pytest.raises(FedloraError, match="Its linear modules: none"):
        lora_targets(nn.Identity(), ("q",))


@pytest.mark.parametrize("policy", ["frozen", "aggregated", "personal"])
def test_the_head_trains_by_policy_only(policy):
    model = attach_lora(backbone("roberta"), LoraSettings(rank=2, head=policy), seed=0)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    heads = {n for n in trainable if "classifier" in n}
    assert bool(heads) == (policy != "frozen")
    assert all(".lora_" in n for n in trainable - heads)


def test_a_is_drawn_from_its_seed_and_b_is_zero():
    slots = [AdapterSlot(attach_lora(backbone("vit"), LoraSettings(rank=2), seed=s)) for s in (1, 1, 2)]
    first, again, other = (s.read() for s in slots)
    assert digest(first) == digest(again) != digest(other)
    for name, tensor in first.items():
        assert (tensor == 0).all() == (".lora_B" in name)


def test_attaching_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    attach_lora(backbone("vit"), LoraSettings(rank=2), seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_reported_parameter_counts_at_roberta_large():
    """1.57 M at r=8 for LoRA and at r=16 for FFA-LoRA: q, k, v, o of 24 layers of width 1024."""
    import transformers

    config = transformers.RobertaConfig(
        vocab_size=10, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8
    )
    with torch.device("meta"):
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    for rank, part, expected in (
        (8, ".lora_", 1_572_864),
        (16, ".lora_B", 1_572_864),
        (8, ".lora_B", 786_432),
    ):
        with torch.device("meta"):
            adapted = peft.get_peft_model(
                copy.deepcopy(model),
                peft.LoraConfig(r=rank, target_modules=lora_targets(model, ("q", "k", "v", "o"))),
            )
        assert sum(p.numel() for n, p in adapted.named_parameters() if part in n) == expected


# --- the slot ------------------------------------------------------------------------------------


@pytest.fixture
def slot():
    return AdapterSlot(attach_lora(backbone("llama"), LoraSettings(rank=2), seed=0))


def test_what_is_written_is_what_is_read(slot):
    state = {n: torch.randn_like(t) for n, t in slot.read().items()}
    slot.write(state)
    assert digest(slot.read()) == digest(state)
    assert slot.read(slot.names[:2]).keys() == set(slot.names[:2])


def test_the_llama_key_projection_is_not_square(slot):
    shapes = {n: tuple(t.shape) for n, t in slot.read().items() if "k_proj" in n and "layers.0" in n}
    assert sorted(shapes.values()) == [(2, 16), (8, 2)]


def test_reading_gives_copies(slot):
    state = slot.read()
    next(iter(state.values())).add_(1)
    assert digest(slot.read()) != digest(state)


@pytest.mark.parametrize("fault", ["missing", "extra", "renamed", "shape"])
def test_an_adapter_that_does_not_fit_is_refused_and_nothing_is_written(slot, fault):
    state = {n: t + 1 for n, t in slot.read().items()}
    before = digest(slot.read())
    last = slot.names[-1]
    if fault != "extra":
        tensor = state.pop(last)
    if fault == "extra":
        state["more"] = torch.zeros(1)
    elif fault == "renamed":
        state["base_model.model." + last] = tensor
    elif fault == "shape":
        state[last] = tensor.T.contiguous()
    with pytest.raises(FedloraError):
        slot.write(state)
    assert digest(slot.read()) == before


def test_set_trainable_is_exact(slot):
    wanted = [n for n in slot.names if ".lora_B" in n and layer_index(n) == 1]
    slot.set_trainable(wanted)
    assert slot.trainable == wanted
    assert [n for n, p in slot.model.named_parameters() if p.requires_grad] != []
    with pytest.raises(FedloraError, match="not in the adapter"):
        slot.set_trainable(["nothing"])


def test_sizes_and_digests():
    state = {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    assert (count(state), size_bytes(state)) == (10, 32)
    assert digest(state) == digest({"b": state["b"], "a": state["a"]})
    assert digest(state) != digest({**state, "a": -state["a"]})  # -0.0: other bits
    assert all_finite(state)
    assert not all_finite({"a": torch.tensor([float("nan")])})


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("policy", ["frozen", "aggregated"])
def test_a_saved_adapter_gives_the_same_logits_elsewhere(kind, policy, tmp_path):
    model = attach_lora(backbone(kind, seed=0), LoraSettings(rank=2, alpha=5, head=policy), seed=0).eval()
    own = AdapterSlot(model)
    own.write({n: torch.randn_like(t) for n, t in own.read().items()})
    inputs, _ = data(kind, 4).batch(torch.arange(4).numpy(), torch.device("cpu"))
    save_peft(model, own.read(), tmp_path)
    stranger = backbone(kind, seed=0)
    head = stranger.score if kind == "llama" else stranger.classifier
    for parameter in head.parameters():
        nn.init.normal_(parameter)  # a stranger's head is another random one
    loaded = peft.PeftModel.from_pretrained(stranger, tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    saved = load_peft(tmp_path)
    assert own.names == [n for n in own.names if n in saved]


# --- backbones -----------------------------------------------------------------------------------


def test_unknown_and_missing_backbones(tmp_path, monkeypatch):
    with pytest.raises(UnknownName, match="kit/text-tiny"):
        load_backbone("kit/text-tinny", 2, 0)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    with pytest.raises(FedloraError, match="models/FacebookAI/roberta-large") as error:
        backbone_folder("FacebookAI/roberta-large")
    assert "FEDLORA_HUB" in error.value.remedy


def test_a_mirrors_model_is_loaded_and_checked(tmp_path, monkeypatch):
    folder = tmp_path / "models" / "FacebookAI" / "roberta-base"
    backbone("roberta", labels=2, seed=4).save_pretrained(folder)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    model = load_backbone("FacebookAI/roberta-base", 3, head_seed=1)
    reference = backbone("roberta", labels=2, seed=4)
    assert torch.equal(
        model.roberta.embeddings.word_embeddings.weight, reference.roberta.embeddings.word_embeddings.weight
    )
    assert model.classifier.out_proj.out_features == 3
    again = load_backbone("FacebookAI/roberta-base", 3, head_seed=1)
    other = load_backbone("FacebookAI/roberta-base", 3, head_seed=2)
    assert torch.equal(model.classifier.out_proj.weight, again.classifier.out_proj.weight)
    assert not torch.equal(model.classifier.out_proj.weight, other.classifier.out_proj.weight)
    with pytest.raises(FedloraError, match="tokenizer's files"):
        load_tokenizer("FacebookAI/roberta-base")  # transformers would make an empty one and say nothing
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(FedloraError, match="damaged"):
        load_backbone("FacebookAI/roberta-base", 3, head_seed=1)


@pytest.mark.parametrize(("name", "kind"), [("kit/text-tiny", "roberta"), ("kit/image-tiny", "vit")])
def test_the_kits_backbones_load_as_the_readme_says(name, kind):
    """Plain transformers, float16 in the file, float32 in memory, the same weights as the kit's loader."""
    folder = backbone_folder(name)
    for_images = transformers.AutoModelForImageClassification
    auto = for_images if kind == "vit" else transformers.AutoModelForSequenceClassification
    plain = auto.from_pretrained(folder, num_labels=3)
    ours = load_backbone(name, 3, head_seed=0)
    mine, theirs = ours.state_dict(), plain.state_dict()
    assert {t.dtype for t in theirs.values() if t.is_floating_point()} == {torch.float32}
    assert all(torch.equal(mine[n], t) for n, t in theirs.items() if not n.startswith("classifier"))
