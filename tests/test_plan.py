"""Estimates against runs that were trained, and the plan of items over a store."""

import json
import math

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.setup import load_data
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import planned_items, planned_runs, runs_of
from fedlora_kit.planning import amounts as amounts_
from fedlora_kit.planning import estimate as estimate_
from fedlora_kit.planning import gpus
from fedlora_kit.planning import rate as rate_
from fedlora_kit.planning.amounts import PUBLISHED, amounts
from fedlora_kit.planning.architectures import PUBLISHED as SHAPES
from fedlora_kit.planning.architectures import architecture, image_tokens, of_config, published
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.planning.rate import Rate, given_rate, measured_rate, published_rate
from fedlora_kit.study.plan import downloads, plan
from fedlora_kit.study.plan_check import by_kind, compare_with_records

TEXT = {
    "model": {"backbone": "kit/text-tiny"},
    "data": {"task": "polarity", "train_limit": 90, "eval_limit": 20},
    "split": {"partitioner": "iid", "clients": 3},
    "method": {"name": "lora"},
    "local": {"lr": 0.5, "steps": 2, "batch_size": 8},
    "rounds": {"rounds": 2},
}
IMAGE = {
    **TEXT,
    "model": {"backbone": "kit/image-tiny", "lora": {"targets": ["q", "v"], "dropout": 0.1}},
    "data": {"task": "digits", "train_limit": 90, "eval_limit": 20},
    "rounds": {"rounds": 4},
}
CAUSAL = {
    **TEXT,
    "model": {"backbone": "kit/instruct-tiny"},
    "data": {"task": "instructions", "train_limit": 90, "eval_limit": 4, "max_new_tokens": 4},
}
GROUPS = {"groups": [1, 1, 1], "layers": [0.5, 0.75, 1.0]}
FIXED = Rate(1e9, 1e-3, 2e-3, 0.1, 1.0, "given")


def spec(base=TEXT, **parts):
    return RunSpec.parse({**base, **parts})


def forget():
    amounts_._parts.cache_clear()
    estimate_._estimate.cache_clear()


@pytest.mark.parametrize(
    "made",
    [
        spec(),
        spec(method={"name": "ffa-lora"}),
        spec(model={**TEXT["model"], "lora": {"head": "aggregated", "rank": 4}}),
        spec(IMAGE, method={"name": "fed-hello", "settings": {"resources": GROUPS, "proxy_examples": 9}}),
        spec(
            IMAGE,
            method={
                "name": "flexlora",
                "settings": {"resources": {"groups": [1, 1, 1], "ranks": [0.125, 0.5, 1.0]}},
            },
        ),
        spec(
            CAUSAL,
            method={"name": "fedlora-optimizer"},
            data={**CAUSAL["data"], "server_examples": 8, "client_holdout": 0.1},
        ),
    ],
    ids=["lora", "ffa-lora", "head", "fed-hello", "flexlora", "fedlora-optimizer"],
)
def test_traffic_and_disk_are_those_of_the_trained_run(made):
    entry, cost = run(made, device="cpu"), estimate(made)
    assert cost.bytes_up == pytest.approx(entry.results["bytes_up"], rel=0.25)  # cohorts are everybody here
    stored = sum(f.stat().st_size for f in entry.path.rglob("*") if f.is_file())
    assert cost.store_bytes == pytest.approx(stored, rel=0.35)
    assert cost.rounds == made.rounds.rounds


def test_traffic_is_exact_where_everybody_trains_the_same():
    made = spec(method={"name": "ffa-lora"})
    assert estimate(made).bytes_up == run(made, device="cpu").results["bytes_up"]


def test_the_numbers_of_examples_are_those_that_a_run_loads():
    for made in (
        spec(),
        spec(data={**TEXT["data"], "holdout": 30, "eval_limit": None}),
        spec(IMAGE),
        spec(CAUSAL, data={"task": "instructions"}),
    ):
        train, scored = load_data(made.data, made.model.backbone)
        found = amounts(made)
        assert found.known == "data"
        assert found.train.count == len(train)
        assert {name: part.count for name, part in found.evals.items()} == {
            name: len(part) for name, part in scored.items()
        }
        if made.data.task != "digits":  # images that need no scaling count as one token in a batch's budget
            assert found.train.lengths.mean() == pytest.approx(train.lengths.mean(), rel=0.2)


def test_what_is_twice_as_much_costs_twice_as_much():
    one = estimate(spec())
    double = estimate(spec(rounds={"rounds": 4}))
    for name in ("training_flops", "evaluation_flops", "forward_layers", "backward_layers", "bytes_up"):
        assert getattr(double, name) == pytest.approx(2 * getattr(one, name))
    steps = estimate(spec(local={**TEXT["local"], "steps": 4}))
    assert steps.training_flops == pytest.approx(2 * one.training_flops)
    assert steps.evaluation_flops == one.evaluation_flops
    half = estimate(spec(method={"name": "ffa-lora"}))
    assert half.bytes_up == one.bytes_up / 2
    assert half.training_flops < one.training_flops


def test_rates_seeds_and_noise_change_nothing():
    one = estimate(spec())
    assert estimate(spec(seed=7, local={**TEXT["local"], "lr": 0.01})) == one
    assert estimate(spec(model={**TEXT["model"], "lora": {"alpha": 64}})) == one
    private = [estimate(spec(privacy={"epsilon": e, "delta": 1e-5, "clip": 2})) for e in (1, 6)]
    assert private[0] == private[1]
    assert private[0].private


def test_fewer_layers_cost_less():
    full = estimate(spec(IMAGE))
    weak = {**GROUPS, "layers": [0.5, 0.5, 0.5]}
    exclusive = estimate(spec(IMAGE, method={"name": "straggler", "settings": {"resources": weak}}))
    assert exclusive.training_flops < full.training_flops
    assert exclusive.evaluation_flops == full.evaluation_flops
    absent = estimate(spec(IMAGE, method={"name": "fedra", "settings": {"resources": weak}}))
    assert absent.training_flops < exclusive.training_flops


def test_personal_heads_are_scored_one_by_one():
    personal = estimate(spec(model={**TEXT["model"], "lora": {"head": "personal"}}))
    assert personal.evaluation_flops == pytest.approx(3 * estimate(spec()).evaluation_flops)
    few = estimate(spec(method={"name": "local-only"}, rounds={"rounds": 1, "cohort": 1}))
    once = estimate(spec(rounds={"rounds": 1, "cohort": 1}))
    assert few.evaluation_flops == pytest.approx(2 * once.evaluation_flops)  # the other two are one model


def test_without_data_and_network_the_published_sizes_count(monkeypatch):
    made = RunSpec.parse(
        {**TEXT, "model": {"backbone": "FacebookAI/roberta-large"}, "data": {"task": "sst2"}}
    )
    found = amounts(made)
    assert found.known == "published sizes"
    assert (found.train.count, found.evals["validation"].count) == (67_349, 872)
    limited = made.model_copy(update={"data": made.data.model_copy(update={"train_limit": 100})})
    assert amounts(limited).train.count == 100
    monkeypatch.delitem(PUBLISHED, "sst2")
    forget()
    with pytest.raises(FedloraError, match="FEDLORA_HUB"):
        amounts(made)
    forget()


def test_a_rate_adds_up():
    cost = estimate(spec())
    expected = cost.flops / 1e9 + cost.forward_layers * 1e-3 + cost.backward_layers * 2e-3 + 2 * 0.1 + 1.0
    assert FIXED.seconds(cost) == pytest.approx(expected)
    assert given_rate(100).flops == 1e14
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(BadValue, match="tflops"):
            given_rate(bad)


def test_this_machine_can_be_measured():
    rate = measured_rate(architecture("kit/text-tiny"), 2, "cpu")
    assert rate.how == "measured"
    assert 1e8 < rate.flops < 1e13
    assert all(0 <= x < 1 for x in (rate.forward, rate.backward, rate.round, rate.run))
    assert rate.forward > 0
    assert measured_rate(architecture("kit/text-tiny"), 2, "cpu") is rate


@pytest.mark.parametrize("name", sorted(n for n in SHAPES if not n.startswith("kit/")))
@pytest.mark.parametrize(("host", "tflops"), [(4e-3, 45), (4e-3, 300), (20e-3, 600), (4e-3, 17), (1e-3, 10)])
def test_the_rate_of_a_modelled_device_is_found(name, host, tflops):
    """A device that computes while the host prepares: max(host, operations / rate), two per cent of noise."""
    shape = rate_._probe_shape(published(name), rate_.WIDEST["cuda"])
    rng = np.random.default_rng(0)

    def seconds(rows, tokens, train):
        share = 1 if train else 1 / 3
        work = share * rows * rate_._step_flops(shape, image_tokens(shape) or tokens, 2) / (tflops * 1e12)
        return max(share * host, work) * (1 + 0.02 * rng.standard_normal())

    flops, forward, backward = rate_._fit(seconds, shape, 2)
    assert flops == pytest.approx(tflops * 1e12, rel=0.15)
    passes = (forward + backward) * (rate_.LAYERS + 1)
    assert 0 <= passes < 1.1 * host
    if seconds(1, 4, True) < 1.1 * host and seconds(8, 4, True) < 1.1 * host:  # bound by the host alone
        assert passes > 0.8 * host


def test_a_classifying_decoder_without_a_padding_token_is_measured(monkeypatch):
    shape = of_config(transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2), "text")
    monkeypatch.setattr(rate_, "_fit", lambda seconds, *_: (seconds(2, 8, True), 0.0, 0.0))
    assert measured_rate(shape, 3, "cpu").how == "measured"


def test_a_measurement_that_cannot_be_is_refused(monkeypatch):
    shape = rate_._probe_shape(published("FacebookAI/roberta-large"), 4096)
    with pytest.raises(FedloraError, match="twice the batch took no longer"):
        rate_._fit(lambda rows, tokens, train: 0.004, shape, 2)
    gpu_ = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    rate_._check_peak(60e12, gpu_, "fp32", "fp32")
    rate_._check_peak(300e12, gpu_, "tf32", "fp32")
    rate_._check_peak(600e12, gpu_, "fp32", "bf16")
    for flops, precision in ((607e12, "fp32"), (607e12, "tf32"), (4.9e19, "bf16")):
        with pytest.raises(FedloraError, match=r"H200, whose data sheet ends at(.|\n)*--gpu h200"):
            rate_._check_peak(flops, gpu_, precision, "fp32")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Pretend GPU 0")
    rate_._check_peak(4.9e19, gpu_, "fp32", "fp32")  # nothing to compare with


def test_memory_that_ends_stops_the_growth():
    shape = rate_._probe_shape(published("FacebookAI/roberta-large"), 4096)
    tried = []

    def seconds(rows, tokens, train):
        tried.append(rows)
        if rows * tokens > 50_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 4e-3 + rows * rate_._step_flops(shape, tokens, 2) / 300e12

    flops, *_ = rate_._fit(seconds, shape, 2)
    assert flops == pytest.approx(300e12)
    assert max(tried) * 64 > 50_000


def test_data_sheets_tell_formats_apart():
    names = {
        "NVIDIA H200": "h200",
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA A100-SXM4-80GB": "a100",
        "Tesla V100-SXM2-16GB": "v100",
        "NVIDIA L4": "l4",
        "NVIDIA L40S": "l40s",
        "NVIDIA GeForce RTX 4090": "rtx-4090",
    }
    for said, name in names.items():
        assert gpus.recognised(said) is gpus.gpu(name)
    for unknown in ("NVIDIA L40", "NVIDIA A10G", "AMD Instinct MI300X"):
        assert gpus.recognised(unknown) is None
    a100 = gpus.gpu("A100")
    assert [a100.peak(p) / 1e12 for p in ("fp32", "tf32", "bf16")] == [19.5, 156, 312]
    assert a100.peak("fp32", "bf16") == a100.peak("bf16")
    v100 = gpus.gpu("v100")
    assert v100.peak("tf32") == v100.peak("fp32") == 15.7e12
    with pytest.raises(BadValue, match="no bf16"):
        v100.peak("bf16")
    assert published_rate(a100, "tf32", share=0.5).flops == 78e12
    for bad in (0, -1, 1.5, math.nan):
        with pytest.raises(BadValue, match="share"):
            published_rate(a100, share=bad)
    for one in gpus.GPUS:
        assert one.fp32 <= (one.tf32 or one.fp32) <= (one.bf16 or one.tf32 or one.fp32)


LARGE = {
    "model": {"backbone": "FacebookAI/roberta-large", "lora": {"rank": 8, "targets": ["q", "v"]}},
    "data": {"task": "qnli", "max_length": 128},
    "split": {"partitioner": "iid", "clients": 3},
    "method": {"name": "lora"},
    "local": {"lr": 0.1, "steps": 10, "batch_size": 200, "max_tokens": 32_768},
    "rounds": {"rounds": 10},
}


def test_memory_knows_cuts_and_each_examples_gradient():
    """On a pretended device such steps, cut at a CPU's price of a pass, held 4.8 GB without DP, and with it
    5.7 by rows and 6.0 by hooks."""
    plain = estimate(spec(LARGE)).memory_bytes
    private = estimate(spec(LARGE, privacy={"epsilon": 6, "delta": 1e-5, "clip": 2})).memory_bytes
    assert plain == pytest.approx(4.8e9, rel=0.3)
    assert private == pytest.approx(6.0e9, rel=0.3)
    assert private - plain > 24 * 2 * 2 * 8 * 1024 * 4 * 30  # 30 examples' gradients at the least
    on_gpu = estimate(spec(LARGE), gpu=True)
    assert on_gpu.memory_bytes > plain  # cut less, for fewer passes
    assert on_gpu.forward_layers < estimate(spec(LARGE)).forward_layers


def test_memory_of_generated_answers_is_their_cache():
    made = {
        **LARGE,
        "model": {"backbone": "huggyllama/llama-7b", "dtype": "bf16"},
        "data": {"task": "gsm8k", "max_length": 1000, "max_new_tokens": 400},
        "local": {"lr": 0.1, "steps": 1, "batch_size": 1},
        "rounds": {"rounds": 1, "eval_max_tokens": 8192},
    }
    cost = estimate(spec(made), gpu=True)
    cache = 8192 * 32 * 4096 * 2 * 2  # tokens, layers, width, keys and values, bytes
    assert 0.8 * cache < cost.memory_bytes - cost.weights_bytes < 1.5 * cache


# --- plans


def planned(parameters, profile="smoke", store=None):
    return plan(profile, planned_items(profile, parameters), lambda _: FIXED, store or Store())


def done(store, made):
    with store.work(made.key(), made.model_dump(mode="json")) as work:
        scores = {"holdout": {"final": 0.5, "loss": 1.0}}
        work.finish({"results.json": {"scores": scores}, "provenance.json": {}, "history.jsonl": []})


def test_what_the_store_has_costs_nothing_more():
    store = Store()
    specs = runs_of("start_here", "smoke", seeds=1)
    before = planned({"start_here": {"seeds": 1}}).totals
    assert (before.runs, before.finished, before.missing, before.failed) == (4, 0, 4, 0)
    assert before.flops == sum(estimate(s).flops for s in specs)
    done(store, specs[0])
    with store.work(specs[1].key(), {}) as work:
        work.fail({"error": "diverged"})
    after = planned({"start_here": {"seeds": 1}}).totals
    assert (after.runs, after.finished, after.missing, after.failed) == (4, 1, 2, 1)
    assert after.flops == sum(estimate(s).flops for s in specs[2:])


def test_runs_that_items_share_count_once():
    both = planned({"fed-hello/table2": {"seeds": 1}, "fed-hello/curves": {"seeds": 1}})
    assert [one.totals.runs for one in both.items] == [21, 21]
    assert both.totals.runs == 21
    assert both.totals.flops == both.items[0].totals.flops


def test_a_grid_counts_the_runs_that_it_will_choose():
    store, given = Store(), {"seeds": 2, "tasks": ["polarity"], "epsilons": [0.0], "rates": [0.1, 0.4]}
    (item,) = planned({"ffa-lora/table1": given}).items
    waiting = [run for run in item.runs if run.stage == "to be chosen"]
    assert item.totals.to_be_chosen == len(waiting) == 4  # 2 methods, 2 seeds
    assert all(run.key is None and run.cost is not None for run in waiting)
    for made in planned_runs("ffa-lora/table1", "smoke", **given).specs():
        done(store, made)
    (item,) = planned({"ffa-lora/table1": given}, store=store).items
    assert item.totals.to_be_chosen == 0
    assert [run.stage for run in item.runs].count("chosen") == 4
    assert all(run.key for run in item.runs)


def test_items_without_runs_say_so():
    (item,) = planned({"ffa-lora/figure1": {}}).items
    assert item.totals.runs == 0
    assert "trains nothing" in item.note


@pytest.mark.parametrize("item", ["ffa-lora/init_of_a", "fed-hello/ledgar", "fedlora-optimizer/ablation"])
def test_the_papers_size_is_planned_without_a_network(item):
    made = planned({item: {"seeds": 1}}, "paper")
    assert made.totals.unknown == 0
    assert made.totals.flops > 1e17


def test_what_cannot_be_estimated_is_said_and_in_no_sum(monkeypatch):
    monkeypatch.delitem(PUBLISHED, "qnli")
    forget()
    (item,) = planned({"ffa-lora/init_of_a": {"seeds": 1}}, "paper").items
    forget()
    assert item.totals.unknown == item.totals.missing > 0
    assert item.totals.flops == 0
    assert "qnli" in item.runs[0].problem


def test_downloads_name_models_and_data(monkeypatch, tmp_path):
    specs = runs_of("ffa-lora/init_of_a", "paper", seeds=1)
    found = downloads(specs)
    assert set(found) == {"FacebookAI/roberta-large", "nyu-mll/glue/qnli"}
    assert found["FacebookAI/roberta-large"] == pytest.approx(1.42e9, rel=0.01)
    assert downloads(runs_of("start_here", "smoke")) == {}
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    assert downloads(specs) == {}


# --- the check, and the command


def test_estimates_are_set_beside_records():
    store = Store()
    made = spec()
    entry = run(made, device="cpu")
    found = compare_with_records(store, lambda _: FIXED)
    (row,) = found.runs.to_dict("records")
    assert row["wall"] == entry.provenance["wall_seconds"]
    assert row["ratio"] == pytest.approx(FIXED.seconds(estimate(made)) / row["wall"])
    assert row["up"] == 1.0
    (kind,) = by_kind(found.runs).to_dict("records")
    assert kind["ratio"] == kind["low"] == kind["high"] == kind["quiet"] == row["ratio"]
    assert kind["within"] == (0.5 <= row["ratio"] <= 2)
    with store.work("0" * 16, {"nonsense": 1}) as work:
        work.finish({"results.json": {}, "provenance.json": {}, "history.jsonl": []})
    assert set(compare_with_records(store, lambda _: FIXED).skipped) == {"0" * 16}


def call(*words):
    return CliRunner().invoke(app, list(words))


def test_the_command_prints_a_table_or_json():
    words = ("plan", "ffa-lora/table1", "ffa-lora/figure1", "--set", "seeds=2", "--tflops", "100")
    text = call(*words)
    assert text.exit_code == 0, text.output
    assert "wait for their item's grid" in text.output
    assert "trains nothing" in text.output
    told = json.loads(call(*words, "--json").stdout)
    assert told["total"]["runs"] == len(told["items"][0]["runs"])
    assert told["rate"] == 100
    first = told["items"][0]["runs"][0]
    assert first["stage"] == "first"
    assert RunSpec.parse(first["spec"]).key() == first["key"]
    assert told["total"]["flops"] > 0


def test_a_named_gpu_counts_by_its_data_sheet():
    words = ("plan", "ffa-lora/init_of_a", "--profile", "paper", "--set", "seeds=1", "--json")
    told = {name: json.loads(call(*words, "--gpu", name).stdout) for name in ("h200", "a100")}
    assert told["h200"]["rate"] == "h200"
    assert told["h200"]["share"] == 0.4
    assert told["h200"]["total"]["device_hours"] < told["a100"]["total"]["device_hours"]
    assert "data sheet of a100" in call(*words[:-1], "--gpu", "a100").output


OWN = """
from fedlora_kit.methods.base import Method, register

@register
class Mine(Method):
    name, title, source = "mine-planned", "Mine", "example"

    def trains(self, tensor, client, round_index):
        return True
"""


def test_a_method_of_ones_own_is_planned(tmp_path):
    file = tmp_path / "mine_planned.py"
    file.write_text(OWN)
    words = (
        "plan",
        "fed-hello/table2",
        "--set",
        "methods=lora,mine-planned",
        "--set",
        "seeds=1",
        "--tflops",
        "1",
    )
    assert "mine-planned" in call(*words).stderr
    told = call(*words, "--with", str(file), "--json")
    assert told.exit_code == 0, told.output
    names = {run["spec"]["method"]["name"] for run in json.loads(told.stdout)["items"][0]["runs"]}
    assert names == {"lora", "mine-planned"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start_here", "--gpu", "h300"), "h200"),
        (("start_here", "--gpu", "h200", "--share", "2"), "share"),
        (("start_here", "--gpu", "h200", "--tflops", "2"), "--tflops"),
        (("nothing/there",), "nothing/there"),
        (("--profile", "huge"), "huge"),
        (("start_here", "--set", "colour=red"), "colour"),
        (("start_here", "--set", "seeds=many"), "seeds"),
        (("start_here", "--set", "profile=paper"), "--profile"),
        (("start_here", "--tflops", "0"), "tflops"),
        (("--check", "--tflops", "1"), "no finished run"),
    ],
)
def test_bad_input_is_told(words, said):
    result = call("plan", *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_check_is_a_table_or_json():
    run(spec(), device="cpu")
    text = call("plan", "--check", "--tflops", "0.02")
    assert text.exit_code == 0, text.output
    assert "of 1 kinds" in text.output
    (row,) = json.loads(call("plan", "--check", "--tflops", "0.02", "--json").stdout)
    assert row["backbone"] == "kit/text-tiny"
