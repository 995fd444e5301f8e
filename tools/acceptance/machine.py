"""What a device is, and what it reaches at most: products, copies, an empty kernel."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable

import torch

from acceptance.frame import Bench
from acceptance.worlds import wait
from fedlora_kit.devices import describe_gpu
from fedlora_kit.experiments.provenance import collect
from fedlora_kit.planning.gpus import recognised
from fedlora_kit.training.precision import passes_of, products


def environment(bench: Bench) -> None:
    """Versions, the GPU and its settings: no verdict."""
    record = collect(str(bench.device), 0.0)
    for name, version in record["versions"].items():
        bench.note(name, version)
    bench.note("bitsandbytes", importlib.util.find_spec("bitsandbytes") is not None)
    device = describe_gpu(bench.device) if bench.device.type == "cuda" else record["device"]
    for name, value in device.items():
        bench.note(f"device: {name}", value)
    if bench.device.type != "cuda":
        return
    for precision in ("fp32", "tf32", "bf16"):
        bench.note(f"settings during passes in {precision}", passes_of(precision, "fp32"))
    known = recognised(device["name"])
    bench.note("data sheet", known.name if known else None)
    for kernel in ("flash", "mem_efficient", "cudnn", "math"):
        bench.note(f"attention: {kernel} allowed", getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")())


def ceilings(bench: Bench) -> None:
    """The largest rates that anything below could reach on this device, now."""
    device, size = bench.device, 256 if bench.tiny else 8192
    for name, dtype, precision in (
        ("bf16", torch.bfloat16, "bf16"),
        ("tf32", torch.float32, "tf32"),
        ("fp32", torch.float32, "fp32"),
    ):
        one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with products(precision):
            seconds = fastest(device, lambda one=one, other=other: one @ other)
        bench.rates[name] = 2 * size**3 / seconds
        bench.note(f"{name} product of {size}^3", bench.rates[name] / 1e12, "TFLOP/s")
    numbers = 2**16 if bench.tiny else 2**28
    there = torch.empty(numbers, device=device)
    onto = torch.empty_like(there)
    seconds = fastest(device, lambda: onto.copy_(there))
    bench.note("copy on the device, read and written", 8 * numbers / seconds / 1e9, "GB/s")
    here = torch.empty(numbers // 4)
    for name, source in (
        ("pageable", here),
        ("pinned", here.pin_memory() if device.type == "cuda" else None),
    ):
        if source is not None:
            part = onto[: numbers // 4]
            seconds = fastest(device, lambda s=source, p=part: p.copy_(s, non_blocking=True))
            bench.note(f"copy from the host, {name}", numbers / seconds / 1e9, "GB/s")
    few = torch.zeros(8, device=device)

    def launches() -> None:
        for _ in range(1000):
            few.add_(1.0)

    bench.note("one small operation", fastest(device, launches) / 1000 * 1e6, "us")


def fastest(device: torch.device, body: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some calls, after one that warms up."""
    best = math.inf
    for turn in range(times + 1):
        wait(device)
        begun = time.perf_counter()
        body()
        wait(device)
        if turn:
            best = min(best, time.perf_counter() - begun)
    return best
