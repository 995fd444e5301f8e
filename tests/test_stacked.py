"""Clients trained together give what they give one after the other."""

import copy
import dataclasses
import doctest
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import backbone, data, federation, text_data

from fedlora_kit.adapter import AdapterSlot, digest
from fedlora_kit.data.encoded import EncodedImages
from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.errors import BadValue, NonFinite
from fedlora_kit.methods import METHODS
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.privacy import stacked as privacy_stacked
from fedlora_kit.privacy.dpsgd import PerExampleGradients, private_optimizer, private_step
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.privacy.stacked import clipped_sums
from fedlora_kit.training import cohort as cohort_module
from fedlora_kit.training import stack_batches
from fedlora_kit.training.lora_stack import LoraStack, repeated
from fedlora_kit.training.objective import example_losses
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CPU = torch.device("cpu")
ROC = {"groups": [1, 2, 1], "layers": [0.5, 0.75, 1.0]}
RANKS = {"groups": [1, 2, 1], "ranks": [0.25, 0.5, 1.0]}
SIZES = (12, 3, 10, 7)
LOCALS = {
    "sgd": LocalSettings(lr=0.1, momentum=0.5, weight_decay=0.1, steps=3, batch_size=4),
    "adamw, clipped": LocalSettings(
        optimizer="adamw", lr=0.01, weight_decay=0.1, clip_norm=0.5, steps=3, batch_size=4, max_tokens=40
    ),
}
STACKABLE = sorted(n for n, m in METHODS.items() if n != "fedra" and not m.merges)  # FLoRA: dense residuals


def resources(name):
    if name in ("hetlora", "flexlora"):
        return {"resources": RANKS}
    if name in ("fed-hello", "fim-hla"):
        return {"resources": ROC, "proxy_examples": 5, "start": 1, "every": 2}
    return {"resources": ROC} if hasattr(METHODS[name], "layers") else {}


def outcomes(name="lora", *, local=LOCALS["sgd"], **changes):
    """The same federation, client after client and in stacks."""
    kind = changes.get("kind", "roberta")
    base = {
        "sizes": SIZES,
        "depth": 3,
        "lora": LoraSettings(rank=4, alpha=8, targets=("q", "v", "up", "down")),  # up, down: not square
        "rounds": FederationSettings(rounds=2, eval_every=0),
        "settings": resources(name),
        "proxy": data(kind, 5, seed=77),
    }
    out = []
    for stack in ("never", "always"):
        settings = local.model_copy(update={"stack": stack})
        out.append(run_federation(federation(name, local=settings, **{**base, **changes})))
    return out


def assert_equal(one, other, atol=1e-5):
    assert one.state.keys() == other.state.keys()
    assert one.personal.keys() == other.personal.keys()
    states = [(one.state, other.state), *((one.personal[k], other.personal[k]) for k in one.personal)]
    for left, right in states:
        assert left.keys() == right.keys()
        for n in left:
            torch.testing.assert_close(right[n], left[n], atol=atol, rtol=0)
    for a, b in zip(one.history, other.history, strict=True):
        a, b = dict(a), dict(b)
        for h in (a, b):
            h.pop("eval", None), h.pop("layer_scores", None)
        stages = [[dict(stage) for stage in h.pop("stages", [])] for h in (a, b)]
        for left, right in zip(*stages, strict=True):
            assert left.pop("train_loss") == pytest.approx(right.pop("train_loss"), rel=1e-4)
            assert left == right
        assert a.pop("train_loss") == pytest.approx(b.pop("train_loss"), rel=1e-4, nan_ok=True)
        assert a == b  # cohorts, examples, bytes
    assert one.privacy == other.privacy


@pytest.mark.parametrize("kind", ["roberta", "vit"])
@pytest.mark.parametrize("name", STACKABLE)
def test_a_stack_equals_client_after_client(name, kind):
    assert_equal(*outcomes(name, kind=kind))


@pytest.mark.parametrize("head", ["aggregated", "personal"])
@pytest.mark.parametrize("kind", ["bert", "vit", "llama"])
def test_heads_optimisers_and_architectures(kind, head):
    lora = LoraSettings(rank=4, alpha=8, targets=("q", "up"), head=head)
    assert_equal(*outcomes("lora", kind=kind, lora=lora, local=LOCALS["adamw, clipped"]))


@pytest.mark.filterwarnings("ignore:delta")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["lora", "ffa-lora", "gd-hla", "hetlora", "exclusive"])
def test_under_dp_with_the_same_noise(name, optimizer):
    local = LocalSettings(
        optimizer=optimizer, lr=0.05, weight_decay=0.1, steps=4, batch_size=4, max_tokens=30
    )
    assert_equal(*outcomes(name, local=local, privacy=PrivacySettings(sigma=1.0, clip=0.5)))


@pytest.mark.filterwarnings("ignore:delta")
def test_empty_poisson_samples_in_a_stack():
    local = LocalSettings(lr=0.1, steps=6, batch_size=1)
    never, always = outcomes("ffa-lora", local=local, privacy=PrivacySettings(sigma=1.0))
    assert never.history[0]["examples"] < 4 * 6
    assert_equal(never, always)


def test_equal_batches_and_random_views():
    rng = np.random.default_rng(0)
    clients = [
        EncodedImages(
            rng.integers(0, 255, (9, 1, 8, 8), dtype=np.uint8),
            rng.integers(0, 3, 9),
            wanted=ImageInput(4, channels=1, mean=(0.5,), std=(0.5,)),
            augment="crop_flip",
        )
        for _ in range(4)
    ]
    assert_equal(*outcomes("lora", kind="vit", clients=clients))


# --- DP: the clipped sums against Opacus' hooks ---------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any),
    clip=st.floats(0.05, 5),
    freeze_a=st.booleans(),
    kind=st.sampled_from(["roberta", "vit"]),
)
def test_clipped_sums_equal_those_of_the_hooks(sizes, clip, freeze_a, kind):
    model = attach_lora(backbone(kind), LoraSettings(rank=2, alpha=4, targets=("q", "down")), seed=1).train()
    slot = AdapterSlot(model)
    g = torch.Generator().manual_seed(0)
    adapters = [{n: torch.randn(p.shape, generator=g) for n, p in slot.parameters.items()} for _ in sizes]
    trains = [n for n in slot.names if not freeze_a or ".lora_B" in n]
    sets = [data(kind, 6, seed=k) for k in range(len(sizes))]
    expected = []
    for state, examples, size in zip(adapters, sets, sizes, strict=True):
        slot.set_trainable(trains)
        slot.write(state)
        with PerExampleGradients(model) as hooks:
            optimizer = private_optimizer(
                torch.optim.SGD(hooks.parameters, lr=1.0),
                sigma=0.0,
                clip=clip,
                expected_batch_size=1.0,
                generator=torch.Generator(),
            )

            def losses(rows, examples=examples):
                inputs, labels = examples.batch(rows, CPU)
                return example_losses(model(**inputs).logits, labels)

            private_step(hooks, optimizer, [np.arange(size)] if size else [], losses)
        moved = slot.read(trains)
        expected.append(torch.cat([(state[n] - moved[n]).flatten() for n in trains]))
    slot.set_trainable([])
    stack = LoraStack(model, slot)
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    tensors = {n: torch.stack([a[n] for a in adapters]) for n in slot.names}
    rows = {n: t.requires_grad_(n in trains) for n, t in repeated(tensors, owners).items()}
    held = [(s, np.arange(n)) for s, n in zip(sets, sizes, strict=True) if n]
    if kind == "vit":
        inputs = {"pixel_values": torch.cat([s.batch(places, CPU)[0]["pixel_values"] for s, places in held])}
    else:
        arrays = stack_batches.joined([s.padded(places) for s, places in held], {"input_ids": 1})
        inputs = {name: torch.from_numpy(a) for name, a in arrays.items()}
    with stack.installed():
        stack.tensors = rows
        logits = model(**inputs).logits
        labels = torch.from_numpy(np.concatenate([s.labels[places] for s, places in held]))
        example_losses(logits, labels).sum().backward()
    gradients = torch.cat([rows[n].grad.flatten(1) for n in trains], dim=1)
    sums = clipped_sums(gradients, owners, torch.full((len(sizes),), clip), len(sizes))
    scale = 1 + max(float(t.abs().max()) for t in tensors.values())  # SGD's step rounds beside the tensors
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-6 * scale, rtol=0)


def test_doctests():
    assert doctest.testmod(privacy_stacked).failed == 0


# --- when, and when not ---------------------------------------------------------------------------


def stacks_of(monkeypatch, **changes):
    """The stacks that a run trained, as lists of clients."""
    seen, plain = [], cohort_module.train_stack

    def spy(model, stack, members, *rest, **named):
        seen.append([m.client for m in members])
        return plain(model, stack, members, *rest, **named)

    monkeypatch.setattr(cohort_module, "train_stack", spy)
    run_federation(federation(rounds=FederationSettings(rounds=1), **changes))
    return seen


def test_small_clients_are_stacked_together_and_a_large_one_by_itself(monkeypatch):
    local = LocalSettings(lr=0.1, steps=1, batch_size=400)
    long = text_data(400, seed=3)  # some 2,400 tokens a batch
    clients = [text_data(6, seed=0), long, text_data(6, seed=1), text_data(6, seed=2)]
    assert stacks_of(monkeypatch, clients=clients, local=local) == [[0, 2, 3], [1]]


def test_a_stack_holds_no_more_than_the_token_budget_and_eight_clients(monkeypatch):
    local = LocalSettings(lr=0.1, steps=1, batch_size=4)
    assert [len(s) for s in stacks_of(monkeypatch, sizes=(8,) * 10, local=local)] == [5, 5]
    tight = local.model_copy(update={"max_tokens": 60})  # about 24 tokens a client
    assert max(len(s) for s in stacks_of(monkeypatch, sizes=(8,) * 10, local=tight)) == 2


def test_never_and_one_client(monkeypatch):
    never = LocalSettings(lr=0.1, steps=1, batch_size=4, stack="never")
    assert stacks_of(monkeypatch, local=never) == []
    assert stacks_of(monkeypatch, sizes=(8,)) == [[0]]  # costs less than PEFT's own layers


ALWAYS = LocalSettings(lr=0.1, steps=1, batch_size=4, stack="always")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora": LoraSettings(rank=2, dropout=0.1)}, "dropout"),
        ({"precision": "bf16"}, "bf16"),
        (
            {"method_name": "fedra", "settings": {"resources": ROC}, "depth": 4, "sizes": SIZES},
            "lacks layers",
        ),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_the_reason_or_trained_alone(changes, reason):
    with pytest.raises(BadValue, match=reason):
        run_federation(federation(local=ALWAYS, **changes))
    auto = ALWAYS.model_copy(update={"stack": "auto"})
    never = ALWAYS.model_copy(update={"stack": "never"})
    one, other = (run_federation(federation(local=s, **changes)) for s in (auto, never))
    assert digest(one.state) == digest(other.state)


def test_dropout_of_the_backbone_is_refused():
    fed = federation(local=ALWAYS)
    noisy = backbone("roberta", attention_probs_dropout_prob=0.1)
    fed = dataclasses.replace(fed, model=attach_lora(noisy, LoraSettings(rank=2), seed=1))
    with pytest.raises(BadValue, match="attention_probs_dropout_prob=0.1"):
        run_federation(fed)


def test_a_stack_that_breaks_names_the_client_that_would_have_been_first():
    errors = []
    for stack in ("never", "always"):
        local = LocalSettings(lr=1e30, steps=3, batch_size=4, stack=stack)
        with pytest.raises(NonFinite) as error:
            run_federation(federation(local=local))
        errors.append(error.value.args)
    assert errors[0] == errors[1]


@pytest.mark.filterwarnings("ignore:delta")
@pytest.mark.parametrize("privacy", [None, PrivacySettings(sigma=1.0, clip=1.0)])
def test_a_stacked_run_resumed_ends_bit_identical(privacy):
    def make():
        rounds = FederationSettings(rounds=3, cohort=3)
        return federation(
            sizes=SIZES,
            lora=LoraSettings(rank=2, head="personal"),
            rounds=rounds,
            local=ALWAYS,
            privacy=privacy,
        )

    snapshots = []
    whole = run_federation(make(), save=lambda now: snapshots.append(copy.deepcopy(now)))
    for snapshot in snapshots:
        # as a checkpoint gives it back: its file has an order of its own
        snapshot.state = dict(sorted(snapshot.state.items(), reverse=True))
        again = run_federation(make(), resume=snapshot)
        assert digest(again.state) == digest(whole.state)
        assert again.history == whole.history


def test_the_model_is_as_before():
    fed = federation(local=ALWAYS, lora=LoraSettings(rank=2, head="aggregated"))
    names = AdapterSlot(fed.model).names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_federation(fed)
    assert AdapterSlot(fed.model).names == names
    assert not any("forward" in vars(m) for m in fed.model.modules())
