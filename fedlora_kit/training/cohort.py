"""The local trainings of one round: client after client, or several in one pass (`training.stacked`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot, State, all_finite
from fedlora_kit.data.encoded import EncodedData
from fedlora_kit.errors import BadValue, NonFinite, NothingMoved
from fedlora_kit.methods.base import Method
from fedlora_kit.methods.ranks import truncated
from fedlora_kit.models.targets import layer_index
from fedlora_kit.privacy.dpsgd import PerExampleGradients
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.local import LocalResult, Noise, train_client
from fedlora_kit.training.lora_stack import LoraStack
from fedlora_kit.training.settings import LocalSettings
from fedlora_kit.training.stackable import (
    limits,
    tokens_per_example,
    why_not_client,
    why_not_model,
    why_not_together,
)
from fedlora_kit.training.stacked import Member, train_stack


class Setting(Protocol):
    """What of a federation its local trainings depend on (`training.federation.Federation` is one)."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def method(self) -> Method: ...
    @property
    def clients(self) -> Sequence[EncodedData]: ...
    @property
    def local(self) -> LocalSettings: ...
    @property
    def streams(self) -> Streams: ...
    @property
    def privacy(self) -> PrivacySettings | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class Trained:
    """One client after its local training.

    Attributes:
        client: client id.
        start: the whole adapter that it began with, truncated to its rank.
        tensors: what trained, as it is now.
        result: losses and counts.
    """

    client: int
    start: State
    tensors: State
    result: LocalResult


class Cohort:
    """Trains the clients of a round, from the global adapter and each one's own tensors.

    Args:
        fed: the federation.
        slot: the adapter's place in its model.
        noise: each client's DP setting; None without DP.

    Raises:
        BadValue: ``local.stack`` is "always", and the model cannot be stacked; or the precision is bf16 under
            DP, which needs stacks.
    """

    def __init__(self, fed: Setting, slot: AdapterSlot, noise: Sequence[Noise] | None) -> None:
        self._fed, self._slot, self._noise = fed, slot, noise
        self.hooks = Hooks(fed, slot)
        self._tokens: dict[int, float] = {}  # client -> tokens of its batch, filled as clients are drawn
        self._clients_at_most, self._tokens_at_most = limits(fed.device)
        self._named: tuple[int, dict[int, list[str]]] = (-1, {})
        self._stack: LoraStack | None = None
        self._apart = False  # each client is a stack of its own
        #: Opacus' hooks would clip by norms in bfloat16; a stack's rows have their gradients in float32
        self._rows_only = fed.privacy is not None and fed.precision == "bf16"
        forced = fed.local.stack == "always"
        if fed.local.stack == "never":
            if self._rows_only:
                raise BadValue(
                    "precision=bf16 under DP needs stacks, and local.stack is never",
                    "set local.stack to auto, or precision to tf32",
                )
            return
        problem = why_not_model(fed.model, slot, fed.precision, private=fed.privacy is not None)
        if fed.method.penalises:
            problem = "the method adds a penalty to the loss of each client"
        apart = why_not_together(fed.model)
        if problem is None and not (forced and apart):
            self._stack, self._apart = LoraStack(fed.model, slot), apart is not None
        elif forced:
            raise BadValue(
                f"clients cannot be stacked: {problem or apart}", "set local.stack to auto or never"
            )
        elif self._rows_only:
            raise BadValue(
                f"precision=bf16 under DP needs stacks, which this model cannot have: {problem}",
                "set precision to tf32 or fp32",
            )

    def train(
        self, state: State, personal: Mapping[int, State], clients: Sequence[int], round_index: int
    ) -> Iterator[Trained]:
        """The clients' trainings, in the order of ``clients``.

        Args:
            state: the global adapter.
            personal: client -> its own tensors, which replace those of the global adapter.
        """
        stacks = {s[0]: s for s in self._stacks(clients, round_index)}
        together = {k for stack in stacks.values() for k in stack}
        done: dict[int, Trained] = {}
        waiting = {k: first for first, stack in stacks.items() for k in stack}
        for k in clients:
            if k not in together:
                yield self._alone(self._start(state, personal, k), k, round_index)
                continue
            if k not in done:
                members = stacks[waiting[k]]
                starts = {m: self._start(state, personal, m) for m in members}
                done.update({t.client: t for t in self._together(starts, round_index)})
            yield done.pop(k)

    def names(self, client: int, round_index: int) -> list[str]:
        """Tensors that train at a client in a round: LoRA's by the method, the head's by the head policy."""
        if self._named[0] != round_index:
            self._named = (round_index, {})
        known, method = self._named[1], self._fed.method
        if client not in known:  # a method may draw for each answer: ask once
            known[client] = [
                n for n in self._slot.names if ".lora_" not in n or method.trains(n, client, round_index)
            ]
        return known[client]

    def _start(self, state: State, personal: Mapping[int, State], client: int) -> State:
        own = personal.get(client, {})
        return truncated(self._fed.method.local_start(state, own), self._fed.method.rank(client))

    def _alone(self, start: State, k: int, round_index: int) -> Trained:
        fed, slot = self._fed, self._slot
        self.hooks.prepare(self.names(k, round_index))
        slot.write(start)
        with only_layers(fed.model, fed.method.present_layers(k, round_index)):
            result = train_client(
                fed.model,
                slot,
                fed.clients[k],
                fed.local,
                fed.streams,
                round_index=round_index,
                client=k,
                device=fed.device,
                precision=fed.precision,
                noise=self._noise[k] if self._noise else None,
                gradients=self.hooks.gradients,
                rank=fed.method.rank(k),
                penalty=partial(fed.method.penalty, slot.parameters, k),
            )
        tensors = slot.read(slot.trainable)
        if not all_finite(tensors):
            raise NonFinite("adapter", round_index, k)
        return Trained(k, start, tensors, result)

    def _together(self, starts: Mapping[int, State], round_index: int) -> Iterator[Trained]:
        fed = self._fed
        assert self._stack is not None
        members = [
            Member(
                k,
                fed.clients[k],
                start,
                self.names(k, round_index),
                fed.method.rank(k),
                self._noise[k] if self._noise else None,
            )
            for k, start in starts.items()
        ]
        self.hooks.release()
        try:
            trained = train_stack(
                fed.model,
                self._stack,
                members,
                fed.local,
                fed.streams,
                round_index=round_index,
                device=fed.device,
                precision=fed.precision,
            )
        except (NonFinite, NothingMoved):  # client after client, it fails at the client that fails first
            if self._rows_only and len(starts) == 1:
                raise
            for k, start in starts.items():
                if self._rows_only:
                    yield from self._together({k: start}, round_index)
                else:
                    yield self._alone(start, k, round_index)
            return
        for (k, start), (tensors, result) in zip(starts.items(), trained, strict=True):
            yield Trained(k, start, tensors, result)

    def _stacks(self, clients: Sequence[int], round_index: int) -> list[list[int]]:
        """Which clients train together, each stack in the order of ``clients``; the others train alone."""
        if self._stack is None:
            return []
        fed, forced = self._fed, self._fed.local.stack == "always"
        together = forced or not self._apart
        suited, stacks = [], []
        for k in clients:
            problem = why_not_client(fed.clients[k], fed.method.present_layers(k, round_index))
            if problem and (forced or self._rows_only):
                raise BadValue(
                    f"client {k} cannot be stacked in round {round_index + 1}: {problem}",
                    "set local.stack to auto or never"
                    if forced
                    else "set precision to tf32 or fp32: under DP bf16 needs stacks",
                )
            if problem is None and together and (forced or self._batch_tokens(k) <= self._tokens_at_most):
                suited.append(k)
            elif problem is None:  # one that is alone pays, too (docs/performance.md)
                stacks.append([k])
        place = {k: i for i, k in enumerate(clients)}
        # alike beside alike: what trains deepest decides how far a stack's backward pass goes, and batches of
        # one size need no copies
        suited.sort(key=lambda k: (self._lowest(k, round_index), self._batch_size(k), place[k]))
        while suited:
            stacks.append(sorted(self._next_stack(suited), key=place.__getitem__))
        return stacks

    def _next_stack(self, suited: list[int]) -> list[int]:
        """Take the next clients off the list: no more than a step's token budget holds."""
        fits = 1
        while fits < len(suited):
            largest = max(self._batch_tokens(k) for k in suited[: fits + 1])
            if fits + 1 > self._clients_at_most or largest * (fits + 1) > self._fed.local.max_tokens:
                break
            fits += 1
        held = -(-len(suited) // -(-len(suited) // fits))  # as even as they come: 5 and 5, not 8 and 2
        stack = suited[:held]
        del suited[:held]
        return stack

    def _lowest(self, client: int, round_index: int) -> int:
        layers = [layer_index(n) for n in self.names(client, round_index) if ".lora_" in n]
        return min((layer for layer in layers if layer is not None), default=-1)

    def _batch_size(self, client: int) -> int:
        return min(self._fed.local.batch_size, len(self._fed.clients[client]))

    def _batch_tokens(self, client: int) -> float:
        if client not in self._tokens:
            mean = tokens_per_example(self._fed.clients[client], self._fed.model)
            self._tokens[client] = mean * self._batch_size(client)
        return self._tokens[client]


class Hooks:
    """Sets what trains and keeps the per-example hooks in step with it (attached anew only on a change)."""

    def __init__(self, fed: Setting, slot: AdapterSlot) -> None:
        self._fed, self._slot = fed, slot
        self._names: list[str] | None = None
        self.gradients: PerExampleGradients | None = None

    def prepare(self, names: list[str]) -> None:
        """Let exactly ``names`` train, under DP with hooks."""
        if names == self._names:
            return
        self.release()
        self._slot.set_trainable(names)
        self._names = names
        if self._fed.privacy is not None:
            self.gradients = PerExampleGradients(self._fed.model)

    def release(self) -> None:
        """Take the hooks off, and freeze the model's own adapter."""
        if self.gradients is not None:
            self.gradients.close()
            self.gradients = None
            self._fed.model.train()
        self._slot.set_trainable([])
        self._names = None

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *_: object) -> None:
        names = self._names
        self.release()
        self._slot.set_trainable(self._slot.names if names is None else names)
