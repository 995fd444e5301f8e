"""Round checkpoints: a safetensors file a round that carries its own digest, and files that several share."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.atomic import (
    DamageWarning,
    from_json,
    remove_leftovers,
    set_aside,
    sha256,
    sha256_file,
    sync_file,
    to_json,
    write_bytes,
)

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"round-(\d{6,18})\.safetensors")
PART = re.compile(r"client-[\w-]+\.safetensors")
KEEP = 2
"""Checkpoints of a run."""
# Inside a JSON string every quote is escaped, so only the metadata's own field can match.
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_FORMAT = "1"  # of the file; one without this label is of format 1


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a round.

    Attributes:
        round_index: the round that was completed last, counted from 0.
        tensors: by name, on the CPU, bit by bit as they were saved.
        meta: everything else, as it was saved (tuples became lists).
        files: further files of the folder that belong to it: name -> SHA-256, each compared with its content.
    """

    round_index: int
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)


class CheckpointFolder:
    """The newest two checkpoints of one run, ``round-000007.safetensors`` and the one before.

    Each file holds the tensors, ``meta`` as JSON in the safetensors metadata, and the SHA-256 of the whole
    file (taken with the digest's own 64 characters as zeros). One file and one rename a checkpoint: content
    and digest cannot come apart, whenever the process dies.

    What grows with the clients lies beside it: ``client-*.safetensors``, files that never change, which a
    checkpoint names with their SHA-256 (`training.client_states` writes them). Both checkpoints may name the
    same one; one that neither names is removed.

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
        return sorted(int(found[1]) for name in names if (found := NAME.fullmatch(name)))

    def path(self, round_index: int) -> Path:
        """Where the checkpoint of a round lies (or would lie)."""
        return self.folder / f"round-{round_index:06d}.safetensors"

    def files(self, round_index: int) -> dict[str, str]:
        """Files that the checkpoint of a round needs beside its own: name -> SHA-256; reads its header alone.

        Raises:
            ValueError: it cannot be read.
        """
        with self.path(round_index).open("rb") as file:
            return named_files(file)

    def save(
        self,
        round_index: int,
        tensors: dict[str, torch.Tensor],
        meta: dict[str, Any],
        files: Mapping[str, str] | None = None,
    ) -> Path:
        """Keep the state after round ``round_index``; then only it and the nearest earlier one remain.

        Args:
            round_index: the round just completed, counted from 0. A smaller one than before rewinds the run:
                the later checkpoints go.
            tensors: any dtype, shape and device that safetensors knows; 0-d and empty ones too. Views and
                tensors that share memory are written as they look.
            meta: JSON values (see :func:`~fedlora_kit.experiments.atomic.to_json`); floats come back exactly.
            files: ``client-*.safetensors`` in this folder that belong to the state: name -> SHA-256.

        Raises:
            BadValue: a round below 0, a value that JSON cannot hold, a tensor that is not dense, a file that
                is not there.
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
            "files": to_json(dict(files or {}), ascii_only=True),
            "round": str(round_index),
            "sha256": "0" * 64,
        }
        blank = save({name: _dense(name, tensor) for name, tensor in tensors.items()}, labels)
        start, stop = _digest_span(blank)
        data = b"".join((blank[:start], sha256(blank).encode(), blank[stop:]))
        remove_leftovers(self.folder)
        before = self._files_before(round_index)
        self._sync(files.keys() - before if files else set())
        write_bytes(self.path(round_index), data)
        self._prune(round_index)
        for name in self._parts() - before - (files or {}).keys():
            (self.folder / name).unlink()
        return self.path(round_index)

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or ``None``.

        A damaged one is renamed to ``*.damaged`` with a :class:`DamageWarning`, and the one before is used.
        """
        remove_leftovers(self.folder)
        for round_index in reversed(self.rounds()):
            path = self.path(round_index)
            try:
                found = _parse(path.read_bytes(), round_index)
                self._compare(found.files)
                return found
            except ValueError as error:
                names = chain([path.name], (f"{path.name}.{n}" for n in count(2)))
                aside = set_aside(path, (path.with_name(f"{name}.damaged") for name in names))
                warnings.warn(
                    f"checkpoint {path} is damaged ({error}); it is not used, and kept as {aside.name}",
                    DamageWarning,
                    stacklevel=2,
                )
        return None

    def _parts(self) -> set[str]:
        try:
            return {name for name in os.listdir(self.folder) if PART.fullmatch(name)}
        except FileNotFoundError:
            return set()

    def _files_before(self, round_index: int) -> set[str]:
        """Names in the checkpoint that will be kept beside that of ``round_index``."""
        earlier = [index for index in self.rounds() if index < round_index]
        if not earlier or not self._parts():
            return set()
        try:
            return set(self.files(earlier[-1]))
        except ValueError:  # damaged: `load_latest` will find that
            return set()

    def _sync(self, names: set[str]) -> None:
        """Flush new files to the disk before a checkpoint names them."""
        lacking = names - self._parts()
        if lacking:
            raise BadValue(f"{min(lacking)} is not in {self.folder}", "write it before the checkpoint")
        with disk_guard(self.folder):
            for name in sorted(names):
                sync_file(self.folder / name)

    def _compare(self, files: Mapping[str, str]) -> None:
        for name, expected in files.items():
            try:
                found = sha256_file(self.folder / name)
            except FileNotFoundError as error:
                raise ValueError(f"{name} is missing") from error
            if found != expected:
                raise ValueError(f"{name} does not fit its digest")

    def _prune(self, newest: int) -> None:
        earlier = [index for index in self.rounds() if index < newest]
        keep = {newest, *earlier[len(earlier) - (KEEP - 1) :]}
        for index in self.rounds():
            if index not in keep:
                self.path(index).unlink()


def named_files(file: BinaryIO) -> dict[str, str]:
    """As `CheckpointFolder.files`, of an open checkpoint file. ``ValueError`` if it cannot be read."""
    length = int.from_bytes(file.read(8), "little")
    return _files(file.read(length))


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

    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    try:
        labels = from_json(header)["__metadata__"]
        if labels.get("format", "1") != _FORMAT:
            raise ValueError(f"it is of format {labels['format']}, and this version reads format {_FORMAT}")
        if labels["round"] != str(round_index):
            raise ValueError(f"it holds round {labels['round']}")
        return Checkpoint(round_index, load(data), from_json(labels["meta"]), _files(header))
    except (KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"it is no checkpoint: {type(error).__name__}") from error


def _files(header: bytes) -> dict[str, str]:
    """Files beside it that a checkpoint names; one of before they were lists none, and has none."""
    try:
        return dict(from_json(from_json(header)["__metadata__"].get("files", "{}")))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("its header is not a checkpoint's") from error
