"""What one client does in one round: take the adapter, train some steps, hand its tensors back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import (
    Indices,
    pass_tokens,
    physical_batches,
    poisson_batches,
    shuffled_batches,
)
from fedlora_kit.data.encoded import EncodedData, for_training
from fedlora_kit.errors import NonFinite, NothingMoved
from fedlora_kit.methods.ranks import zero_beyond
from fedlora_kit.privacy.dpsgd import PerExampleGradients, private_optimizer, private_step
from fedlora_kit.randomness import Streams
from fedlora_kit.training.objective import batch_losses
from fedlora_kit.training.precision import products
from fedlora_kit.training.settings import LocalSettings


@dataclass(frozen=True)
class Noise:
    """The DP setting of one client's step: noise multiplier, clipping norm, sampling rate q = B / n."""

    sigma: float
    clip: float
    sample_rate: float


@dataclass(frozen=True)
class LocalResult:
    """Outcome of a local training.

    Attributes:
        loss: mean loss over the examples seen (NaN if every Poisson sample was empty).
        examples: examples seen, with repetition.
        steps: optimiser steps taken.
    """

    loss: float
    examples: int
    steps: int


@products("fp32")
def train_client(
    model: nn.Module,
    slot: AdapterSlot,
    data: EncodedData,
    settings: LocalSettings,
    streams: Streams,
    *,
    round_index: int,
    client: int,
    device: torch.device,
    precision: str = "fp32",
    noise: Noise | None = None,
    gradients: PerExampleGradients | None = None,
    rank: int | None = None,
    penalty: Callable[[], torch.Tensor | None] = lambda: None,
) -> LocalResult:
    """Train the tensors that are trainable in ``slot`` on the client's data, in place.

    Args:
        noise, gradients: both given for DP-SGD, both None otherwise.
        rank: directions beyond it are set to zero after every step (DP's noise and weight decay included).
        penalty: a term that each step adds to the mean loss, if it gives one; not under DP. It is not in
            the loss that is reported.

    Raises:
        NonFinite: a loss was NaN or infinite. The host reads the losses once, at the end.
        NothingMoved: the steps changed nothing (the typical silent failure).
    """
    parameters = [slot.parameters[name] for name in slot.trainable]
    before = [p.detach().clone() for p in parameters]
    optimizer = make_optimizer(parameters, settings, round_index)
    if rank is not None:
        trained = {name: slot.parameters[name] for name in slot.trainable}
        optimizer.register_step_post_hook(lambda *_: zero_beyond(trained, rank))
    torch.manual_seed(streams.seed("dropout", round_index, client))
    data = for_training(data, streams.generator("augment", round_index, client))
    batches = logical_batches(len(data), settings, streams, round_index, client, noise)
    if noise is not None:
        generator = torch.Generator(device).manual_seed(streams.seed("noise", round_index, client))
        optimizer = private_optimizer(
            optimizer,
            sigma=noise.sigma,
            clip=noise.clip,
            expected_batch_size=noise.sample_rate * len(data),
            generator=generator,
        )

    def losses(indices: Indices) -> torch.Tensor:
        return batch_losses(model, data, indices, device, precision)  # (b,)

    passes = partial(products, precision)
    lengths, price = data.lengths, pass_tokens(device)
    sums, seen = [], 0
    for batch in batches:
        pieces = physical_batches(lengths, batch, settings.max_tokens, price)
        if gradients is not None:
            loss = private_step(gradients, optimizer, pieces, losses, passes)
        else:
            with passes():
                loss = _gradient(parameters, pieces, losses, len(batch))
            _step(optimizer, parameters, settings.clip_norm, penalty())
        sums.append(loss)
        seen += len(batch)
    moved = (_side_by_side(parameters) != _side_by_side(before)).any()
    *read, has_moved = torch.stack([*sums, moved.to(torch.float64)]).tolist()  # one wait for the device
    total = 0.0
    for value in read:
        if not math.isfinite(value):
            raise NonFinite("loss", round_index, client)
        total += value
    could_move = seen > 0 or (noise is not None and noise.sigma > 0)
    if could_move and not has_moved:
        raise nothing_moved(len(sums), client, round_index, slot.trainable, slot.parameters)
    return LocalResult(total / seen if seen else float("nan"), seen, len(sums))


def nothing_moved(
    steps: int, client: int, round_index: int, trained: Sequence[str], adapter: Mapping[str, torch.Tensor]
) -> NothingMoved:
    """The error of a local training that moved nothing, with its cause where the adapter shows it.

    Args:
        trained: names of the tensors that trained.
        adapter: the whole adapter.
    """
    problem = f"{steps} steps of client {client} in round {round_index + 1} changed no trained tensor"
    beside = [adapter.get(name.replace(".lora_A.", ".lora_B.")) for name in trained]
    alone = all(".lora_A." in name for name in trained)
    if trained and alone and not any(b is not None and bool(b.any()) for b in beside):
        return NothingMoved(
            f"{problem}: A trains alone, and B is zero, so that the gradient of A is zero",
            "B is zero at the start: let it train in the first round, alone or with A",
        )
    return NothingMoved(
        problem, "every gradient was exactly zero: check targets, head policy and learning rate"
    )


def _side_by_side(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def logical_batches(
    n: int, settings: LocalSettings, streams: Streams, round_index: int, client: int, noise: Noise | None
) -> Iterable[Indices]:
    """The local steps' batches of a client of ``n`` examples: shuffled, or Poisson samples under DP."""
    if noise is None:
        rng = streams.generator("data", round_index, client)
        return shuffled_batches(n, settings.batch_size, settings.steps, rng)
    return poisson_batches(n, noise.sample_rate, settings.steps, streams.seed("data", round_index, client))


def make_optimizer(
    parameters: list[nn.Parameter], settings: LocalSettings, round_index: int
) -> torch.optim.Optimizer:
    """A fresh optimiser for one round; on a GPU a step is one kernel."""
    rate, decay = settings.rate(round_index), settings.weight_decay
    fused = True if all(p.is_cuda for p in parameters) else None
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=fused
        )
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused)


def _gradient(
    parameters: Sequence[nn.Parameter], pieces: Sequence[Indices], losses: Any, batch_size: int
) -> torch.Tensor:
    """Leave the gradient of the mean loss of a logical batch; returns the losses' sum, a float64 scalar."""
    for p in parameters:
        p.grad = None
    total = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    for piece in pieces:
        loss = losses(piece).sum()
        (loss / batch_size).backward()
        total = total + loss.detach().double()
    return total


def _step(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    clip_norm: float | None,
    penalty: torch.Tensor | None,
) -> None:
    if penalty is not None:
        penalty.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()
