"""Training causal language models: per-example gradients, checkpointing, number formats, whole runs."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tiny_causal import CPU, causal_data, causal_model, tokenizer

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.methods import method
from fedlora_kit.models import backbones
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.memory import checkpoint_gradients, four_bit_config
from fedlora_kit.models.targets import head_modules
from fedlora_kit.privacy import PerExampleGradients, private_step
from fedlora_kit.privacy.dpsgd import private_optimizer
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.lora_stack import why_not_modules
from fedlora_kit.training.objective import batch_losses, example_losses
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings


def adapted(freeze_a=False, checkpointing=False, dtype=torch.float32, dropout=0.0):
    model = causal_model().to(dtype)
    if checkpointing:
        checkpoint_gradients(model)
    model = attach_lora(model, LoraSettings(rank=2, alpha=3, dropout=dropout), seed=0)
    slot = AdapterSlot(model)
    generator = torch.Generator().manual_seed(1)
    slot.write({n: torch.randn(t.shape, generator=generator) * 0.3 for n, t in slot.read().items()})
    slot.set_trainable([n for n in slot.names if not freeze_a or ".lora_B" in n])
    return model.train(), slot


def losses_of(model, data):
    def losses(indices):
        inputs, labels = data.batch(indices, CPU)
        return example_losses(model(**inputs).logits, labels)

    return losses


def one_by_one(model, slot, data, size):
    """The slow, obvious oracle: one backward pass an example; (size, *p.shape) by name."""
    rows = {n: torch.zeros((size, *slot.parameters[n].shape)) for n in slot.trainable}
    for i in range(size):
        model.zero_grad()
        losses_of(model, data)(np.array([i])).sum().backward()
        for n, row in rows.items():
            row[i] = slot.parameters[n].grad
    model.zero_grad()
    return rows


def gemma(seed=0):
    """A tiny Gemma 3: its head is its embedding matrix, its attention has a window in every other layer."""
    config = transformers.Gemma3TextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=24,
        initializer_range=0.3,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.Gemma3ForCausalLM(config)


def tied():
    model = causal_model()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


@pytest.mark.parametrize("make", [causal_model, tied, gemma])
def test_the_head_at_the_answer_alone_gives_the_losses_and_gradients_of_all_places(make):
    plain, targets = make(), ("q_proj", "v_proj", "down_proj")
    config = LoraConfig(r=2, lora_alpha=4, target_modules=list(targets), init_lora_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(plain, config)
    slot = AdapterSlot(model)
    data, chosen = causal_data(6), np.array([4, 0, 3, 1])  # answers and prompts of unequal length
    widths = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _, given, __: widths.append(given[0].shape[:-1]))
    whole = losses_of(model, data)(chosen)
    expected = torch.autograd.grad(whole.sum(), list(slot.parameters.values()))
    fast = batch_losses(model, data, chosen, CPU)
    torch.testing.assert_close(fast, whole, atol=1e-6, rtol=1e-6)
    found = torch.autograd.grad(fast.sum(), list(slot.parameters.values()))
    for name, one, other in zip(slot.names, found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=name)
    answers = int((data.lengths - data.prompt_lengths)[chosen].sum())
    assert widths == [(4, data.lengths[chosen].max()), (1, answers)]
    assert not head._forward_pre_hooks


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("freeze_a", [False, True])
def test_per_example_gradients_equal_a_micro_batch_loop(freeze_a, checkpointing):
    data = causal_data(5)
    expected = one_by_one(*adapted(freeze_a), data, 5)  # the oracle never checkpoints
    model, slot = adapted(freeze_a, checkpointing)
    with PerExampleGradients(model) as hooks:
        hooks.clear()
        losses_of(model, data)(np.arange(5)).sum().backward()
        for name in slot.trainable:
            torch.testing.assert_close(
                slot.parameters[name].grad_sample, expected[name], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_private_step_is_the_clipped_mean_also_of_no_example(size, checkpointing):
    data, clip = causal_data(5), 0.4
    gradients = one_by_one(*adapted(), data, size)
    norms = torch.sqrt(sum((g.flatten(1) ** 2).sum(1) for g in gradients.values()))
    factors = (clip / (norms + 1e-6)).clamp(max=1.0)
    model, slot = adapted(checkpointing=checkpointing)
    before = slot.read()
    with PerExampleGradients(model) as hooks:
        optimizer = private_optimizer(
            torch.optim.SGD(hooks.parameters, lr=0.5),
            sigma=0.0,
            clip=clip,
            expected_batch_size=4.0,
            generator=torch.Generator(),
        )
        batches = [b for b in np.array_split(np.arange(size), 2) if len(b)]
        private_step(hooks, optimizer, batches, losses_of(model, data))
    for name, after in slot.read().items():
        step = torch.einsum("b,b...->...", factors, gradients[name]) * 0.5 / 4.0
        torch.testing.assert_close(before[name] - after, step, atol=1e-5, rtol=1e-4)
    if size:
        assert float(norms.max()) > clip  # the clipping was at work


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(dropout):
    found = []
    for checkpointing in (False, True):
        model, slot = adapted(checkpointing=checkpointing, dropout=dropout)
        torch.manual_seed(0)
        losses_of(model, causal_data(5))(np.arange(5)).sum().backward()
        found.append({n: slot.parameters[n].grad for n in slot.trainable})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert float(gradient.abs().max()) > 0
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_what_cannot_checkpoint_says_so():
    with pytest.raises(FedloraError, match="Linear cannot checkpoint"):
        checkpoint_gradients(torch.nn.Linear(2, 2))


def test_a_bf16_base_keeps_the_adapter_and_its_gradients_in_float32():
    model, slot = adapted(dtype=torch.bfloat16)
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" not in n} == {torch.bfloat16}
    assert {t.dtype for t in slot.read().values()} == {torch.float32}
    losses = losses_of(model, causal_data(5))(np.arange(5))
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert all(slot.parameters[n].grad.dtype == torch.float32 for n in slot.trainable)
    full = losses_of(adapted()[0], causal_data(5))(np.arange(5))
    torch.testing.assert_close(losses, full, atol=0.3, rtol=0.1)


def federation(name="lora", privacy=None, **extra):
    model = attach_lora(causal_model(), LoraSettings(rank=2, alpha=4), seed=1)
    return Federation(
        model=model,
        method=method(name),
        clients=[causal_data(n, seed=k) for k, n in enumerate((6, 4, 5))],
        evals={"test": causal_data(4, seed=9)},
        rounds=FederationSettings(rounds=2),
        local=LocalSettings(lr=0.5, steps=2, batch_size=3),
        streams=Streams(0),
        privacy=privacy,
        **extra,
    )


@pytest.mark.parametrize("name", ["lora", "ffa-lora"])
@pytest.mark.parametrize("privacy", [None, PrivacySettings(epsilon=8.0, delta=1e-3, clip=1.0)])
def test_a_federation_of_causal_models_runs_and_learns_what_it_says(name, privacy):
    fed = federation(name, privacy)
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    assert [set(h["eval"]["test"]) for h in outcome.history] == [{"accuracy", "loss", "examples"}] * 2
    assert all(math.isfinite(h["eval"]["test"]["loss"]) for h in outcome.history)
    moved = {n for n, t in outcome.state.items() if not torch.equal(t, start[n])}
    assert moved == {n for n in start if name == "lora" or ".lora_B" in n}
    if privacy is not None:
        assert 0 < outcome.privacy["epsilon"] <= 8.0


SGD = LocalSettings(lr=0.5, steps=2, batch_size=4)
ADAMW = LocalSettings(optimizer="adamw", lr=0.01, clip_norm=0.5, steps=2, batch_size=4, max_tokens=200)


@pytest.mark.parametrize(
    ("local", "privacy"),
    [(SGD, None), (ADAMW, None), (SGD, PrivacySettings(sigma=1.0, delta=1e-3, clip=0.5))],
)
@pytest.mark.parametrize("name", ["lora", "ffa-lora"])
def test_clients_of_a_causal_model_train_in_a_stack_as_one_after_the_other(name, local, privacy):
    found = []
    for stack in ("never", "always"):  # clients of 6, 4 and 2 examples: batches of unequal size, too
        clients = [causal_data(n, seed=k) for k, n in enumerate((6, 4, 2))]
        chosen = local.model_copy(update={"stack": stack})
        fed = dataclasses.replace(federation(name, privacy), clients=clients, local=chosen)
        found.append(run_federation(fed))
    one, other = found
    for n in one.state:
        torch.testing.assert_close(other.state[n], one.state[n], atol=1e-5, rtol=0)
    for a, b in zip(one.history, other.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)


def test_weights_of_another_format_are_not_stacked():
    fed = federation()
    fed.model.base_model.model.model.layers.to(torch.bfloat16)
    for parameter in AdapterSlot(fed.model).parameters.values():
        parameter.data = parameter.data.float()
    assert "not float32" in why_not_modules(fed.model, AdapterSlot(fed.model))


def test_plain_training_lowers_the_loss():
    fed = federation()
    history = run_federation(fed).history
    assert history[1]["train_loss"] < history[0]["train_loss"]


# --- backbones -------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror whose TinyLlama is tiny and random, with a tokenizer without a padding token."""
    from tiny_causal import tokenizer

    folder = tmp_path / "models" / "TinyLlama" / "TinyLlama-1.1B-Chat-v1.0"
    causal_model().save_pretrained(folder)
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=512,
    )
    words.save_pretrained(folder)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    return "TinyLlama/TinyLlama-1.1B-Chat-v1.0"


def test_a_causal_backbone_keeps_its_own_head(mirror):
    model = backbones.load_backbone(mirror, 1, 0)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert head_modules(model) == []
    for name, value in causal_model().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    half = backbones.load_backbone(mirror, 1, 0, dtype="bf16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    random = backbones.load_backbone(mirror, 1, 3, weights="random")
    assert not torch.equal(random.state_dict()["lm_head.weight"], model.state_dict()["lm_head.weight"])


def test_half_weights_go_straight_to_their_gpu(mirror, monkeypatch):
    """Past the host's memory and past the GPU that happens to be the current one."""
    asked, load = [], backbones.from_anywhere

    def watched(name, loader, options, files):
        if not any(file.endswith(".safetensors") for file in files):  # the configuration
            return load(name, loader, options, files)
        asked.append(options.get("device_map"))
        return load(name, loader, {**options, "device_map": {"": "cpu"}}, files)

    monkeypatch.setattr(backbones, "from_anywhere", watched)
    gpu = torch.device("cuda:1")
    for dtype, device in (("bf16", gpu), ("fp32", gpu), ("bf16", torch.device("cpu")), ("bf16", None)):
        placed = backbones.load_backbone(mirror, 1, 0, dtype=dtype, device=device)
    assert asked == [{"": gpu}, None, None, None]
    monkeypatch.setattr(backbones, "from_anywhere", load)
    for name, value in backbones.load_backbone(mirror, 1, 0, dtype="bf16").state_dict().items():
        torch.testing.assert_close(placed.state_dict()[name], value, rtol=0, atol=0)


def description(model="TinyLlama/TinyLlama-1.1B-Chat-v1.0", task="arithmetic", **extra):
    return {
        "model": {"backbone": model, **extra.pop("model_options", {})},
        "data": {"task": task, "max_length": 200, "train_limit": 9, "eval_limit": 2, **extra},
        "method": {"name": "lora"},
        "local": {"lr": 0.1, "steps": 1, "batch_size": 2},
        "rounds": {"rounds": 1},
    }


@pytest.mark.parametrize("options", [{}, {"dtype": "bf16"}, {"gradient_checkpointing": True}])
def test_a_run_from_its_description(mirror, options):
    from fedlora_kit.experiments.run import run
    from fedlora_kit.experiments.spec import RunSpec

    entry = run(RunSpec.parse(description(model_options=options, max_new_tokens=5)), device="cpu")
    score = entry.results["scores"]["test"]
    assert score["examples"] == 2
    assert score["loss"] > 0
    assert (entry.adapter_dir / "adapter_model.safetensors").is_file()


def test_tasks_and_models_must_suit_each_other(mirror):
    from fedlora_kit.experiments.setup import load_data
    from fedlora_kit.experiments.spec import DataSpec

    with pytest.raises(
        BadValue, match=r"'arithmetic' is for a causal language model, and model 'kit/text-tiny' is not"
    ):
        load_data(DataSpec(task="arithmetic"), "kit/text-tiny")
    with pytest.raises(BadValue, match=r"'polarity' is for a model that classifies texts.*\n.*kit/text-tiny"):
        load_data(DataSpec(task="polarity"), "kit/image-tiny")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model": "kit/text-tiny", "task": "polarity", "model_options": {"dtype": "bf16"}},
            "for causal language models",
        ),
        (
            {"model": "kit/text-tiny", "task": "polarity", "model_options": {"load_in_4bit": True}},
            "for causal language models",
        ),
        ({"model_options": {"load_in_4bit": True, "weights": "random"}}, "weights=random"),
        ({"task": "polarity", "prompt": "plain"}, "prompt and max_new_tokens are for causal tasks"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"model_options": {"dtype": "fp16"}}, "dtype"),
    ],
)
def test_impossible_descriptions(change, said):
    from fedlora_kit.experiments.spec import RunSpec

    with pytest.raises(BadValue, match=said):
        RunSpec.parse(description(**change))


def test_an_unknown_template_is_named():
    from fedlora_kit.errors import UnknownName
    from fedlora_kit.experiments.spec import RunSpec

    with pytest.raises(UnknownName, match="prompt template 'chat'"):
        RunSpec.parse(description(prompt="chat"))


def test_four_bits_without_the_platform_is_one_clear_error(mirror, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FedloraError, match=r"4-bit base weights need a CUDA device.*\n.*load_in_4bit=false"):
        four_bit_config()
    with pytest.raises(FedloraError, match="4-bit base weights need"):
        backbones.load_backbone(mirror, 1, 0, load_in_4bit=True)
