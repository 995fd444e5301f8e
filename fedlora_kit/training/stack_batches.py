"""The batches of several clients below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedlora_kit.data.batches import Indices, cuts, pass_tokens
from fedlora_kit.data.encoded import (
    Arrays,
    Batch,
    EncodedData,
    EncodedImages,
    EncodedText,
    for_training,
    masked,
)
from fedlora_kit.data.encoded_causal import AnswerTokens, EncodedCausal, answers_on, joined_answers
from fedlora_kit.data.transfer import to_device
from fedlora_kit.randomness import Streams
from fedlora_kit.training.local import Noise, logical_batches
from fedlora_kit.training.settings import LocalSettings


@dataclass(frozen=True)
class Piece:
    """One pass's part of a step.

    Attributes:
        inputs: of R rows, the clients' below each other.
        truth: their classes (R,), or their answers.
        owners: int64 (R,): the rows' clients (positions in the stack, ascending).
        shares: float32 (R,): 1 / examples of the row's client in the step.
        equal: whether all clients have equally many rows.
    """

    inputs: Batch
    truth: torch.Tensor | AnswerTokens
    owners: torch.Tensor
    shares: torch.Tensor
    equal: bool


class StackLoader:
    """The batches of a stack's clients, step by step, in pieces of little padding within the token budget.

    Args:
        members: (client id, its examples, its DP setting) of each.
    """

    def __init__(
        self,
        members: Sequence[tuple[int, EncodedData, Noise | None]],
        settings: LocalSettings,
        streams: Streams,
        round_index: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self.budget, self.price = settings.max_tokens, pass_tokens(device)
        self.data = [
            for_training(data, streams.generator("augment", round_index, client))
            for client, data, _ in members
        ]
        self.lengths = [d.lengths for d in self.data]
        self.batches = [
            iter(logical_batches(len(data), settings, streams, round_index, client, noise))
            for client, data, noise in members
        ]

    def step(self) -> tuple[list[int], list[Piece]]:
        """Each client's number of examples, and the pieces of all."""
        batches = [next(b) for b in self.batches]
        batches = [b[np.argsort(-n[b], kind="stable")] for b, n in zip(batches, self.lengths, strict=True)]
        sizes = [len(b) for b in batches]
        equal = len(set(sizes)) == 1
        found = self._equal_cuts(batches) if equal else self._cuts(batches)
        return sizes, [self._piece(cut, sizes, equal) for cut in found]

    def _equal_cuts(self, batches: list[Indices]) -> list[list[Indices]]:
        """Equally many rows of each client, the longest of each first."""
        longest = np.max([n[b] for n, b in zip(self.lengths, batches, strict=True)], axis=0)
        places = cuts(longest, self.budget, rows=len(batches), price=self.price)
        return [[b[start:stop] for b in batches] for start, stop in places]

    def _cuts(self, batches: list[Indices]) -> list[list[Indices]]:
        """Rows of all clients by length; within a cut, each client's own."""
        owners = np.repeat(np.arange(len(batches)), [len(b) for b in batches])
        rows = np.concatenate(batches)
        tokens = np.concatenate([n[b] for n, b in zip(self.lengths, batches, strict=True)])
        order = np.argsort(-tokens, kind="stable")
        places = [order[start:stop] for start, stop in cuts(tokens[order], self.budget, price=self.price)]
        return [[rows[p[owners[p] == k]] for k in range(len(batches))] for p in places]

    def _piece(self, cut: list[Indices], sizes: list[int], equal: bool) -> Piece:
        held = [(k, rows) for k, rows in enumerate(cut) if len(rows)]
        owners = np.repeat([k for k, _ in held], [len(rows) for _, rows in held])
        with np.errstate(divide="ignore"):
            shares = (np.float32(1) / np.array(sizes, dtype=np.float32))[owners]
        labels = np.concatenate([self.data[k].labels[rows] for k, rows in held])
        fixed = {"labels": labels, "owners": owners, "shares": shares}
        first = self.data[held[0][0]]
        if isinstance(first, EncodedImages):
            inputs, placed = self._images(held, fixed)
            truth: torch.Tensor | AnswerTokens = placed["labels"]
        elif isinstance(first, EncodedCausal):
            parts = [self.data[k].answer_arrays(rows) for k, rows in held]  # type: ignore[attr-defined]
            arrays = joined_answers(parts, first.pad)
            inputs, truth, placed = answers_on(arrays, fixed, self.device)
        else:
            parts = [self.data[k].padded(rows) for k, rows in held]  # type: ignore[attr-defined]
            pad = next((d.pad for d in self.data if isinstance(d, EncodedText)), {})
            placed = to_device({**masked(joined(parts, pad)), **fixed}, self.device)
            inputs, truth = {n: t for n, t in placed.items() if n not in fixed}, placed["labels"]
        return Piece(inputs, truth, placed["owners"], placed["shares"], equal)

    def _images(self, held: Sequence[tuple[int, Indices]], fixed: Arrays) -> tuple[Batch, Batch]:
        """The members' images, one copy for all, and made into inputs member by member."""
        made = {k: self.data[k].host(rows) for k, rows in held}  # type: ignore[attr-defined]
        packed = {f"{k}.{name}": a for k, (arrays, _) in made.items() for name, a in arrays.items()}
        placed = to_device({**packed, **fixed}, self.device)
        seen = [
            self.data[k].seen({name: placed[f"{k}.{name}"] for name in arrays}, views)  # type: ignore[attr-defined]
            for k, (arrays, views) in made.items()
        ]
        return {"pixel_values": torch.cat([s["pixel_values"] for s in seen])}, placed


def joined(parts: Sequence[Arrays], pad: Mapping[str, int]) -> Arrays:
    """Padded batches below each other, padded to the widest.

    Args:
        pad: field -> padding value; a field that is not named is padded with 0 (the attention mask).
    """
    width = max(a.shape[1] for part in parts for a in part.values())
    return {
        name: np.concatenate(
            [
                np.pad(p[name], ((0, 0), (0, width - p[name].shape[1])), constant_values=pad.get(name, 0))
                for p in parts
            ]
        )
        for name in parts[0]
    }
