"""How fast a device is: operations a second, and what each pass, round and run takes however small it is.

A large model's time is its operations over the device's rate, which depends on the number format. A small
one's is mostly the passes themselves: PyTorch spends some time on every layer of every pass, before any
number is multiplied. Both are measured by a few short training steps on random weights, taken from a GPU's
data sheet, or given.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fedlora_kit.devices import computing_on, gpu_name, resolve_device
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.models.backbones import Dtype
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.targets import ALL_LINEAR, lora_targets
from fedlora_kit.planning.architectures import (
    Architecture,
    empty_image,
    empty_model,
    image_tokens,
    random_model,
)
from fedlora_kit.planning.estimate import Estimate
from fedlora_kit.planning.gpus import SHARE, Gpu, recognised
from fedlora_kit.planning.operations import operations
from fedlora_kit.training.precision import Precision, forward, products

#: with a rate that is not measured: seconds of a layer in a forward and in a backward pass, of a round and of
#: a run. Orders of magnitude of eager PyTorch on a GPU, not measurements.
GIVEN = (0.4e-3, 0.8e-3, 0.05, 10.0)
#: the probe's model: layers, and the widest that it tries on a CPU and on a GPU
LAYERS, WIDEST = 2, {"cpu": 512, "cuda": 4096}
#: a batch is large when its step takes so many times a short one's; the probe grows it for so many seconds
LARGE, BUDGET = 5.0, 8.0
#: ... and up to so many tokens
MOST = 2**23
_LORA = LoraSettings(rank=8, alpha=8, targets=("q", "v"))


@dataclass(frozen=True)
class Rate:
    """The speed of a device for one kind of model.

    Attributes:
        flops: operations a second that large batches reach.
        forward, backward: seconds of a layer in a pass of one short example.
        round: seconds of a round besides training and scoring, the checkpoint mostly.
        run: seconds of a run besides its rounds.
        how: "measured", "published" or "given".
        gpu: whether the device is one: batches are cut as for a GPU.
    """

    flops: float
    forward: float
    backward: float
    round: float
    run: float
    how: str
    gpu: bool = False

    def seconds(self, cost: Estimate) -> float:
        """Wall time of a run on one device, alone."""
        passes = cost.forward_layers * self.forward + cost.backward_layers * self.backward
        fixed = cost.rounds * self.round + self.run
        return cost.flops / self.flops + passes + fixed


def given_rate(tflops: float) -> Rate:
    """A device that is not at hand, by the operations a second that it is known to reach in training.

    Args:
        tflops: 10^12 operations a second; what training reaches, which is a third to a half of the data
        sheet's.

    Raises:
        BadValue: not a positive number.
    """
    if not 0 < tflops < float("inf"):
        raise BadValue(f"tflops={tflops}", "give a positive number, such as 100")
    return Rate(tflops * 1e12, *GIVEN, how="given", gpu=True)


def published_rate(gpu: Gpu, precision: str = "fp32", dtype: str = "fp32", share: float = SHARE) -> Rate:
    """A device that is not at hand, by its data sheet.

    Args:
        precision, dtype: of a run.
        share: what training reaches of the peak; over 0, at most 1.

    Raises:
        BadValue: see `gpus.Gpu.peak`; no such share.
    """
    if not 0 < share <= 1:
        raise BadValue(f"share={share}", "give what training reaches of the peak: over 0, at most 1")
    return Rate(share * gpu.peak(precision, dtype), *GIVEN, how="published", gpu=True)


@lru_cache(maxsize=64)
def measured_rate(
    shape: Architecture,
    labels: int,
    device: str = "auto",
    threads: int = 1,
    precision: Precision = "fp32",
    dtype: Dtype = "fp32",
) -> Rate:
    """The rate of this machine for models of a shape: of its width, as far as that is tried, and family.

    Takes some seconds, and a moment's peace: other work on the machine slows the probe as it slows runs.

    Args:
        threads: of the CPU; a run of a notebook computes with one.
        precision, dtype: of the passes, and of the frozen weights.

    Raises:
        FedloraError: the times tell no rate, or one above the GPU's data sheet.
    """
    where = resolve_device(device)
    small = _probe_shape(shape, WIDEST[where.type])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            bare = random_model(small, labels)
            lora = _lora(small, labels)
            model = attach_lora(bare.to(torch.bfloat16) if dtype == "bf16" else bare, lora, seed=0).to(where)

        def seconds(rows: int, tokens: int, train: bool) -> float:
            with products(precision):
                return _time(model, _batch(small, rows, tokens, where), precision, train=train)

        flops, one_way, both_ways = _fit(seconds, small, labels)
        _check_peak(flops, where, precision, dtype)
        rest = _checkpoint_seconds(model), _build_seconds(small, labels)
        return Rate(flops, one_way, both_ways, *rest, how="measured", gpu=where.type == "cuda")
    finally:
        torch.set_num_threads(before)


def _fit(
    seconds: Callable[[int, int, bool], float], shape: Architecture, labels: int
) -> tuple[float, float, float]:
    """Operations a second, and seconds of a layer in a forward and in a backward pass.

    The rate is that between two large batches, one twice the other. The passes' own time is the same in both,
    and hidden in both where the device computes while the host prepares.

    Args:
        seconds: of a forward pass or a whole step (``True``), by rows and tokens of each.

    Raises:
        FedloraError: the larger batch took no longer.
    """
    tokens = image_tokens(shape) or 64
    once, step = seconds(1, 4, False), seconds(1, 4, True)
    end = time.perf_counter() + BUDGET
    rows, taken = 8, seconds(8, tokens, True)
    try:
        while taken < LARGE * step and rows * tokens < MOST and time.perf_counter() < end:
            rows = int(rows * min(8.0, max(1.5, 1.1 * LARGE * step / taken)))
            taken = seconds(rows, tokens, True)
        longer = seconds(2 * rows, tokens, True) - taken
    except torch.OutOfMemoryError:
        rows = max(1, rows // 4)
        longer = -seconds(rows, tokens, True) + seconds(2 * rows, tokens, True)
    half = _step_flops(shape, tokens, labels) * rows
    if longer <= 0:
        raise FedloraError(
            "the probe cannot tell the device's rate: twice the batch took no longer",
            "try again when the machine is idle, or give --gpu or --tflops",
        )
    flops = half / longer
    # the short batch has operations of its own, about a third of them forward
    one = _step_flops(shape, image_tokens(shape) or 4, labels)
    alone, whole = max(0.0, once - one / 3 / flops), max(0.0, step - one / flops)
    return flops, alone / (LAYERS + 1), max(0.0, whole - alone) / (LAYERS + 1)


def _check_peak(flops: float, device: torch.device, precision: str, dtype: str) -> None:
    """Refuse a measurement that the device cannot reach."""
    if device.type != "cuda":
        return
    name = gpu_name(device)
    known = recognised(name)
    if known is not None and flops > known.peak(precision, dtype):
        raise FedloraError(
            f"the probe found {flops / 1e12:,.0f} TFLOP/s on {name}, whose data sheet ends at "
            f"{known.peak(precision, dtype) / 1e12:g}",
            f"try again when the machine is idle, or give --gpu {known.name} or --tflops",
        )


def _probe_shape(shape: Architecture, widest: int) -> Architecture:
    """The same family and width with few layers; a narrower one if that is too wide to try."""
    config = shape.config
    factor = max(1, -(-config.hidden_size // widest))
    heads = max(1, config.num_attention_heads // factor)
    fields = {
        "num_hidden_layers": LAYERS,
        "hidden_size": config.hidden_size // config.num_attention_heads * heads,
        "num_attention_heads": heads,
    }
    if getattr(config, "intermediate_size", None):
        fields["intermediate_size"] = max(1, config.intermediate_size // factor)
    if getattr(config, "num_key_value_heads", None):
        fields["num_key_value_heads"] = min(heads, config.num_key_value_heads)
    if shape.kind != "image":
        if getattr(config, "pad_token_id", None) is None:  # a decoder that classifies looks for it
            fields["pad_token_id"] = 0
        fields["vocab_size"] = min(config.vocab_size, 2000)
        fields["max_position_embeddings"] = max(130, getattr(config, "max_position_embeddings", 0))
    return shape.changed(**fields)


def _lora(shape: Architecture, labels: int) -> LoraSettings:
    """The probe's adapter: on q and v, or where they are one with k on all linear modules."""
    try:
        lora_targets(empty_model(shape, labels), _LORA.targets)
    except FedloraError:
        return _LORA.model_copy(update={"targets": (ALL_LINEAR,)})
    return _LORA


def _step_flops(shape: Architecture, tokens: int, labels: int) -> float:
    cost = operations(shape, labels, _lora(shape, labels)).step(tokens, [True] * shape.layers)
    return cost.forward_flops + cost.backward_flops


def _batch(shape: Architecture, rows: int, tokens: int, device: torch.device) -> dict[str, Any]:
    if shape.kind == "image":
        return {"pixel_values": empty_image(shape, rows, device)}
    ids = torch.full((rows, tokens), 5, device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _time(model: torch.nn.Module, batch: dict[str, Any], precision: str, *, train: bool) -> float:
    """Seconds of a forward pass, or of a whole training step; the median of nine, of three that take long.

    On a CPU of the thread's own time, which leaves out what other work took away meanwhile.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    taken: list[float] = []
    while len(taken) < 4 or (len(taken) < 11 and sum(taken) < 0.5):
        start = clock()
        if train:
            optimizer.zero_grad(set_to_none=True)
            with forward(device, precision):
                logits = model(**batch).logits
            logits.float().logsumexp(-1).mean().backward()
            with computing_on(device):
                optimizer.step()
        else:
            with torch.no_grad(), forward(device, precision):
                model(**batch)
        if on_gpu:
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return median(taken[min(2, len(taken) - 3) :])  # the first ones warm up


def _checkpoint_seconds(model: torch.nn.Module) -> float:
    tensors = {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder) / "checkpoints")
        taken = []
        for r in range(4):
            start = time.process_time()
            checkpoints.save(r, tensors, {"history": [], "ledger": None})
            taken.append(time.process_time() - start)
    return median(taken)


def _build_seconds(shape: Architecture, labels: int) -> float:
    start = time.process_time()
    attach_lora(random_model(shape, labels), _lora(shape, labels), seed=0)
    return time.process_time() - start
