"""Any model of the Hub: each family's places, head, training, gradients of single examples, and refusals."""

import json
import shutil
from types import SimpleNamespace

import any_models
import numpy as np
import peft
import pytest
import torch
import transformers
from any_models import FAMILIES, description

from fedlora_kit.adapter import AdapterSlot, save_peft
from fedlora_kit.data.encoded import encode_text, unknown_share
from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.setup import build
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.image_input import image_input
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.padding import check_padding
from fedlora_kit.models.targets import head_modules, layer_index, lora_targets
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.privacy.dpsgd import PerExampleGradients
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.generation import generate
from fedlora_kit.training.lora_stack import LoraStack, repeated
from fedlora_kit.training.objective import batch_losses
from fedlora_kit.training.rounds import run_federation

CPU = torch.device("cpu")
DECODERS = [name for name, family in FAMILIES.items() if family.kind == "causal"]
families = pytest.mark.parametrize("name", FAMILIES)
#: what cannot be stacked, with all its roles and its head -> why
NOT_STACKED = {
    "deberta-v3": "positions that all examples share",
    "modernbert": r"head\.norm trains, and is no linear layer",
}
#: what Opacus' hooks give no gradient of one example for -> why
NOT_HOOKED = {
    "deberta-v3": r"(query|key)_proj\S* it reads",
    "modernbert": "norm without a bias",
    "opt": r"fc1\S* it reads",
    "swin": r"q_proj\S* it reads",
}
#: what DP refuses, as neither way is open
NOT_PRIVATE = {name: why for name, why in NOT_HOOKED.items() if name in NOT_STACKED}
#: what the plan cannot estimate -> why
NOT_PLANNED = {
    "swin": "not alike",
    "opt": "without its weights",
    "deberta-v2": "without its weights",
    "deberta-v3": "without its weights",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    any_models.register_tasks()
    found = {}

    def folder(name):
        if name not in found:
            found[name] = any_models.save(name, tmp_path_factory.mktemp(name) / name)
        return found[name]

    return folder


def parsed(name, folders, **changes):
    return RunSpec.parse(description(name, folders(name), **changes))


def built(name, folders, **changes):
    return build(parsed(name, folders, **changes), CPU)


@families
def test_a_role_is_one_module_of_each_layer(name):
    family, model = FAMILIES[name], any_models.made(name)
    for role, place in family.places.items():
        found = lora_targets(model, [role])
        if name == "swin":
            assert found == [f"{family.layers}.{s}.blocks.{b}.{place}" for s, b in ((0, 0), (0, 1), (1, 0))]
            continue
        assert found == [f"{family.layers}.{i}.{place}" for i in (0, 1)]
        assert [layer_index(n) for n in found] == [0, 1]
    every = lora_targets(model, LoraSettings(targets="all-linear").targets)
    assert set(lora_targets(model, family.places)) <= set(every)
    assert not any("classifier" in n or "lm_head" in n or "embed" in n for n in every)
    ends = [place.rpartition(".")[2] for place in family.places.values()]
    assert set(lora_targets(model, ends)) >= set(lora_targets(model, family.places))


@pytest.mark.parametrize("name", ["modernbert", "phi3", "gpt2", "gpt-neox"])
def test_one_module_for_q_k_and_v_is_told(name):
    fused = FAMILIES[name].places["qkv"]
    with pytest.raises(FedloraError, match=rf"q, k, v in one module, \S+{fused}\n.*targets=qkv,o$"):
        lora_targets(any_models.made(name), ("q", "k", "v", "o"))


@families
def test_a_short_run(name, folders):
    """It moves and ends; clients side by side get what they get one after the other."""
    fed = built(name, folders)
    start = AdapterSlot(fed.model).read()
    assert {n.split(".")[-2] for n in start if ".lora_" in n} == {"lora_A", "lora_B"}
    heads = () if FAMILIES[name].kind == "causal" else FAMILIES[name].head
    assert tuple(head_modules(fed.model.get_base_model())) == heads
    assert {n.split(".")[0] for n in start if ".lora_" not in n} == set(heads)
    done = run_federation(fed)
    assert all(not torch.equal(t, start[n]) for n, t in done.state.items())
    local = {"lr": 0.1, "steps": 2, "batch_size": 4, "stack": "never"}
    alone = run_federation(built(name, folders, local=local))
    for n, t in alone.state.items():
        torch.testing.assert_close(done.state[n], t, rtol=1e-4, atol=1e-5)


@families
def test_a_short_run_under_dp(name, folders):
    fed = built(name, folders, privacy={"sigma": 0.5, "clip": 1.0}, rounds={"rounds": 1, "eval_every": 0})
    if name in NOT_PRIVATE:
        with pytest.raises(FedloraError, match=NOT_PRIVATE[name]):
            run_federation(fed)
        return
    start = AdapterSlot(fed.model).read()
    assert all(not torch.equal(t, start[n]) for n, t in run_federation(fed).state.items())


def by_loop(fed, slot, batch):
    rows = []
    for i in batch:
        loss = batch_losses(fed.model, fed.clients[0], np.array([i]), CPU).sum()
        rows.append(torch.autograd.grad(loss, list(slot.parameters.values())))
    return {n: torch.stack(g) for n, g in zip(slot.parameters, zip(*rows, strict=True), strict=True)}


def by_hooks(fed, slot, batch):
    with PerExampleGradients(fed.model) as hooks:
        hooks.backward(batch_losses(fed.model, fed.clients[0], batch, CPU))
        return {n: p.grad_sample.clone() for n, p in slot.parameters.items()}


def by_rows(fed, slot, batch):
    stack, everyone = LoraStack(fed.model, slot), torch.zeros(len(batch), dtype=torch.int64)
    own = repeated({n: p.detach()[None] for n, p in slot.parameters.items()}, everyone)
    own = {n: t.requires_grad_() for n, t in own.items()}
    with stack.installed():
        stack.tensors = own
        losses = batch_losses(fed.model, fed.clients[0], batch, CPU)
        return dict(zip(own, torch.autograd.grad(losses.sum(), list(own.values())), strict=True))


@families
@pytest.mark.parametrize("way", [by_hooks, by_rows])
def test_gradients_of_single_examples_are_those_of_a_loop(name, way, folders):
    fed, batch = built(name, folders), np.arange(5)
    slot = AdapterSlot(fed.model)
    slot.set_trainable(slot.names)
    with torch.no_grad():
        for n, p in slot.parameters.items():
            p.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(n)))
    refused = NOT_HOOKED if way is by_hooks else NOT_STACKED
    if name in refused:
        with pytest.raises(FedloraError, match=refused[name]):
            way(fed, slot, batch)
        return
    expected, found = by_loop(fed, slot, batch), way(fed, slot, batch)
    for n, t in expected.items():
        torch.testing.assert_close(found[n], t, rtol=1e-5, atol=1e-5)


def test_deberta_v3_trains_under_dp_where_no_module_reads_positions(folders):
    lora = {"rank": 2, "targets": ["v", "o", "up", "down"]}
    model = {"backbone": str(folders("deberta-v3")), "lora": lora}
    fed = built("deberta-v3", folders, model=model, privacy={"sigma": 0.0, "clip": 1.0})
    start = AdapterSlot(fed.model).read()
    assert any(not torch.equal(t, start[n]) for n, t in run_federation(fed).state.items())


@pytest.mark.parametrize("name", [*DECODERS, *(n for n, f in FAMILIES.items() if f.kind == "text")])
def test_a_classified_text_does_not_depend_on_its_neighbours(name, folders):
    """Decoders (their tokenizers have no padding token) classify by the last token that is no padding."""
    fed = built(name, folders, data={"task": "any-text"})
    data = fed.clients[0]
    assert len(set(data.lengths.tolist())) > 1
    together = batch_losses(fed.model, data, np.arange(len(data)), CPU)
    alone = torch.cat([batch_losses(fed.model, data, np.array([i]), CPU) for i in range(len(data))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_text_without_a_token_is_refused_and_no_end_counts_as_unknown():
    tokenizer = any_models.tokenizer(pad=False)
    with pytest.raises(BadValue, match="1 texts have no token, such as number 1"):
        encode_text(Examples((["a b", ""],), [0, 1]), tokenizer, 8)
    words = np.array([5, 3, 6, 2], np.int32)  # one unknown, and the end
    assert unknown_share(tokenizer, words) == 1 / 3
    ends = SimpleNamespace(unk_token_id=2, eos_token_id=2, all_special_ids=[2])  # as GPT-2's
    assert unknown_share(ends, words) == 0


@pytest.mark.parametrize("name", DECODERS)
def test_an_answer_does_not_depend_on_its_neighbours(name, folders):
    fed = built(name, folders)
    data = fed.evals["validation"]
    alone = [generate(fed.model, data.subset(np.array([i])), CPU, 4096)[0] for i in range(len(data))]
    assert generate(fed.model, data, CPU, 4096) == alone
    assert any(alone)


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.kind != "causal"])
def test_the_last_layer_is_cut_short_only_where_the_head_reads_one_token(name, folders):
    fed = built(name, folders)  # with it, where it is known to be right
    plain = load_backbone(str(folders(name)), 3, 7).eval()
    short = load_backbone(str(folders(name)), 3, 7).eval()
    assert read_first_token(short) == (name in ("roberta", "bert", "vit"))
    inputs, _ = fed.clients[0].batch(np.arange(4), CPU)
    torch.testing.assert_close(short(**inputs).logits, plain(**inputs).logits)


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "qwen3", "electra", "dinov2", "opt"])
def test_a_layer_left_out_leaves_the_model_of_the_others(name):
    family, model = FAMILIES[name], any_models.made(name)
    first, second = f"{family.layers}.0.", f"{family.layers}.1."
    inputs = {"input_ids": torch.arange(3, 15)[None]}
    if family.kind == "image":
        inputs = {"pixel_values": torch.randn(1, 3, 8, 8)}
    elif family.kind == "causal":
        inputs["use_cache"] = False
    one = {"num_hidden_layers": 1, "n_layer": 1, "layer_types": ["full_attention"]}
    single = any_models.made(name, **{k: v for k, v in one.items() if k in family.config})
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(first)}
    single.load_state_dict({k.replace(second, first): v for k, v in state.items()})
    whole = model(**inputs).logits
    with only_layers(model, {1}):
        torch.testing.assert_close(model(**inputs).logits, single(**inputs).logits)
    assert torch.equal(model(**inputs).logits, whole)


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "distilbert", "dinov2", "swin"])
def test_methods_that_allocate_layers(name, folders):
    resources = {"groups": [1, 1, 1], "layers": [1.0, 0.5, 0.5]}
    chosen = {"name": "fed-hello", "settings": {"resources": resources, "proxy_examples": 4}}
    if name == "swin":
        with pytest.raises(BadValue, match="Swin's layers come in stages"):
            built(name, folders, method=chosen)
        return
    fed = built(name, folders, method=chosen)
    assert fed.method.context.depth == 2
    slot = AdapterSlot(fed.model)
    slot.set_trainable(slot.names)
    assert len(fisher_scores(fed.model, slot, fed.proxy, CPU)) == 2
    run_federation(fed)


def test_layers_left_out_of_a_decoder_that_classifies(folders):
    resources = {"groups": [1, 1, 1], "layers": [0.5, 0.5, 0.5]}
    chosen = {"name": "fedra", "settings": {"resources": resources}}
    fed = built("qwen2", folders, data={"task": "any-text"}, method=chosen)
    start = AdapterSlot(fed.model).read()
    assert any(not torch.equal(t, start[n]) for n, t in run_federation(fed).state.items())


# --- heads


def test_a_head_is_new_where_it_depends_on_the_classes_or_the_checkpoint_has_none(tmp_path):
    for name, kept in (("distilbert", []), ("modernbert", ["head"])):
        config = any_models.made(name).config
        torch.manual_seed(5)
        masked = transformers.AutoModelForMaskedLM.from_config(config)
        masked.save_pretrained(tmp_path / name)
        one, again, other = (load_backbone(str(tmp_path / name), 3, seed) for seed in (1, 1, 2))
        for part in head_modules(one):
            weights = [m.get_submodule(part).state_dict() for m in (one, again, other)]
            first = next(iter(weights[0]))
            assert torch.equal(weights[0][first], weights[1][first])
            assert torch.equal(weights[0][first], weights[2][first]) == (part in kept)
        for part in kept:
            assert torch.equal(one.get_submodule(part).dense.weight, masked.get_submodule(part).dense.weight)


@pytest.mark.parametrize("name", ["distilbert", "deberta-v2", "modernbert", "dinov2", "gpt2"])
def test_a_saved_adapter_gives_the_same_logits_in_peft(name, folders, tmp_path):
    """Heads of several modules, and GPT-2's transposed weights."""
    kind = "image" if FAMILIES[name].kind == "image" else "text"
    base = load_backbone(str(folders(name)), 3, 1, kind=kind)
    base.config.pad_token_id = 1
    lora = LoraSettings(rank=2, alpha=3, targets=tuple(FAMILIES[name].places), init="svd")
    model = attach_lora(base, lora, seed=0).eval()
    slot = AdapterSlot(model)
    slot.write({n: torch.randn_like(t) for n, t in slot.read().items()})
    save_peft(model, slot.read(), tmp_path)
    stranger = load_backbone(str(folders(name)), 3, 2, kind=kind)
    stranger.config.pad_token_id = 1
    loaded = peft.PeftModel.from_pretrained(stranger, tmp_path).eval()
    inputs = {"input_ids": torch.tensor([[5, 9, 7], [6, 4, 8]])}
    if kind == "image":
        inputs = {"pixel_values": torch.randn(2, 3, 8, 8)}
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


# --- images


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2"])
def test_images_smaller_than_the_models_own(name, folders):
    folder = str(folders(name))
    assert image_input(folder, 4) == ImageInput(4, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), tokens=5)
    small, whole = (load_backbone(folder, 3, 0, image_size=side) for side in (4, None))
    pixels = {"pixel_values": torch.randn(2, 3, 4, 4)}
    more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    torch.testing.assert_close(small(**pixels).logits, whole(**pixels, **more).logits)
    fed = built(name, folders, data={"task": "any-image", "image_size": 4})
    assert fed.clients[0].batch(np.arange(1), CPU)[0]["pixel_values"].shape[-1] == 4
    run_federation(fed)
    with pytest.raises(BadValue, match=r"image_size=5 is no multiple of \S+ \S+ patches of 2"):
        built(name, folders, data={"task": "any-image", "image_size": 5})


def test_what_an_image_processor_says(folders, tmp_path):
    shutil.copytree(folders("dinov2"), tmp_path / "m")
    file = tmp_path / "m" / "preprocessor_config.json"
    file.write_text(
        json.dumps({"crop_size": {"height": 4}, "size": {"shortest_edge": 6}, "do_normalize": False})
    )
    assert image_input(str(tmp_path / "m")) == ImageInput(4, 3, (0.0,) * 3, (1.0,) * 3, tokens=5)
    file.unlink()
    with pytest.raises(FedloraError, match="does not say how its images are normalised"):
        image_input(str(tmp_path / "m"))
    with pytest.raises(BadValue, match="Swin.* no position embeddings to interpolate"):
        load_backbone(str(folders("swin")), 3, 0, image_size=4)


# --- names and refusals


def test_a_folder_counts_by_what_is_in_it(folders, tmp_path, monkeypatch):
    first = parsed("bert", folders)
    shutil.copytree(folders("bert"), tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    model = {**first.model.model_dump(), "backbone": "./elsewhere"}
    other = parsed("bert", folders, model=model)
    assert other.model.backbone == str(tmp_path / "elsewhere")
    assert other.key() == first.key()
    any_models.made("bert", initializer_range=0.3).save_pretrained(tmp_path / "elsewhere")
    assert other.key() != first.key()


@pytest.mark.parametrize(
    ("name", "task", "why"),
    [
        ("bert", "any-causal", "for a causal language model, and .* is not: bert is an encoder"),
        ("vit", "any-text", "has no ForSequenceClassification of type vit"),
        ("llama", "any-image", "has no ForImageClassification of type llama"),
    ],
)
def test_a_model_for_another_kind_of_task_is_refused_with_the_description(name, task, why, folders):
    with pytest.raises(BadValue, match=f"task '{task}' is .*{why}"):
        parsed(name, folders, data={"task": task})


def test_an_answer_ends_where_a_table_of_positions_does(folders):
    too_long = {"task": "any-causal", "max_new_tokens": 90}
    with pytest.raises(
        BadValue, match=r"90 new tokens after .* the 80 positions.*\n.*max_new_tokens to \d+ or"
    ):
        built("gpt2", folders, data=too_long)
    built("llama", folders, data=too_long)  # rotations go on


def test_what_is_no_model(folders, tmp_path, monkeypatch):
    with pytest.raises(FedloraError, match="is no folder with a config.json"):
        parsed("bert", folders, model={"backbone": str(tmp_path)}).key()
    shutil.copytree(folders("bert"), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(FedloraError, match=r"m has no safetensors weights\n.*save_pretrained"):
        load_backbone(str(tmp_path / "m"), 3, 0)
    transformers.BartConfig(d_model=16, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path / "bart")
    with pytest.raises(BadValue, match="bart has an encoder and a decoder"):
        load_backbone(str(tmp_path / "bart"), 3, 0, kind="text")
    for more in ({}, {"auto_map": {"AutoConfig": "own.OwnConfig"}}):
        (tmp_path / "bart" / "config.json").write_text(json.dumps({"model_type": "own", **more}))
        with pytest.raises(FedloraError, match="does not know its architecture"):
            load_backbone(str(tmp_path / "bart"), 3, 0)
    transformers.XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=16).save_pretrained(tmp_path / "xlnet")
    with pytest.raises(BadValue, match="xlnet's head reads the last token of a batch, which is padding"):
        load_backbone(str(tmp_path / "xlnet"), 3, 0, kind="text")
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    with pytest.raises(FedloraError, match="the mirror has no models/somebody/none"):
        parsed("bert", folders, model={"backbone": "somebody/none@main"}).key()


@pytest.mark.parametrize("name", ["gpt2", "gemma3"])
def test_a_plan_of_a_decoder_that_classifies(name, folders):
    assert estimate(parsed(name, folders, data={"task": "any-text"})).training_flops > 0


@pytest.mark.parametrize("name", ["gpt2", "dinov2", "phi3", *NOT_PLANNED])
def test_a_plan(name, folders):
    spec = parsed(name, folders)
    if name in NOT_PLANNED:
        with pytest.raises(FedloraError, match=NOT_PLANNED[name]):
            estimate(spec)
    else:
        assert estimate(spec).training_flops > 0


@pytest.mark.parametrize("name", ["FNet", "ConvBert"])
def test_a_classifier_that_reads_padding_is_refused(name):
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 100}
    small |= {"embedding_size": 32, "num_attention_heads": 4} if name == "ConvBert" else {}
    config = getattr(transformers, f"{name}Config")(**small)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    with pytest.raises(BadValue, match=f"model '{name}': what it makes of a text depends on the padding"):
        check_padding(name, model, 0)
