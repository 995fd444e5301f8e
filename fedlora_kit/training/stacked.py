"""Local training of several clients in one forward and backward pass over the frozen backbone.

What one client does is what `training.local` says, which is the reference: the same batches, the same noise,
the same optimiser, to rounding. All that trains lies in one tensor, a row a client, (K, D): clipping, the
optimiser and every check are then one operation for all clients and tensors instead of one each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedlora_kit.adapter import State
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.errors import NonFinite
from fedlora_kit.privacy.stacked import clipped_sums, draw_noise
from fedlora_kit.randomness import Streams
from fedlora_kit.training.local import LocalResult, Noise, make_optimizer, nothing_moved
from fedlora_kit.training.lora_stack import LoraStack, Tensors
from fedlora_kit.training.objective import losses_of
from fedlora_kit.training.precision import products
from fedlora_kit.training.settings import LocalSettings
from fedlora_kit.training.stack_batches import Piece, StackLoader


@dataclass(frozen=True)
class Member:
    """One client of a stack.

    Attributes:
        client: client id.
        data: its examples.
        start: the adapter that it begins with, truncated to its rank.
        trains: names of the tensors that train here, in model order.
        rank: directions beyond it stay zero; None for the adapter's own rank.
        noise: its DP setting; None without DP.
    """

    client: int
    data: EncodedData
    start: State
    trains: Sequence[str]
    rank: int | None = None
    noise: Noise | None = None


class _Flat:
    """The stack's trained tensors side by side, (K, D), and what of each client may move."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        start = members[0].start
        trained = {n for m in members for n in m.trains}
        self.names = [n for n in start if n in trained]
        self.shapes = [start[n].shape for n in self.names]
        self.sizes = [start[n].numel() for n in self.names]
        self.fixed = {n: torch.stack([m.start[n] for m in members]) for n in start if n not in trained}
        whole = torch.stack([torch.cat([m.start[n].reshape(-1) for n in self.names]) for m in members])
        self.start = whole.to(device)  # (K, D)
        self.values = nn.Parameter(self.start.clone())
        every = len(self.names)
        #: (K, D), what trains at all; None if everything does at every client
        self.trained = (
            None if all(len(m.trains) == every for m in members) else self._mask(members, device, ranks=False)
        )
        #: the same without what lies beyond a client's rank
        self.moves = (
            self.trained if all(m.rank is None for m in members) else self._mask(members, device, ranks=True)
        )

    def _mask(self, members: Sequence[Member], device: torch.device, ranks: bool) -> torch.Tensor:
        rows = []
        for m in members:
            parts = []
            for name, shape in zip(self.names, self.shapes, strict=True):
                part = torch.full(shape, name in m.trains, device=device)
                if ranks and m.rank is not None and ".lora_A" in name:
                    part[m.rank :] = False
                if ranks and m.rank is not None and ".lora_B" in name:
                    part[:, m.rank :] = False
                parts.append(part.reshape(-1))
            rows.append(torch.cat(parts))
        return torch.stack(rows)

    def fixed_rows(self, owners: torch.Tensor) -> Tensors:
        """What does not train, for each row its client's, (R, \\*shape); one client's is not copied."""
        if len(self.values) == 1:
            return {n: t.expand(len(owners), *t.shape[1:]) for n, t in self.fixed.items()}
        return {n: t.index_select(0, owners) for n, t in self.fixed.items()}

    def tensors(self, flat: torch.Tensor, fixed: Mapping[str, torch.Tensor]) -> Tensors:
        """Name -> (G, \\*shape) out of (G, D), and the tensors that do not train."""
        parts = torch.split(flat, self.sizes, dim=1)
        shaped = {n: p.view(len(flat), *s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}
        return {**shaped, **fixed}

    @torch.no_grad()
    def hold(self) -> None:
        """Undo what a step did where a client trains nothing: weight decay and noise reach that, too."""
        if self.moves is not None:
            self.values.copy_(torch.where(self.moves, self.values, self.start))


@products("fp32")
def train_stack(
    model: nn.Module,
    stack: LoraStack,
    members: Sequence[Member],
    settings: LocalSettings,
    streams: Streams,
    *,
    round_index: int,
    device: torch.device,
    precision: str = "fp32",
) -> list[tuple[State, LocalResult]]:
    """Train all members; returns each one's trained tensors and result, in their order.

    A model with dropout draws it as a client alone does, and so for one member only.

    Raises:
        NonFinite: some client's loss or tensors became NaN or infinite (not necessarily the client that would
            have been first, client after client).
        NothingMoved: the steps changed nothing at some client.
    """
    torch.manual_seed(streams.seed("dropout", round_index, members[0].client))
    flat = _Flat(members, device)
    optimizer = make_optimizer([flat.values], settings, round_index)
    loader = StackLoader(
        [(m.client, m.data, m.noise) for m in members], settings, streams, round_index, device
    )
    private = members[0].noise is not None
    clips = torch.tensor([m.noise.clip if m.noise else 0.0 for m in members], device=device)
    generators = [
        torch.Generator(device).manual_seed(streams.seed("noise", round_index, m.client)) for m in members
    ]
    losses, seen = [], [0] * len(members)
    for _ in range(settings.steps):
        sizes, pieces = loader.step()
        seen = [before + size for before, size in zip(seen, sizes, strict=True)]
        with stack.installed():
            if private:
                total, gradient = _private(model, stack, flat, pieces, precision, clips)
            else:
                total, gradient = _plain(model, stack, flat, pieces, precision)
        losses.append(total)
        if private:
            gradient = _noised(gradient, flat, members, generators)
        elif settings.clip_norm is not None:
            norms = gradient.norm(2, dim=1, keepdim=True)  # (K, 1): each client's own
            gradient = gradient * (settings.clip_norm / (norms + 1e-6)).clamp(max=1.0)
        flat.values.grad = gradient
        optimizer.step()
        flat.hold()
    return _finished(flat, members, torch.stack(losses), seen, round_index)


def _plain(
    model: nn.Module, stack: LoraStack, flat: _Flat, pieces: Sequence[Piece], precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of losses, (K,), and gradients of the means, (K, D)."""
    totals = flat.values.new_zeros(len(flat.values))
    flat.values.grad = None
    for piece in pieces:
        with products(precision):
            if piece.equal:
                stack.tensors = flat.tensors(flat.values, flat.fixed)
            else:  # a row a group: each takes its client's tensors along
                rows = _Copies.apply(flat.values, piece.owners)  # type: ignore[no-untyped-call]
                stack.tensors = flat.tensors(rows, flat.fixed_rows(piece.owners))
            losses = losses_of(model, piece.inputs, piece.truth, precision)  # (R,)
            (losses * piece.shares).sum().backward()  # type: ignore[no-untyped-call]
        totals += _sums(losses.detach(), piece.owners, len(totals))
    gradient = flat.values.grad
    assert gradient is not None
    return totals, gradient if flat.trained is None else gradient * flat.trained


def _private(
    model: nn.Module,
    stack: LoraStack,
    flat: _Flat,
    pieces: Sequence[Piece],
    precision: str,
    clips: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of losses, (K,), and sums of clipped gradients, (K, D)."""
    totals = flat.values.new_zeros(len(flat.values))
    sums = torch.zeros_like(flat.values)
    for piece in pieces:
        owners = piece.owners
        rows = flat.values.detach().index_select(0, owners).requires_grad_()  # (R, D): a copy an example
        with products(precision):
            stack.tensors = flat.tensors(rows, flat.fixed_rows(owners))
            losses = losses_of(model, piece.inputs, piece.truth, precision)
            losses.sum().backward()  # type: ignore[no-untyped-call]
        gradients = rows.grad
        assert gradients is not None
        totals += _sums(losses.detach(), owners, len(totals))
        if flat.trained is not None:
            gradients = gradients * flat.trained[owners]
        sums += clipped_sums(gradients, owners, clips, len(clips))
    return totals, sums


class _Copies(torch.autograd.Function):
    """Each row's copy of its client's values, (K, D) -> (R, D); the gradient is summed in a fixed order."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(owners)
        ctx.clients = len(values)
        return values.index_select(0, owners)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        (owners,) = ctx.saved_tensors
        return _sums(gradient, owners, ctx.clients), None


def _sums(rows: torch.Tensor, owners: torch.Tensor, clients: int) -> torch.Tensor:
    """Each client's sum of its rows, (R, \\*shape) -> (K, \\*shape).

    A GPU adds up rows by place in no fixed order: there it is a product with zeros and ones, in IEEE float32.
    """
    if not rows.is_cuda:
        return rows.new_zeros(clients, *rows.shape[1:]).index_add_(0, owners, rows)
    ones = torch.arange(clients, device=owners.device)[:, None] == owners  # (K, R)
    with products("fp32"):
        return ones.to(rows.dtype) @ rows


def _noised(
    sums: torch.Tensor, flat: _Flat, members: Sequence[Member], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """(K, D): noise added, divided by each client's expected batch size q n."""
    rows = []
    for k, m in enumerate(members):
        assert m.noise is not None
        own = [shape for n, shape in zip(flat.names, flat.shapes, strict=True) if n in m.trains]
        drawn = iter(draw_noise(m.noise.sigma * m.noise.clip, own, generators[k], sums))
        parts = [
            next(drawn).reshape(-1) if n in m.trains else sums.new_zeros(size)
            for n, size in zip(flat.names, flat.sizes, strict=True)
        ]
        rows.append((sums[k] + torch.cat(parts)) / (m.noise.sample_rate * len(m.data)))
    return torch.stack(rows)


def _finished(
    flat: _Flat, members: Sequence[Member], losses: torch.Tensor, seen: Sequence[int], round_index: int
) -> list[tuple[State, LocalResult]]:
    """What each member leaves; ``losses``: (steps, K). The host waits for the device here, once."""
    values = flat.values.detach()
    finite = torch.isfinite(values).all(1)
    moved = (values != flat.start).any(1)
    *by_step, all_finite, any_moved = torch.cat(
        [losses, finite.to(losses.dtype)[None], moved.to(losses.dtype)[None]]
    ).tolist()
    totals = [0.0] * len(members)
    for step in by_step:
        for k, loss in enumerate(step):
            if not math.isfinite(loss):
                raise NonFinite("loss", round_index, members[k].client)
            totals[k] += loss
    out = []
    for k, m in enumerate(members):
        if not all_finite[k]:
            raise NonFinite("adapter", round_index, m.client)
        could_move = seen[k] > 0 or (m.noise is not None and m.noise.sigma > 0)
        if could_move and not any_moved[k]:
            raise nothing_moved(len(by_step), m.client, round_index, m.trains, m.start)
        tensors = flat.tensors(values[k : k + 1].clone(), {})
        state = {n: tensors[n][0] for n in m.trains}
        loss = totals[k] / seen[k] if seen[k] else float("nan")
        out.append((state, LocalResult(loss, seen[k], len(by_step))))
    return out
