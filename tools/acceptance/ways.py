"""How the work is done: attention's kernels, stacks, determinism, compiling, the plan's rates, waits."""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from typing import Any

import torch
from torch import nn

from acceptance.frame import Bench, Skipped
from acceptance.machine import fastest
from acceptance.processes import ask, small_run, trained
from acceptance.same import CAUSAL, IMAGE, TEXT, plain, without_dropout
from acceptance.worlds import (
    Trainer,
    changed,
    examples,
    federation,
    model_of,
    narrow,
    paper_run,
    planned,
    short,
)
from fedlora_kit.data.tasks import get_task
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.planning.architectures import architecture
from fedlora_kit.planning.rate import measured_rate
from fedlora_kit.training.precision import forward, products

NAMES = {"text": TEXT, "image": IMAGE, "causal": CAUSAL}


def _runs(bench: Bench) -> dict[str, RunSpec]:
    return {name: short(paper_run(item, bench.profile), bench.tiny) for name, item in NAMES.items()}


def determinism(bench: Bench) -> None:
    """A step with deterministic algorithms and without; a few layers at the real width."""
    for name, spec in _runs(bench).items():
        fed = federation(spec, bench.device, shape=narrow(spec, 4))
        taken, before = {}, torch.are_deterministic_algorithms_enabled()
        for on in (True, False):
            torch.use_deterministic_algorithms(on)
            try:
                taken[on] = Trainer(fed).pace().step
            finally:
                torch.use_deterministic_algorithms(before)
        bench.note(f"{name}: deterministic / not", taken[True] / taken[False])


def stacks(bench: Bench) -> None:
    """Eight clients of small batches: in one stack against one after the other."""
    for name, width in (("own width", 0), ("width 128", 128), ("width 768", 768)):
        spec = changed(plain(paper_run(TEXT, bench.profile)), local={"batch_size": 4 if bench.tiny else 16})
        shape = narrow(spec, 4)
        if width:
            heads = max(1, width // 64)
            shape = shape.changed(hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width)
        model = without_dropout(model_of(spec, bench.device, shape))
        taken = {}
        for stack in ("never", "auto"):
            one = changed(spec, local={"stack": stack})
            fed = federation(one, bench.device, clients=2 if bench.tiny else 8, model=model, shape=shape)
            taken[stack] = Trainer(fed).pace().step
        bench.note(f"{name}: one after the other / in stacks", taken["never"] / taken["auto"])
        if bench.tiny:
            break


def attention(bench: Bench) -> None:
    """Which kernels of attention a training step gets; the one that keeps all scores must not be there."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for name, spec in _runs(bench).items():
        precisions = ("fp32",) if spec.model.dtype == "bf16" or bench.tiny else ("fp32", "bf16")
        for precision in precisions:
            one = changed(spec, precision=precision, local={"steps": 1})
            trainer = Trainer(federation(one, bench.device, shape=narrow(one)))
            trainer.once()
            with profile(activities=activities) as seen:
                trainer.once()
            calls = {e.key: e.count for e in seen.key_averages() if "dot_product" in e.key}
            chosen = sorted(
                key.removeprefix("aten::") for key in calls if key != "aten::scaled_dot_product_attention"
            )
            bench.note(f"{name}, {precision}: kernels", ", ".join(chosen))
            bench.at_least(f"{name}, {precision}: calls of attention", sum(calls.values()), 1)
            plain_ones = sum(n for key, n in calls.items() if "attention_math" in key)
            if bench.device.type == "cuda":  # a CPU's fused kernel has no dropout
                bench.at_most(f"{name}, {precision}: calls of the plain one", plain_ones, 0)


def compiled(bench: Bench) -> None:
    """A forward and backward pass of ViT-B/16, and of RoBERTa at one width, compiled and not."""
    for name in ("image", "text"):
        spec = _runs(bench)[name]
        model = without_dropout(model_of(spec, bench.device)).train()
        data = examples(spec, 64)
        if name == "text":
            ids = torch.randint(5, 1000, (64, 64), device=bench.device)
            inputs: dict[str, Any] = {"input_ids": ids}
        else:
            inputs, _ = data.batch(torch.arange(64).numpy(), bench.device)
        parameters = [p for p in model.parameters() if p.requires_grad]

        def step(
            call: nn.Module, inputs: dict[str, Any] = inputs, parameters: list[Any] = parameters
        ) -> None:
            with products("tf32"):
                with forward(bench.device, "bf16"):
                    logits = call(**inputs).logits
                torch.autograd.grad(logits.float().logsumexp(-1).sum(), parameters)

        plainly = fastest(bench.device, lambda s=step, m=model: s(m))
        bench.note(f"{name}: a pass", 1e3 * plainly, "ms")
        made = torch.compile(model)
        first = fastest(bench.device, lambda s=step, m=made: s(m), 1)
        quick = fastest(bench.device, lambda s=step, m=made: s(m))
        bench.note(f"{name}: compiled", 1e3 * quick, "ms")
        bench.note(f"{name}: compiled against not", quick / plainly)
        bench.note(f"{name}: first call after compiling", 1e3 * first, "ms")


def plans(bench: Bench) -> None:
    """What `fedlora plan` measures, against steps that were really trained."""
    for name, spec in _runs(bench).items():
        kind = get_task(spec.data.task)
        labels = 0 if kind.modality == "causal" else kind.num_labels
        spec = changed(spec, split={"clients": 1}, rounds={"cohort": None})
        rate = measured_rate(
            architecture(spec.model.backbone),
            labels,
            str(bench.device),
            precision=spec.precision,
            dtype=spec.model.dtype,
        )
        fed = federation(spec, bench.device, size=spec.local.batch_size)
        step = Trainer(fed).pace().step
        cost, flops = planned(spec, bench.device)
        share = flops * spec.local.steps / cost.training_flops
        passes = cost.forward_layers * rate.forward + cost.backward_layers * rate.backward
        expected = flops / rate.flops + share * passes / spec.local.steps
        bench.note(f"{name}: measured rate", rate.flops / 1e12, "TFLOP/s")
        bench.note(f"{name}: a step", 1e3 * step, "ms")
        bench.at_most(f"{name}: the plan's step / the measured one", expected / step, 2.0)
        bench.at_least(f"{name}: ... the other way", expected / step, 0.5)


def waits(bench: Bench) -> None:
    """How often the host waits for the GPU in one client's round, by the line that asks."""
    kinds = {name: changed(spec, local={"steps": 2}) for name, spec in _runs(bench).items()}
    kinds["text, DP"] = short(
        paper_run(TEXT, bench.profile, method_name="ffa-lora", private=True), bench.tiny, 2
    )
    for name, spec in kinds.items():
        trainer = Trainer(federation(spec, bench.device, shape=narrow(spec)))
        trainer.once()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                trainer.once()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        lines = Counter(
            f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in said if "synchroniz" in str(w.message)
        )
        bench.note(f"{name}: lines", ", ".join(f"{line} {n}" for line, n in lines.most_common(8)))
        bench.at_most(f"{name}: waits of a client's round of two steps", sum(lines.values()), 12)


def four_bits(bench: Bench) -> None:
    """A causal run on 4-bit weights."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Skipped("bitsandbytes is not installed")
    spec = changed(small_run(item=CAUSAL), model={"load_in_4bit": True})
    [found] = ask(
        bench.device, trained, (spec.model_dump_json(), str(bench.device), str(bench.folder / "bits"))
    )
    bench.at_least("peak", found["peak"], 1, "bytes")
