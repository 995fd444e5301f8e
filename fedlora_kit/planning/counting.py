"""The work of a run: who trains what in which round, in what batches, and what is scored, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import cuts, pass_tokens
from fedlora_kit.data.tasks import get_task
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.targets import layer_index
from fedlora_kit.planning.amounts import Lengths, Part, amounts
from fedlora_kit.planning.architectures import Architecture, architecture, empty_model, random_model
from fedlora_kit.planning.operations import operations
from fedlora_kit.planning.step_costs import Additive
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation, cohort_of, trained_names
from fedlora_kit.training.scores import scores_own
from fedlora_kit.training.stackable import limits, why_not_together

#: rounds that stand for all of a run, where layers are drawn anew
ROUNDS = 4


@dataclass(frozen=True)
class Work(Additive):
    """Work that adds up.

    Attributes:
        flops: operations of matrix products.
        forward, backward: layers passed through in all passes: each takes a time of its own, however small
            the batch.
    """

    flops: float = 0.0
    forward: float = 0.0
    backward: float = 0.0


@lru_cache(maxsize=16)
def _adapted(shape: Architecture, labels: int, lora: LoraSettings) -> Any:
    return attach_lora(random_model(shape, labels, "meta"), lora, seed=0)


class Counter:
    """Counts one run, on a federation whose model has no weights and whose clients have no examples.

    Attributes:
        spec, shape, amounts: the run, its backbone, its data.
        operations: of one example.
        fed, slot: the federation, for `training.costs`.
        stacked: clients that train in one pass.
        reads_first_token: the last layer computes one token's state (`models.first_token`).
        price: of a pass, in tokens (see `data.batches.cuts`).
    """

    def __init__(self, spec: RunSpec, gpu: bool = False) -> None:
        kind, data = get_task(spec.data.task), spec.data
        self.spec, self.shape = spec, architecture(spec.model.backbone, kind.modality, data.image_size)
        device = torch.device("cuda" if gpu else "cpu")
        self.price, self._together = pass_tokens(device), limits(device)
        self.amounts = amounts(spec)
        self.labels = 0 if kind.modality == "causal" else kind.num_labels
        self.causal = kind.modality == "causal"
        lora = spec.model.lora
        self.operations = operations(self.shape, self.labels, lora, spec.model.gradient_checkpointing)
        self.reads_first_token = self.operations.reads_first_token
        self._merges = method(spec.method.name, **spec.method.settings).merges
        self.fed = self.federation(spec.split.clients)
        self.slot = AdapterSlot(self.fed.model)

    def federation(self, clients: int) -> Federation:
        """A federation of so many clients, of the run's mean size each."""
        spec, lora = self.spec, self.spec.model.lora
        adapted = _adapted.__wrapped__ if self._merges else _adapted  # it changes its model
        model = adapted(self.shape, self.labels, lora)
        slot = AdapterSlot(model)
        slot.set_trainable(slot.names)
        size = max(1, self.amounts.train.count // spec.split.clients)
        cohort = None if spec.rounds.cohort is None else min(spec.rounds.cohort, clients)
        return Federation(
            model=model,
            method=method(spec.method.name, **spec.method.settings),
            clients=cast(
                Any, [range(size)] * clients
            ),  # all that is asked of them is their number of examples
            evals={},
            rounds=spec.rounds.model_copy(update={"cohort": cohort}),
            local=spec.local,
            streams=Streams(spec.seed),
            head=lora.head,
            privacy=spec.privacy,
        )

    def training(self) -> tuple[Work, int]:
        """All that trains, and the most layers that a backward pass goes through."""
        rounds = self.spec.rounds.rounds
        sampled = sorted({int(r) for r in np.linspace(0, rounds - 1, min(rounds, ROUNDS))})
        work, deepest = self._fisher(), 0
        for r in sampled:
            done, depth = self._round(cohort_of(self.fed, r), r)
            work, deepest = work + done * (rounds / len(sampled)), max(deepest, depth)
        for r in range(rounds):
            for stage in self.fed.method.stages(r, last=r == rounds - 1):
                work, deepest = work + self._stage(stage), self.shape.layers
        return work, deepest

    def _round(self, cohort: Sequence[int], r: int) -> tuple[Work, int]:
        """The local trainings of a round, and the most layers that a backward pass went through."""
        able = [k for k in cohort if self.fed.method.takes_part(k, r)]
        total, deepest = Work(), 0
        steps, group = self.spec.local.steps, self.stacked(len(able))
        for k in able:
            names = trained_names(self.fed, self.slot, k, r)
            trained = {layer for name in names if (layer := layer_index(name)) is not None}
            frozen_a = not any(".lora_A" in name for name in names)
            present = self.fed.method.present_layers(k, r)
            batch = min(self.spec.local.batch_size, len(self.fed.clients[k]))
            total += self._step(batch, trained, present, frozen_a, group) * steps
            deepest = max(deepest, self.shape.layers - min(trained, default=self.shape.layers))
        return total, deepest

    def _step(
        self,
        batch: int,
        trained: set[int],
        present: frozenset[int] | None = None,
        frozen_a: bool = False,
        group: float = 1.0,
    ) -> Work:
        """One optimiser step of one client; ``group``: clients that share its passes."""
        passes, tokens = self._batches(self.amounts.train.lengths, batch * group, self.spec.local.max_tokens)
        each = max(1.0, tokens / max(1.0, batch * group))
        layers = sorted(present) if present is not None else list(range(self.shape.layers))
        above = [layer for layer in layers if trained and layer >= min(trained)]
        first = self.reads_first_token and layers[-1:] == [self.shape.layers - 1]
        cost = self.operations.step(
            each,
            [layer in trained for layer in layers],
            frozen_a=frozen_a,
            first_token=first,
            scored=self.answer(self.amounts.train),
        )
        again = len(above) - first if self.spec.model.gradient_checkpointing else 0
        return Work(
            batch * (cost.forward_flops + cost.backward_flops),
            (len(layers) + 1 + again) * passes / group,
            (len(above) + 1) * passes / group,
        )

    def stacked(self, clients: int) -> float:
        """Clients that train in one pass (see `training.cohort`), about."""
        spec = self.spec
        alone = (
            spec.local.stack == "never"
            or spec.model.dtype != "fp32"
            or spec.model.load_in_4bit
            or spec.model.gradient_checkpointing
            or (spec.precision == "bf16" and spec.privacy is None)
            or spec.model.lora.dropout > 0
            or why_not_together(empty_model(self.shape, self.labels)) is not None
            or spec.model.lora.use_dora
            or self.fed.method.merges
            or self.fed.method.penalises
            or self.fed.method.present_layers(0, 0) is not None
        )
        if alone or clients < 2:
            return 1.0
        size = min(spec.local.batch_size, len(self.fed.clients[0]))
        tokens = float(self.amounts.train.lengths.mean()) * size
        most, small = self._together
        if tokens > small and spec.local.stack != "always":
            return 1.0
        fits = max(1, min(most, clients, int(spec.local.max_tokens // max(1.0, tokens))))
        return clients / -(-clients // fits)

    def _stage(self, stage: Any) -> Work:
        steps = self.spec.local.steps if stage.steps is None else stage.steps
        everything = set(range(self.shape.layers))
        if stage.where == "server":
            size, count = self.amounts.server, 1
        else:
            cohort = self.spec.rounds.cohort or self.spec.split.clients
            size, count = len(self.fed.clients[0]), self.spec.split.clients if stage.everyone else cohort
        batch = min(self.spec.local.batch_size, max(1, size))
        return self._step(batch, everything) * (steps * count)

    def _fisher(self) -> Work:
        examples = self.fed.method.proxy_examples
        times = sum(self.fed.method.refreshes(r) for r in range(self.spec.rounds.rounds)) if examples else 0
        if not times:
            return Work()
        one = self._step(1, set(range(self.shape.layers)))
        passes = examples if self.causal else -(-examples // 32)
        return Work(one.flops * examples, one.forward * passes, one.backward * passes) * times

    def evaluation(self) -> Work:
        """Every evaluation of the run.

        Where there is no one global model, that of each client that has trained is scored, and once what the
        others would start from.
        """
        spec, everyone = self.spec, self.spec.split.clients
        times = models = 0
        own, trained = scores_own(self.fed), set[int]()
        for r in range(spec.rounds.rounds):
            if own:
                trained |= {k for k in cohort_of(self.fed, r) if self.fed.method.takes_part(k, r)}
            if spec.rounds.evaluates(r):
                times += 1
                models += min(everyone, len(trained) + 1) if own else 1
        total = Work()
        for part in self.amounts.evals.values():
            total += self._scoring(part, part.count) * models
        if self.amounts.held_out:
            each = max(1, self.amounts.held_out // everyone)
            total += self._scoring(self.amounts.train, each) * everyone * times
        return total

    def _scoring(self, part: Part, count: int) -> Work:
        if not count:
            return Work()
        budget = self.spec.rounds.eval_max_tokens
        passes, tokens = self._batches(part.lengths, count, budget)
        flops = self.operations.step(
            tokens / count,
            [False] * self.shape.layers,
            first_token=self.reads_first_token,
            scored=self.answer(part),
        ).forward_flops
        work = Work(count * flops, (self.shape.layers + 1) * passes)
        if self.causal:
            new = self.amounts.new_tokens
            passes, padded = self._batches(part.prompts + new, count, budget)
            flops = self.operations.generation(max(1.0, padded / count - new), new, self.shape.layers)
            work += Work(count * flops, (self.shape.layers + 1) * passes * new)
        return work

    def answer(self, part: Part) -> float | None:
        """Mean tokens of an answer, at which a causal model's head computes; None for classifiers."""
        return float((part.lengths - part.prompts).mean()) if self.causal else None

    def _batches(self, lengths: Lengths, count: float, budget: int) -> tuple[float, float]:
        return batches_of(lengths, count, budget, self.price)

    def largest_piece(self, lengths: Lengths, count: float, budget: int) -> tuple[float, float]:
        """Examples and width of the physical batch with the most padded tokens, of ``count`` examples."""
        some = drawn(lengths, count)
        pieces = [(stop - start, int(some[start])) for start, stop in cuts(some, budget, price=self.price)]
        return max(pieces, key=lambda piece: piece[0] * piece[1])


def drawn(lengths: Lengths, count: float, seed: int = 0) -> Lengths:
    """Lengths of ``count`` examples as long as those of a sample, at most 4,096, descending."""
    size = min(4096, max(1, round(count)))
    found: Lengths = -np.sort(-np.random.default_rng(seed).choice(lengths, size))
    return found


def batches_of(lengths: Lengths, count: float, budget: int, price: int) -> tuple[float, float]:
    """Physical batches, and padded tokens in all, of ``count`` examples as long as those of a sample."""
    draws = 3 if count < 256 else 1
    batches, tokens, size = 0.0, 0.0, 1
    for draw in range(draws):
        some = drawn(lengths, count, draw)
        size = len(some)
        pieces = cuts(some, budget, price=price)
        batches += len(pieces) / draws
        tokens += sum((stop - start) * int(some[start]) for start, stop in pieces) / draws
    return batches * max(1.0, count / size), tokens * count / size
