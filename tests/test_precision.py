"""Only the model's passes round: what is declared holds there, and clipping, sums and noise stay float32."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import backbone, data, federation, text_data
from torch import nn

from fedlora_kit.adapter import digest
from fedlora_kit.data.batches import pass_tokens, physical_batches
from fedlora_kit.errors import BadValue, NonFinite
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.papers.ffa_lora import food101 as ffa_food101
from fedlora_kit.papers.ffa_lora import table1 as ffa_table1
from fedlora_kit.papers.ffa_lora import table2 as ffa_table2
from fedlora_kit.papers.ffa_lora.claims import deviations
from fedlora_kit.planning.counting import Counter
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.privacy.stacked import clipped_sums
from fedlora_kit.training import stacked
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.precision import products
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings
from fedlora_kit.training.stackable import limits

CPU = torch.device("cpu")
DP = PrivacySettings(sigma=0.5, clip=0.5, delta=1e-3)
ONE = FederationSettings(rounds=1)


def flags():
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


@pytest.mark.parametrize(("precision", "inside"), [("tf32", "tf32"), ("fp32", "ieee"), ("bf16", "ieee")])
def test_products_are_set_on_purpose_and_put_back_also_after_an_error(precision, inside):
    def fails():
        with products(precision):
            assert flags() == (inside, inside)
            with products("fp32"):
                assert flags() == ("ieee", "ieee")
            assert flags() == (inside, inside)
            raise ZeroDivisionError

    before = flags()
    with pytest.raises(ZeroDivisionError):
        fails()
    assert flags() == before
    torch.get_float32_matmul_precision()  # PyTorch's older question, which raises where the two kinds differ


@pytest.mark.parametrize(("precision", "inside"), [("tf32", "tf32"), ("fp32", "ieee"), ("bf16", "ieee")])
def test_a_record_names_the_formats_of_the_passes(precision, inside, tmp_path):
    model = {"backbone": "kit/text-tiny"}
    described = {
        "model": model,
        "data": {"task": "polarity", "train_limit": 9, "eval_limit": 2},
        "method": {"name": "lora"},
        "local": {"lr": 0.1, "steps": 1, "batch_size": 2},
        "rounds": {"rounds": 1},
        "precision": precision,
    }
    record = run(RunSpec.parse(described), device="cpu", store=Store(tmp_path)).provenance["precision"]
    assert record == {"passes": precision, "weights": "fp32", "matmul": inside, "conv": inside}


@pytest.fixture
def seen(monkeypatch):
    """What the flags were in forward and backward passes, in clipping, in noise and in optimisers' steps."""
    seen = {name: set() for name in ("forward", "backward", "clip", "noise", "step")}

    def noted(name, function):
        def inner(*args, **kwargs):
            seen[name].add(flags())
            return function(*args, **kwargs)

        return inner

    from opacus.optimizers import optimizer as opacus_optimizer

    monkeypatch.setattr(nn.Embedding, "forward", noted("forward", nn.Embedding.forward))
    monkeypatch.setattr(torch.Tensor, "backward", noted("backward", torch.Tensor.backward))
    monkeypatch.setattr(stacked, "clipped_sums", noted("clip", clipped_sums))
    dp = opacus_optimizer.DPOptimizer
    monkeypatch.setattr(dp, "clip_and_accumulate", noted("clip", dp.clip_and_accumulate))
    monkeypatch.setattr(opacus_optimizer, "_generate_noise", noted("noise", opacus_optimizer._generate_noise))
    monkeypatch.setattr(torch.optim.SGD, "step", noted("step", torch.optim.SGD.step))
    return seen


@pytest.mark.parametrize("stack", ["auto", "never"])
def test_passes_round_to_tf32_and_nothing_else_does(seen, stack):
    local = LocalSettings(lr=0.1, steps=2, batch_size=4, stack=stack)
    rounded = run_federation(federation(privacy=DP, precision="tf32", rounds=ONE, local=local))
    tf32, ieee = {("tf32", "tf32")}, {("ieee", "ieee")}
    assert seen == {"forward": tf32, "backward": tf32, "clip": ieee, "noise": ieee, "step": ieee}
    for values in seen.values():
        values.clear()
    plain = run_federation(federation(privacy=DP, rounds=ONE, local=local))
    assert seen == dict.fromkeys(seen, ieee)
    assert digest(rounded.state) == digest(plain.state)  # a CPU computes tf32 as fp32


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**31), st.sampled_from([1e-6, 1e-2, 1.0, 30.0, 1e6]), st.sampled_from([0.1, 1.0, 10.0])
)
def test_a_clipped_gradient_never_exceeds_its_norm(seed, size, clip):
    drawn = torch.randn(6, 3000, generator=torch.Generator().manual_seed(seed)) * size
    rows = torch.cat([drawn[:3], drawn[3:].bfloat16().float()])  # as bf16 passes leave them, too
    alone = clipped_sums(rows, torch.arange(6), torch.full((6,), clip), 6)  # each its own client
    assert float(alone.double().norm(dim=1).max()) <= clip * (1 + 1e-6)


# --- bf16 -----------------------------------------------------------------------------------------


def test_bf16_under_dp_clips_rows_in_float32(monkeypatch):
    rows = []

    def spy(gradients, owners, clips, clients):
        rows.append(gradients)
        return clipped_sums(gradients, owners, clips, clients)

    monkeypatch.setattr(stacked, "clipped_sums", spy)
    local = LocalSettings(lr=0.1, steps=2, batch_size=4)
    silent = DP.model_copy(update={"sigma": 0.0})
    runs = {
        p: run_federation(federation(privacy=silent, precision=p, rounds=ONE, local=local, depth=3))
        for p in ("fp32", "bf16")
    }
    half = len(rows) // 2
    assert {g.dtype for g in rows} == {torch.float32}
    first, rounded = rows[0].flatten(), rows[half].flatten()  # both runs begin with the same adapter
    assert not torch.equal(first, rounded)
    assert float(torch.cosine_similarity(first, rounded, dim=0)) > 0.99
    assert runs["bf16"].history[0]["train_loss"] == pytest.approx(
        runs["fp32"].history[0]["train_loss"], rel=0.02
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora": LoraSettings(rank=2, dropout=0.1)}, "LoRA's input has dropout"),
        ({"local": LocalSettings(lr=0.1, stack="never")}, "local.stack is never"),
    ],
)
def test_bf16_under_dp_is_refused_where_hooks_would_clip(changes, reason):
    with pytest.raises(BadValue, match=reason):
        run_federation(federation(privacy=DP, precision="bf16", **changes))


@pytest.mark.filterwarnings("ignore:delta")
def test_a_bf16_run_under_dp_that_breaks_names_its_client():
    local = LocalSettings(lr=1e30, steps=3, batch_size=4)
    with pytest.raises(NonFinite, match="client 0"):
        run_federation(federation(privacy=DP, precision="bf16", local=local))


def test_scores_are_computed_in_the_declared_precision():
    fed = federation(depth=3)
    examples = data("roberta", 20, seed=9)
    plain, rounded = (evaluate(fed.model, examples, CPU, 4096, p) for p in ("fp32", "bf16"))
    assert plain["loss"] != rounded["loss"]
    assert plain["loss"] == pytest.approx(rounded["loss"], rel=0.02)
    kinds = set()
    fed.model.register_forward_hook(lambda _, __, out: kinds.add(out.logits.dtype))
    history = run_federation(dataclasses.replace(fed, precision="bf16")).history
    assert kinds == {torch.bfloat16}  # training and scoring
    assert np.isfinite(history[-1]["eval"]["validation"]["loss"])


# --- dropout of the backbone ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("privacy", [None, DP])
def test_a_client_alone_draws_dropout_in_rows_as_with_hooks(kind, privacy, monkeypatch):
    passes = []

    def spy(*args, **kwargs):
        passes.append([m.client for m in args[2]])
        return stacked.train_stack(*args, **kwargs)

    monkeypatch.setattr("fedlora_kit.training.cohort.train_stack", spy)
    noisy = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "num_hidden_layers": 3}
    found = []
    for stack in ("never", "auto"):
        local = LocalSettings(lr=0.1, steps=3, batch_size=4, max_tokens=20, stack=stack)
        fed = federation(
            kind=kind, local=local, privacy=privacy, clients=[text_data(9, seed=k) for k in (0, 1)]
        )
        model = attach_lora(backbone(kind, **noisy), LoraSettings(rank=2, alpha=4), seed=1)
        found.append(run_federation(dataclasses.replace(fed, model=model)))
    assert passes == [[0], [1]] * 2
    for name, tensor in found[0].state.items():
        torch.testing.assert_close(found[1].state[name], tensor, atol=1e-6, rtol=0)
    for one, other in zip(found[0].history, found[1].history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("backbone_name", "task", "together"),
    [("FacebookAI/roberta-base", "sst2", 1), ("kit/text-tiny", "polarity", 3)],
)
def test_a_plan_knows_that_dropout_keeps_clients_apart(backbone_name, task, together):
    setting = dataclasses.replace(
        ffa_table1.PROFILES["smoke"],
        backbone=backbone_name,
        tasks=(task,),
        batch_size=8,
        holdout=0,
        train_limit=None,
    )
    assert Counter(ffa_table1.EXPERIMENT.grid(setting)[0].spec).stacked(3) == together


# --- the price of a pass --------------------------------------------------------------------------


def test_a_gpu_is_given_fewer_and_larger_pieces_and_stacks():
    gpu = torch.device("cuda", 0)
    lengths = np.array([40] * 2 + [9] * 30)
    cut = {d: physical_batches(lengths, np.arange(32), 8192, pass_tokens(d)) for d in (CPU, gpu)}
    assert [len(pieces) for pieces in cut.values()] == [2, 1]
    assert all(big > small for big, small in zip(limits(gpu), limits(CPU), strict=True))


@pytest.mark.parametrize("privacy", [None, DP])
def test_the_price_of_a_pass_changes_rounding_only(privacy, monkeypatch):
    local = LocalSettings(lr=0.1, steps=2, batch_size=40)
    clients = [text_data(40, seed=0), text_data(12, seed=1)]
    found = []
    for price in (1, 100_000):
        for place in ("local", "stack_batches", "evaluation"):
            monkeypatch.setattr(f"fedlora_kit.training.{place}.pass_tokens", lambda _, price=price: price)
        found.append(run_federation(federation(local=local, clients=clients, privacy=privacy, rounds=ONE)))
    for name, tensor in found[0].state.items():
        torch.testing.assert_close(found[1].state[name], tensor, atol=1e-6, rtol=0)


# --- papers ---------------------------------------------------------------------------------------


def test_the_papers_settings_declare_their_precision_and_say_so():
    for profile, expected in (("paper", "tf32"), ("small", "tf32"), ("smoke", "fp32")):
        for table in (ffa_table1, ffa_table2):
            setting = table.PROFILES[profile]
            cell = ffa_table1.EXPERIMENT.grid(setting)[0] if table is ffa_table1 else None
            assert setting.precision == expected
            assert cell is None or cell.spec.precision == expected
            said = any("TF32" in line for line in deviations(setting, table.PROFILES["paper"]))
            assert said == (expected == "tf32")
        one = ffa_food101.setting(profile)
        assert one.precision == expected
        assert any("TF32" in line for line in ffa_food101.deviations(profile, one)) == (expected == "tf32")
