"""Floating-point operations and kept activations of a transformer with LoRA, forward and backward.

Counted by PyTorch itself (`planning.step_costs`), on the architecture cut down to a few layers and a few
tokens. The layers of a transformer are alike, so that a layer more costs what it costs there; and the cost of
a layer is a polynomial of degree two in the tokens, which three lengths tell. That is exact, and as quick for
a model of 7 billion parameters as for a small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache

import torch

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.encoded_causal import AnswerTokens
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.kinds import default_kind
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.memory import checkpoint_gradients
from fedlora_kit.models.targets import layer_index
from fedlora_kit.planning.architectures import Architecture, empty_image, random_model
from fedlora_kit.planning.step_costs import FusedAttention, StepCost, cost_of
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.objective import answer_logits

#: lengths that are counted, in tokens
LENGTHS = (4, 8, 12)

#: whether each layer trains; frozen A; a last layer of one token; bytes and not operations
_Case = tuple[tuple[bool, ...], bool, bool, bool]


def operations(
    shape: Architecture, labels: int, lora: LoraSettings, checkpointing: bool = False
) -> Operations:
    """The counter of an architecture with LoRA; equal ones are one, with all that it has counted."""
    lora = LoraSettings(rank=lora.rank, targets=lora.targets, dropout=lora.dropout, use_dora=lora.use_dora)
    return _operations(shape.changed(num_hidden_layers=4), labels, lora, checkpointing)


class Operations:
    """Counts one example's step. A classifier's head is taken to be frozen: its own gradients are next to
    nothing.

    Args:
        shape: of four layers.
        labels: outputs of a classification head; ignored for a causal model.
        checkpointing: each layer's forward pass is done again in the backward pass (see `models.memory`).

    Attributes:
        reads_first_token: the model's last layer computes the first token's state alone
            (`models.first_token`).
    """

    def __init__(self, shape: Architecture, labels: int, lora: LoraSettings, checkpointing: bool) -> None:
        self._shape, self._checkpointing = shape, checkpointing
        model = attach_lora(random_model(shape, labels, "meta"), lora, seed=0).train()
        self.reads_first_token = read_first_token(model)
        self._model = checkpoint_gradients(model) if checkpointing else model
        self._slot = AdapterSlot(model)
        self._seen: dict[object, StepCost] = {}

    def step(
        self,
        tokens: float,
        layers: Sequence[bool],
        *,
        frozen_a: bool = False,
        first_token: bool = False,
        scored: float | None = None,
        kept: bool = False,
    ) -> StepCost:
        """One example's step.

        Args:
            tokens: of the example; ignored for images, which have all the same.
            layers: the layers that are passed through, from the lowest: whether their adapters train. None
                does: there is no backward pass.
            frozen_a: only B trains (FFA-LoRA): A has no gradient of its own.
            first_token: the topmost of them computes the first token's state alone.
            scored: tokens at which a causal model scores its vocabulary; None for all.
            kept: count what fused attention keeps, in float32, a causal model's scores not counted; and not
                the operations.
        """
        if not layers:  # what a layer less than one costs
            one, two = (self.step(tokens, [False] * n, scored=scored, kept=kept) for n in (1, 2))
            return one * 2 - two

        def count(some: Sequence[bool]) -> StepCost:
            return self._at(tokens, scored, (tuple(some), frozen_a, first_token, kept))

        # below the lowest that trains there is no backward pass; with checkpoints it goes all the way down
        low = 0 if self._checkpointing else next((i for i, t in enumerate(layers) if t), len(layers) - 1)
        ends = list(layers[low:] if len(layers) - low == 1 else (layers[low], layers[-1]))
        total = few = count(ends)
        if low:
            total += (count([False, *ends]) - few) * low
        for trains in (False, True):
            between = list(layers[low + 1 : -1]).count(trains)
            if between:
                total += (count([ends[0], trains, ends[1]]) - few) * between
        return total

    def generation(self, prompt: float, new: int, layers: int) -> float:
        """Operations of one greedy answer of ``new`` tokens after a prompt, with a cache of keys and values:
        the prompt gives the first one, and each but the last is read."""
        none = [False] * layers
        read = self.step(prompt, none, scored=1).forward_flops
        # a + b n + c n² of n tokens: what one token takes after n - 1 others is b + c n
        one, two, three = (self.step(n, none, scored=1).forward_flops for n in (1, 2, 3))
        c = (three - 2 * two + one) / 2
        b = two - one - 3 * c
        head = self.step(1, none, scored=2).forward_flops - one
        context = sum(prompt + t for t in range(1, new))
        return read + max(0, new - 1) * (b + head) + c * context

    @cached_property
    def cache_numbers(self) -> int:
        """Keys and values that a causal model keeps of a token in a layer."""
        with torch.no_grad():
            one = torch.ones(1, 1, 1, 1, dtype=torch.bool, device="meta")
            cache = self._model.eval()(
                input_ids=self._ids(1), attention_mask=one, use_cache=True
            ).past_key_values
        self._model.train()
        kept = sum(t.numel() for layer in cache.layers for t in (layer.keys, layer.values))
        return int(kept) // len(cache.layers)

    def _at(self, tokens: float, scored: float | None, case: _Case) -> StepCost:
        """By interpolation in the tokens (Lagrange's), linear in those that are scored."""
        if self._shape.kind == "image":
            return self._count(0, 0, case)
        causal = self._shape.kind == "causal"
        total = StepCost()
        for n in LENGTHS:
            weight = 1.0
            for m in LENGTHS:
                weight *= 1.0 if m == n else (tokens - m) / (n - m)
            total += self._count(n, int(causal), case) * weight
        if causal:
            some = [self._count(LENGTHS[0], s, case) for s in (1, 2)]
            total += (some[1] - some[0]) * ((tokens if scored is None else scored) - 1)
        return total

    def _count(self, tokens: int, scored: int, case: _Case) -> StepCost:
        key = (tokens, scored, case)
        if key in self._seen:
            return self._seen[key]
        layers, frozen_a, first_token, kept = case
        top = (
            4 if first_token or not self.reads_first_token else 3
        )  # the last of four is the one that is short
        present = range(top - len(layers), top)
        trained = {at for at, trains in zip(present, layers, strict=True) if trains}
        self._slot.set_trainable(
            [n for n in self._slot.names if layer_index(n) in trained and not (frozen_a and ".lora_A" in n)]
        )
        attention = FusedAttention() if kept else nullcontext()  # type: ignore[no-untyped-call]
        with only_layers(self._model, frozenset(present)), attention:
            try:
                cost = cost_of(self._model, lambda: self._logits(tokens, scored))
            except (RuntimeError, ValueError) as error:  # it reads values, of which there are none
                raise FedloraError(
                    f"the work of a {self._shape.config.model_type} cannot be counted without its weights: "
                    f"{str(error).splitlines()[0]}",
                    "train one run, and take its time (fedlora show)",
                ) from error
        self._seen[key] = StepCost(cost.activation_bytes) if kept else replace(cost, activation_bytes=0.0)
        return self._seen[key]

    def _logits(self, tokens: int, scored: int) -> torch.Tensor:
        if self._shape.kind == "image":
            return self._model(pixel_values=empty_image(self._shape)).logits  # type: ignore[no-any-return]
        inputs = {"input_ids": self._ids(tokens)}
        if default_kind(self._shape.config) == "causal":  # a mask with nothing to look for in it
            inputs["attention_mask"] = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device="meta")
        if not scored:
            return self._model(**inputs).logits  # type: ignore[no-any-return]
        places = torch.zeros(scored, dtype=torch.int64, device="meta")
        answer = AnswerTokens(places, places, places, places[:1], tokens)
        return answer_logits(self._model, inputs, answer)

    def _ids(self, tokens: int) -> torch.Tensor:
        return torch.zeros(1, tokens, dtype=torch.int64, device="meta")


@lru_cache(maxsize=256)
def _operations(shape: Architecture, labels: int, lora: LoraSettings, checkpointing: bool) -> Operations:
    return Operations(shape, labels, lora, checkpointing)
