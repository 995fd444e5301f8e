"""The papers' sizes, with random weights: seconds a step, share of the device's rate, memory and plan."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from acceptance.frame import Bench
from acceptance.machine import fastest
from acceptance.same import CAUSAL, IMAGE, TEXT
from acceptance.worlds import (
    Pace,
    Trainer,
    changed,
    examples,
    federation,
    model_of,
    paper_run,
    planned,
    short,
    wait,
)
from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data import batches
from fedlora_kit.devices import peak_bytes, release, reset_peak
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods.base import ClientUpdate
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.generation import generate


def paced(bench: Bench, name: str, spec: RunSpec, fed: Federation) -> Pace:
    """Measure a federation's local steps, and keep them beside the plan and the device's own rate.

    The peak of memory is held to the plan's, within a factor of 2; not in the tiny form, where what the
    libraries take is most of it.

    Args:
        spec: the run, of one round.
    """
    trainer = Trainer(fed)
    pace = trainer.pace()
    cost, flops = planned(spec, bench.device)
    bench.note(f"{name}: a step", 1e3 * pace.step, "ms")
    bench.note(f"{name}: rate", flops / pace.step / 1e12, "TFLOP/s")
    kind = "bf16" if "bf16" in (spec.precision, spec.model.dtype) else spec.precision
    if kind in bench.rates:
        bench.note(f"{name}: share of the measured {kind} product", flops / pace.step / bench.rates[kind])
    if pace.peak is not None and pace.reserved is not None:
        bench.note(f"{name}: peak, of tensors", pace.peak / 1e9, "GB")
        bench.note(f"{name}: peak, taken from the GPU", pace.reserved / 1e9, "GB")
        bench.note(f"{name}: peak in the plan", cost.memory_bytes / 1e9, "GB")
        if not bench.tiny:
            bench.at_most(f"{name}: peak / the plan's", pace.peak / cost.memory_bytes, 2.0)
            bench.at_least(f"{name}: peak / the plan's, the other way", pace.peak / cost.memory_bytes, 0.5)
        try:
            _kernels(bench, name, trainer)
        except (RuntimeError, AssertionError) as error:  # a machine may forbid profiling
            bench.note(f"{name}: not profiled", str(error)[:200])
    return pace


def _kernels(bench: Bench, name: str, trainer: Trainer) -> None:
    """Kernels a step, and how much of the time the GPU is busy."""
    from torch.profiler import ProfilerActivity, profile

    begun = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        trainer.once()
    taken = time.perf_counter() - begun
    kernels = [event for event in seen.key_averages() if event.self_device_time_total > 0]
    steps = trainer.fed.local.steps * len(trainer.fed.clients)
    bench.note(f"{name}: kernels and copies a step", sum(event.count for event in kernels) / steps)
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    bench.note(f"{name}: GPU busy while profiled", min(1.0, busy / taken))


def text(bench: Bench) -> None:
    """RoBERTa-large: a step of LoRA, and of FFA-LoRA under DP by rows and by hooks."""
    tasks = ("answerable",) if bench.tiny else ("sst2", "qnli")
    model = None
    for task in tasks:
        plain = short(paper_run(TEXT, bench.profile, task), bench.tiny)
        private = short(paper_run(TEXT, bench.profile, task, "ffa-lora", private=True), bench.tiny)
        model = model if model is not None else model_of(plain, bench.device)
        found: dict[str, float] = {}
        for name, spec in (
            ("LoRA, tf32", changed(plain, precision="tf32")),
            ("DP by rows, tf32", changed(private, precision="tf32")),
            ("DP by rows, fp32", changed(private, precision="fp32")),
            ("DP by rows, bf16", changed(private, precision="bf16")),
            ("DP by hooks, tf32", changed(private, precision="tf32", local={"stack": "never"})),
        ):
            fed = federation(spec, bench.device, model=model)
            found[name] = paced(bench, f"{task}, {name}", spec, fed).step
        ratio = found["DP by rows, tf32"] / found["LoRA, tf32"]
        if bench.device.type == "cuda" and not bench.tiny:
            bench.at_most(f"{task}: DP by rows against LoRA", ratio, 1.15)
            bench.at_most(
                f"{task}: rows against hooks", found["DP by rows, tf32"] / found["DP by hooks, tf32"], 1.0
            )
        else:
            bench.note(f"{task}: DP by rows against LoRA", ratio)
    before = batches.GPU_PASS_TOKENS
    spec = changed(private, precision="tf32")
    try:  # where batches are cut: the price of a pass that `data.batches` names was estimated, not measured
        for price in (1000,) if bench.tiny else (256, 1000, 2000, 10**9):
            batches.GPU_PASS_TOKENS = price
            step = Trainer(federation(spec, bench.device, model=model)).pace().step
            bench.note(f"{tasks[-1]}, DP by rows, tf32, a pass priced {price} tokens", 1e3 * step, "ms")
    finally:
        batches.GPU_PASS_TOKENS = before


def image(bench: Bench) -> None:
    """ViT-B/16, ten clients' round, scoring, Fisher scores, FlexLoRA's server."""
    spec = short(paper_run(IMAGE, bench.profile), bench.tiny, steps=1)
    spec = changed(spec, split={"clients": 2 if bench.tiny else 10}, rounds={"cohort": None})
    size = 16 if bench.tiny else 500
    model = model_of(spec, bench.device)
    fed = federation(spec, bench.device, clients=spec.split.clients, size=size, model=model)
    pace = paced(bench, "ViT", changed(spec, local={"batch_size": size}), fed)
    bench.note("ViT: training of a round", pace.step * spec.split.clients * spec.local.steps, "s")
    many = examples(spec, 32 if bench.tiny else 10_000)
    budget, seconds = paper_run(IMAGE, bench.profile).rounds.eval_max_tokens, {}
    for precision in ("bf16", "tf32", "fp32"):
        body = lambda p=precision: evaluate(model, many, bench.device, budget, p)  # noqa: E731
        seconds[precision] = fastest(bench.device, body, 1)
        bench.note(f"ViT: scoring of {len(many)} images, {precision}", seconds[precision], "s")
    slot, few = AdapterSlot(model), examples(spec, 8 if bench.tiny else 100, 5)
    slot.set_trainable([n for n in slot.names if ".lora_" in n])
    for precision in ("bf16", "fp32"):
        body = lambda p=precision: fisher_scores(model, slot, few, bench.device, precision=p)  # noqa: E731
        bench.note(
            f"ViT: Fisher scores on {len(few)} images, {precision}", fastest(bench.device, body, 1), "s"
        )
    flex = federation(
        changed(spec, method=paper_run(IMAGE, bench.profile, method_name="flexlora").method.model_dump()),
        bench.device,
        clients=spec.split.clients,
        size=2,
        model=model,
    )
    state = slot.read()
    for where in {bench.device, torch.device("cpu")}:
        there = {n: t.to(where) for n, t in state.items()}
        updates = [
            ClientUpdate(k, 1, {n: t + 0.01 * torch.randn_like(t) for n, t in there.items()})
            for k in range(spec.split.clients)
        ]
        body = lambda s=there, u=updates: flex.method.aggregate(s, u)  # noqa: E731
        bench.note(f"FlexLoRA's server, updates on {where.type}", fastest(bench.device, body, 1), "s")
    if bench.device.type == "cuda" and not bench.tiny:
        train = pace.step * spec.split.clients * spec.local.steps
        bench.at_most("ViT: scoring in bf16 against training", seconds["bf16"] / train, 1.5)


def causal(bench: Bench) -> None:
    """LLaMA-7B: steps of GSM8K and Dolly with and without checkpointing, and answers."""
    model = None
    kinds: Sequence[tuple[str, str]] = (("GSM8K", CAUSAL), ("Dolly", "fed-hello/dolly"))
    for name, item in kinds:
        spec = short(paper_run(item, bench.profile), bench.tiny)
        for checkpointing in (False, True):
            spec = changed(spec, model={"gradient_checkpointing": checkpointing})
            del model
            release()
            model = model_of(spec, bench.device)
            how = "checkpointing" if checkpointing else "no checkpointing"
            paced(bench, f"{name}, {how}", spec, federation(spec, bench.device, model=model))
            if name == "GSM8K" and not checkpointing:
                _answers(bench, spec, model)


def _answers(bench: Bench, spec: RunSpec, model: torch.nn.Module) -> None:
    new, prompts = (2, 4) if bench.tiny else (64, 54)
    spec = changed(spec, data={"max_new_tokens": new})
    asked, budget = examples(spec, prompts), paper_run(CAUSAL, bench.profile).rounds.eval_max_tokens
    reset_peak(bench.device)
    begun = time.perf_counter()
    answers = generate(model, asked, bench.device, budget, spec.precision)
    wait(bench.device)
    taken, peak = time.perf_counter() - begun, peak_bytes(bench.device)["cuda"]
    bench.note(f"{len(answers)} answers of {new} tokens", taken, "s")
    bench.note("tokens a second", float(len(np.atleast_1d(answers)) * new / taken))
    if peak is not None:
        bench.note("answers: peak, of tensors", peak / 1e9, "GB")
