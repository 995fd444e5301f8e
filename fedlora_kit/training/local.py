"""What one client does in one round: take the adapter, train some steps, hand its tensors back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import Indices, physical_batches, poisson_batches, shuffled_batches
from fedlora_kit.data.encoded import EncodedData, for_training
from fedlora_kit.errors import NonFinite, NothingMoved
from fedlora_kit.methods.ranks import zero_beyond
from fedlora_kit.privacy.dpsgd import PerExampleGradients, private_optimizer, private_step
from fedlora_kit.randomness import Streams
from fedlora_kit.training.objective import example_losses
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
        NonFinite: the loss is NaN or infinite; the tensors are as after the last good step.
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
        inputs, labels = data.batch(indices, device)
        with _autocast(device, precision):
            logits = model(**inputs).logits
        return example_losses(logits, labels)  # (b,)

    lengths = data.lengths
    total, seen, steps = 0.0, 0, 0
    for batch in batches:
        pieces = physical_batches(lengths, batch, settings.max_tokens)
        if gradients is not None:
            loss = private_step(gradients, optimizer, pieces, losses)
        else:
            loss = _plain_step(
                optimizer, parameters, pieces, losses, len(batch), settings.clip_norm, penalty()
            )
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise NonFinite("loss", round_index, client)
        total, seen, steps = total + loss, seen + len(batch), steps + 1
    could_move = seen > 0 or (noise is not None and noise.sigma > 0)
    if could_move and not any(bool((p != b).any()) for p, b in zip(parameters, before, strict=True)):
        raise NothingMoved(
            f"{steps} steps of client {client} in round {round_index} changed no trained tensor",
            "every gradient was exactly zero: check targets, head policy and learning rate",
        )
    return LocalResult(total / seen if seen else float("nan"), seen, steps)


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
    """A fresh optimiser for one round."""
    rate = settings.rate(round_index)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)


def _plain_step(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    pieces: list[Indices],
    losses: Any,
    batch_size: int,
    clip_norm: float | None,
    penalty: torch.Tensor | None,
) -> float:
    """One step on the mean loss of a logical batch and the penalty; returns the sum of the losses."""
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for piece in pieces:
        loss = losses(piece).sum()
        total += float(loss.detach())
        (loss / batch_size).backward()
    if total != total or total in (float("inf"), float("-inf")):
        return total  # no step on a broken gradient
    if penalty is not None:
        penalty.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()
    return total


def _autocast(device: torch.device, precision: str) -> Any:
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
