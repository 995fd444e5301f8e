"""How fast a device is: operations a second, and what each pass, round and run takes however small it is.

A large model's time is its operations over the device's rate. A small one's is mostly the passes themselves:
PyTorch spends some time on every layer of every pass, before any number is multiplied. Both are measured by a
few short training steps on random weights, or given.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.setup import resolve_device
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.planning.estimate import Estimate
from fedlora_kit.planning.operations import Adapters, backward_flops, forward_flops
from fedlora_kit.planning.shapes import Shape, random_model
from fedlora_kit.privacy.noise import noise_multiplier

#: with a rate that is given, not measured: seconds of a layer in a forward and in a backward pass, of a round
#: and of a run. Orders of magnitude of eager PyTorch on a GPU, not measurements.
GIVEN = (0.4e-3, 0.8e-3, 0.05, 10.0, 1.0)
#: the probe's model: layers, and the widest that it tries on a CPU and on a GPU
LAYERS, WIDEST = 2, {"cpu": 512, "cuda": 4096}
#: the probe's larger batch: at most so many tokens, and operations
TOKENS, FLOPS = 4096, 5e9
_LORA = LoraSettings(rank=8, alpha=8, targets=("q", "v"))


@dataclass(frozen=True)
class Rate:
    """The speed of a device for one kind of model.

    Attributes:
        flops: operations a second that large batches reach.
        forward, backward: seconds of a layer in a pass of one short example.
        round: seconds of a round besides training and scoring, the checkpoint mostly.
        run: seconds of a run besides its rounds.
        accounting: seconds of a DP run to search its noise.
        how: "measured" or "given".
    """

    flops: float
    forward: float
    backward: float
    round: float
    run: float
    accounting: float
    how: str

    def seconds(self, cost: Estimate) -> float:
        """Wall time of a run on one device, alone."""
        passes = cost.forward_layers * self.forward + cost.backward_layers * self.backward
        fixed = cost.rounds * self.round + self.run + cost.private * self.accounting
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
    return Rate(tflops * 1e12, *GIVEN, how="given")


@lru_cache(maxsize=64)
def measured_rate(shape: Shape, labels: int, device: str = "auto", threads: int = 1) -> Rate:
    """The rate of this machine for models of a shape: of its width, as far as that is tried, and family.

    Takes a second or two, and a moment's peace: other work on the machine slows the probe as it slows runs.

    Args:
        threads: of the CPU; a run of a notebook computes with one.
    """
    where = resolve_device(device)
    small = _probe_shape(shape, WIDEST[where.type])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = attach_lora(random_model(small, max(1, labels)), _LORA, seed=0).to(where)
        tokens = small.image_tokens or 64
        # large enough to tell its operations from its passes, small enough for a second
        rows = int(np.clip(min(TOKENS / tokens, FLOPS / _step_flops(small, tokens, labels)), 8, None))
        short, long = _batch(small, 1, 4, where), _batch(small, rows, tokens, where)
        forward, step = _time(model, short, train=False), _time(model, short, train=True)
        one = _step_flops(small, small.image_tokens or 4, labels)
        extra = max(1e-9, _time(model, long, train=True) - step)
        rate = (rows * _step_flops(small, tokens, labels) - one) / extra
        # the short batch has operations of its own, about a third of them forward
        alone, whole = forward - one / 3 / rate, step - one / rate
        return Rate(
            rate,
            max(0.0, alone) / (LAYERS + 1),
            max(0.0, whole - max(0.0, alone)) / (LAYERS + 1),
            _checkpoint_seconds(model),
            _build_seconds(small, labels),
            _search_seconds(),
            how="measured",
        )
    finally:
        torch.set_num_threads(before)


def _probe_shape(shape: Shape, widest: int) -> Shape:
    """The same family and width with few layers; a narrower one if that is too wide to try."""
    factor = max(1, -(-shape.width // widest))
    heads = max(1, shape.heads // factor)
    return replace(
        shape,
        layers=LAYERS,
        width=shape.width // shape.heads * heads,
        heads=heads,
        key_value_heads=min(heads, shape.key_value_heads),
        inner=max(1, shape.inner // factor),
        vocabulary=min(shape.vocabulary, 2000),
        positions=130 if shape.positions else 0,
    )


def _step_flops(shape: Shape, tokens: int, labels: int) -> float:
    adapters = Adapters(_LORA.rank, _LORA.targets)
    return forward_flops(shape, adapters, tokens, labels=labels) + backward_flops(
        shape, adapters, tokens, range(shape.layers), labels=labels
    )


def _batch(shape: Shape, rows: int, tokens: int, device: torch.device) -> dict[str, Any]:
    if shape.patch:
        return {"pixel_values": torch.zeros(rows, shape.channels, shape.image, shape.image, device=device)}
    ids = torch.full((rows, tokens), 5, device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _time(model: torch.nn.Module, batch: dict[str, Any], *, train: bool, repeats: int = 9) -> float:
    """Seconds of a forward pass, or of a whole training step; the median.

    On a CPU of the thread's own time, which leaves out what other work took away meanwhile.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    on_gpu = parameters[0].device.type == "cuda"
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    taken = []
    for _ in range(repeats + 2):
        start = clock()
        if train:
            optimizer.zero_grad(set_to_none=True)
            model(**batch).logits.float().logsumexp(-1).mean().backward()
            optimizer.step()
        else:
            with torch.no_grad():
                model(**batch)
        if on_gpu:
            torch.cuda.synchronize(parameters[0].device)
        taken.append(clock() - start)
    return median(taken[2:])  # the first ones warm up


@lru_cache(maxsize=1)
def _search_seconds() -> float:
    start = time.process_time()
    noise_multiplier(6.0, 1e-5, 0.01, 100, "rdp")
    return time.process_time() - start


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


def _build_seconds(shape: Shape, labels: int) -> float:
    start = time.process_time()
    attach_lora(random_model(shape, max(1, labels)), _LORA, seed=0)
    return time.process_time() - start
