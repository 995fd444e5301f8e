"""The papers' runs with random weights and made-up examples: no network, no files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot, State
from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.data.tasks import get_task
from fedlora_kit.devices import peak_bytes, reset_peak
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import method
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import attach_lora
from fedlora_kit.models.memory import checkpoint_gradients
from fedlora_kit.papers.runs_of import planned_runs
from fedlora_kit.planning.amounts import amounts
from fedlora_kit.planning.architectures import Architecture, architecture, image_tokens, random_model
from fedlora_kit.planning.estimate import Estimate, estimate
from fedlora_kit.randomness import Streams
from fedlora_kit.training.cohort import Cohort
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.noise_plan import noise_of_clients
from fedlora_kit.training.precision import products

CPU = torch.device("cpu")


def paper_run(
    item: str, profile: str, task: str = "", method_name: str = "lora", private: bool = False
) -> RunSpec:
    """The first of an item's runs of such a kind.

    Raises:
        LookupError: it has none.
    """
    for spec in _runs(item, profile):
        wanted = (task or spec.data.task, method_name, private)
        if (spec.data.task, spec.method.name, spec.privacy is not None) == wanted:
            return spec
    raise LookupError(f"{item} has no run of {method_name} on {task}, private={private}, in {profile}")


@lru_cache(maxsize=16)
def _runs(item: str, profile: str) -> list[RunSpec]:
    return planned_runs(item, profile).specs()


def changed(spec: RunSpec, **parts: Any) -> RunSpec:
    """The run with some fields of its parts, such as ``local={"steps": 2}``, or whole ones, replaced."""
    whole = spec.model_dump(mode="json")
    for name, part in parts.items():
        whole[name] = {**whole[name], **part} if isinstance(part, Mapping) and whole[name] else part
    return RunSpec.parse(whole)


def short(spec: RunSpec, tiny: bool, steps: int = 3, **parts: Any) -> RunSpec:
    """One round of a few steps that scores next to nothing; in the tiny form with small batches."""
    local = {"steps": 2, "batch_size": min(8, spec.local.batch_size)} if tiny else {"steps": steps}
    data = {"holdout": 0, "eval_limit": 1}
    given = {"local": {**local, **parts.pop("local", {})}, "data": {**data, **parts.pop("data", {})}}
    return changed(spec, rounds={"rounds": 1, "eval_every": 0}, **given, **parts)


class Words:
    """As much of a tokenizer as encoded answers need."""

    eos_token_id, pad_token_id = 2, 0

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, tokens))


def examples(spec: RunSpec, n: int, seed: int = 0, shape: Architecture | None = None) -> EncodedData:
    """Random tokens or pixels, as many an example as the run's data has (`planning.amounts`)."""
    rng, kind, shape = (
        np.random.default_rng(seed),
        get_task(spec.data.task),
        shape or architecture(spec.model.backbone),
    )
    labels = rng.integers(0, max(1, kind.num_labels), size=n).astype(np.int64)
    if kind.modality == "image":
        image, channels = shape.config.image_size, shape.config.num_channels
        pixels = rng.integers(0, 256, size=(n, channels, min(32, image), min(32, image)), dtype=np.uint8)
        half = (0.5,) * channels
        wanted = ImageInput(image, channels, half, half, image_tokens(shape))
        return EncodedImages(pixels, labels, wanted=wanted, augment=spec.data.augment)
    part = amounts(spec).train
    rows = rng.integers(0, len(part.lengths), size=n)
    lengths = np.maximum(4, part.lengths[rows])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = rng.integers(5, shape.config.vocab_size, size=int(offsets[-1])).astype(np.int32)
    if kind.modality == "text":
        return EncodedText({"input_ids": tokens}, offsets, labels, {"input_ids": 1})
    prompts = np.clip(part.prompts[rows], 1, lengths - 2)
    tokens[offsets[1:] - 1] = Words.eos_token_id
    new = spec.data.max_new_tokens or kind.max_new_tokens
    return EncodedCausal(tokens, offsets, prompts, labels * 0, (("1",),) * n, Words(), new, kind.metric)


def model_of(
    spec: RunSpec,
    device: torch.device,
    shape: Architecture | None = None,
    drawn_on: torch.device | None = None,
) -> nn.Module:
    """The run's model with LoRA and random weights, drawn on the device itself unless another is named."""
    shape, origin = shape or architecture(spec.model.backbone), drawn_on or device
    kind = get_task(spec.data.task)
    with torch.random.fork_rng(devices=[origin] if origin.type == "cuda" else []):
        torch.manual_seed(0)
        bare = random_model(shape, 0 if kind.modality == "causal" else kind.num_labels, str(origin))
    if spec.model.dtype == "bf16":
        bare = bare.to(torch.bfloat16)
    read_first_token(bare)
    if spec.model.gradient_checkpointing:
        checkpoint_gradients(bare)
    return attach_lora(bare, spec.model.lora, seed=1).to(device)


def federation(
    spec: RunSpec,
    device: torch.device,
    *,
    clients: int = 1,
    size: int | None = None,
    model: nn.Module | None = None,
    shape: Architecture | None = None,
    drawn_on: torch.device | None = None,
) -> Federation:
    """The run's federation in memory, with so many clients, all of which train in each round.

    Args:
        size: examples of each; None for some batches' worth.
    """
    n = size or 4 * spec.local.batch_size
    chosen = method(spec.method.name, **spec.method.settings)
    parts = [examples(spec, n, 10 + k, shape) for k in range(clients)]
    return Federation(
        model=model if model is not None else model_of(spec, device, shape, drawn_on),
        method=chosen,
        clients=parts,
        evals={"made up": examples(spec, min(n, 16), 7, shape)},
        rounds=spec.rounds.model_copy(update={"cohort": None}),
        local=spec.local,
        streams=Streams(spec.seed),
        head=spec.model.lora.head,
        privacy=spec.privacy,
        device=device,
        precision=spec.precision,
        proxy=examples(spec, chosen.proxy_examples, 8, shape) if chosen.proxy_examples else None,
        server=examples(spec, 16, 9, shape) if chosen.server_stage else None,
    )


def narrow(spec: RunSpec, layers: int = 2) -> Architecture:
    """The backbone's own width with few layers and a small vocabulary."""
    shape = architecture(spec.model.backbone)
    words: int | None = getattr(shape.config, "vocab_size", None)
    small = {} if words is None else {"vocab_size": min(2000, words)}
    return shape.changed(num_hidden_layers=min(layers, shape.layers), **small)


@dataclass(frozen=True)
class Pace:
    """Local trainings, measured.

    Attributes:
        step: seconds of one step of one client.
        peak: largest bytes that tensors held on a GPU, and that were taken from it.
    """

    step: float
    peak: int | None
    reserved: int | None


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Trainer:
    """A federation's local trainings alone, again and again from the same adapter."""

    def __init__(self, fed: Federation) -> None:
        self.fed, self.slot = fed, AdapterSlot(fed.model)
        self.state: State = self.slot.read()
        noise = noise_of_clients(
            fed.privacy, [len(c) for c in fed.clients], fed.local.batch_size, fed.local.steps
        )
        self.cohort = Cohort(fed, self.slot, noise)

    def once(self, round_index: int = 0) -> None:
        """Every client's training of one round."""
        with products("fp32"), self.cohort.hooks:
            self.fed.model.train()
            everyone = range(len(self.fed.clients))
            for _ in self.cohort.train(self.state, {}, everyone, round_index):
                pass
            wait(self.fed.device)

    def pace(self, times: int = 2) -> Pace:
        """The fastest of some rounds, after one that warms up."""
        self.once()
        reset_peak(self.fed.device)
        taken = []
        for r in range(1, times + 1):
            begun = time.perf_counter()
            self.once(r)
            taken.append(time.perf_counter() - begun)
        peak = peak_bytes(self.fed.device)
        steps = self.fed.local.steps * len(self.fed.clients)
        return Pace(min(taken) / steps, peak["cuda"], peak["cuda_reserved"])


def planned(spec: RunSpec, device: torch.device) -> tuple[Estimate, float]:
    """The plan of a run on such a device, and the operations of one step of one client in it."""
    cost = estimate(spec, gpu=device.type == "cuda")
    visits = spec.rounds.rounds * (spec.rounds.cohort or spec.split.clients)
    return cost, cost.training_flops / (visits * spec.local.steps)
