"""Round checkpoints: one safetensors file a round that carries its own digest."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.atomic import (
    DamageWarning,
    from_json,
    remove_leftovers,
    sha256,
    sync_folder,
    to_json,
    write_bytes,
)

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"^round-(\d{6,})\.safetensors$")
# Inside a JSON string every quote is escaped, so only the metadata's own field can match.
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_KEEP = 2
_FORMAT = "1"  # of the file; one without this label is of format 1


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a round.

    Attributes:
        round_index: the round that was completed last, counted from 0.
        tensors: by name, on the CPU, bit by bit as they were saved.
        meta: everything else, as it was saved (tuples became lists).
    """

    round_index: int
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]


class CheckpointFolder:
    """The newest two checkpoints of one run, ``round-000007.safetensors`` and the one before.

    Each file holds the tensors, ``meta`` as JSON in the safetensors metadata, and the SHA-256 of the whole
    file (taken with the digest's own 64 characters as zeros). One file and one rename a checkpoint: content
    and digest cannot come apart, whenever the process dies.

    Only one process at a time may write: the store's lock sees to that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rounds(self) -> list[int]:
        """Rounds that have a checkpoint file, ascending; looks at the names alone."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for name in names if (found := _NAME.match(name)))

    def path(self, round_index: int) -> Path:
        """Where the checkpoint of a round lies (or would lie)."""
        return self.folder / f"round-{round_index:06d}.safetensors"

    def save(self, round_index: int, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> Path:
        """Keep the state after round ``round_index``; then only it and the nearest earlier one remain.

        Args:
            round_index: the round just completed, counted from 0. A smaller one than before rewinds the run:
                the later checkpoints go.
            tensors: any dtype, shape and device that safetensors knows; 0-d and empty ones too. Views and
                tensors that share memory are written as they look.
            meta: JSON values (see :func:`~fedlora_kit.experiments.atomic.to_json`); floats come back exactly.

        Raises:
            BadValue: a round below 0, a value that JSON cannot hold, a tensor that is not dense.
            FedloraError: the disk is full; the earlier checkpoints are untouched.
        """
        from safetensors.torch import save

        if round_index < 0:
            raise BadValue(f"round_index is {round_index}", "rounds are counted from 0")
        if not isinstance(meta, dict):
            raise BadValue(f"meta is a {type(meta).__name__}", "pass a dict")
        labels = {
            "format": _FORMAT,
            "meta": to_json(meta, ascii_only=True),
            "round": str(round_index),
            "sha256": "0" * 64,
        }
        blank = save({name: _dense(name, tensor) for name, tensor in tensors.items()}, labels)
        start, stop = _digest_span(blank)
        data = b"".join((blank[:start], sha256(blank).encode(), blank[stop:]))
        remove_leftovers(self.folder)
        write_bytes(self.path(round_index), data)
        self._prune(round_index)
        return self.path(round_index)

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or ``None``.

        A damaged one is renamed to ``*.damaged`` with a :class:`DamageWarning`, and the one before is used.
        """
        remove_leftovers(self.folder)
        for round_index in reversed(self.rounds()):
            path = self.path(round_index)
            try:
                return _parse(path.read_bytes(), round_index)
            except ValueError as error:
                aside = _set_aside(path)
                warnings.warn(
                    f"checkpoint {path} is damaged ({error}); it is not used, and kept as {aside.name}",
                    DamageWarning,
                    stacklevel=2,
                )
        return None

    def _prune(self, newest: int) -> None:
        earlier = [index for index in self.rounds() if index < newest]
        keep = {newest, *earlier[len(earlier) - (_KEEP - 1) :]}
        for index in self.rounds():
            if index not in keep:
                self.path(index).unlink()


def _dense(name: str, tensor: torch.Tensor) -> torch.Tensor:
    import torch

    if name == "__metadata__" or tensor.layout != torch.strided:
        raise BadValue(f"tensor {name!r} cannot be kept", "dense tensors with another name than __metadata__")
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _digest_span(data: bytes) -> tuple[int, int]:
    """First and last+1 position of the digest in a file's content; ``ValueError`` if it has none."""
    length = int.from_bytes(data[:8], "little")
    found = _DIGEST.search(data, 8, 8 + length) if 8 + length <= len(data) else None
    if found is None:
        raise ValueError("no digest in its header")
    return found.span(1)


def _parse(data: bytes, round_index: int) -> Checkpoint:
    """Verify, then read. ``ValueError`` says what is wrong."""
    start, stop = _digest_span(data)
    if sha256(b"".join((data[:start], b"0" * 64, data[stop:]))) != data[start:stop].decode():
        raise ValueError("its content does not fit its digest")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        labels = from_json(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if labels.get("format", "1") != _FORMAT:
            raise ValueError(f"it is of format {labels['format']}, and this version reads format {_FORMAT}")
        if labels["round"] != str(round_index):
            raise ValueError(f"it holds round {labels['round']}")
        return Checkpoint(round_index, load(data), from_json(labels["meta"]))
    except (KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"it is no checkpoint: {type(error).__name__}") from error


def _set_aside(path: Path) -> Path:
    aside, count = path.with_name(path.name + ".damaged"), 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.{count}.damaged")
    os.rename(path, aside)
    sync_folder(path.parent)
    return aside
