"""The batches of several clients below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from fedlora_kit.data.batches import Indices, cuts
from fedlora_kit.data.encoded import Batch, EncodedData, EncodedText, for_training
from fedlora_kit.randomness import Streams
from fedlora_kit.training.local import Noise, logical_batches
from fedlora_kit.training.settings import LocalSettings

Piece = tuple[Batch, torch.Tensor, torch.Tensor, bool]
"""Inputs, labels, the rows' clients (positions, ascending), and whether all have equally many rows."""


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
        self.budget = settings.max_tokens
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
        if len(set(sizes)) == 1:
            return sizes, [self._piece(cut, True) for cut in self._equal_cuts(batches)]
        return sizes, [self._piece(cut, False) for cut in self._cuts(batches)]

    def _equal_cuts(self, batches: list[Indices]) -> list[list[Indices]]:
        """Equally many rows of each client, the longest of each first."""
        longest = np.max([n[b] for n, b in zip(self.lengths, batches, strict=True)], axis=0)
        places = cuts(longest, self.budget, rows=len(batches))
        return [[b[start:stop] for b in batches] for start, stop in places]

    def _cuts(self, batches: list[Indices]) -> list[list[Indices]]:
        """Rows of all clients by length; within a cut, each client's own."""
        owners = np.repeat(np.arange(len(batches)), [len(b) for b in batches])
        rows = np.concatenate(batches)
        tokens = np.concatenate([n[b] for n, b in zip(self.lengths, batches, strict=True)])
        order = np.argsort(-tokens, kind="stable")
        places = [order[start:stop] for start, stop in cuts(tokens[order], self.budget)]
        return [[rows[p[owners[p] == k]] for k in range(len(batches))] for p in places]

    def _piece(self, cut: list[Indices], equal: bool) -> Piece:
        held = [(k, rows) for k, rows in enumerate(cut) if len(rows)]
        parts = [self.data[k].batch(rows, self.device) for k, rows in held]
        owners = torch.from_numpy(np.repeat([k for k, _ in held], [len(rows) for _, rows in held]))
        labels = torch.cat([labels for _, labels in parts])
        pad = next((d.pad for d in self.data if isinstance(d, EncodedText)), {})
        return joined([inputs for inputs, _ in parts], pad), labels, owners.to(self.device), equal


def joined(parts: Sequence[Batch], pad: Mapping[str, int]) -> Batch:
    """Batches below each other, padded to the widest.

    Args:
        pad: field -> padding value; a field that is not named is padded with 0 (the attention mask).
    """
    out: Batch = {}
    for name, first in parts[0].items():
        if first.ndim != 2:  # images: all of one size
            out[name] = torch.cat([p[name] for p in parts])
            continue
        width = max(p[name].shape[1] for p in parts)
        out[name] = torch.cat(
            [F.pad(p[name], (0, width - p[name].shape[1]), value=pad.get(name, 0)) for p in parts]
        )
    return out
