"""What stays with the clients: a bounded part in memory, the rest in files, one a client."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fedlora_kit.adapter import State, on_host, size_bytes
from fedlora_kit.errors import FedloraError

#: bytes of client states that stay in memory. A file costs a fraction of a millisecond, a client's training
#: far more: so it is little, and the same for 10 clients and for 10,000.
MEMORY = 16 * 2**20


class ClientStates(MutableMapping[int, State]):
    """Client -> its own tensors, in order of client; a dictionary whose memory does not grow.

    At most `MEMORY` bytes are kept in memory, those used last (clients cannot be taken out again). The others
    are safetensors files, ``client-00012-<16 hex digits of its SHA-256>.safetensors``: a file is whole or
    absent, and never changed. They are read back bit by bit, and compared with their digest. A client's
    tensors stand in order of name, wherever they come from.

    Args:
        device: where tensors that come from a file are put.
        folder: where the files lie; files of an earlier state of a client are left there. None for a
            temporary folder (``TMPDIR`` names its place), which holds the newest file of each client and goes
            with this object.
        files: files in ``folder`` to begin with: name -> SHA-256, as `files` gave them.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        folder: Path | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self._device, self._folder = device, folder
        self._temporary: TemporaryDirectory[str] | None = None
        self._held: OrderedDict[int, State] = OrderedDict()  # those used last at the end
        self._bytes = 0
        self._changed: set[int] = set()  # held, and newer than their file
        self._files = {int(name.split("-")[1]): (name, digest) for name, digest in (files or {}).items()}

    def files(self) -> dict[str, str]:
        """The files that hold all clients as they are now: name -> SHA-256, 64 hex digits.

        Clients that changed since the last call are written now.

        Raises:
            FedloraError: the disk is full or the folder is not writable.
        """
        for client in sorted(self._changed):
            self._write(client, self._held[client])
        return dict(self._files[client] for client in self)

    def __getitem__(self, client: int) -> State:
        if client in self._held:
            self._held.move_to_end(client)
            return self._held[client]
        state = self._read(*self._files[client])
        self._hold(client, state)
        return state

    def __setitem__(self, client: int, state: State) -> None:
        self._changed.add(client)
        # a copy: a view would keep all that it is a part of in memory
        plain = {n: state[n].detach().clone(memory_format=torch.contiguous_format) for n in sorted(state)}
        self._hold(client, plain)

    def __delitem__(self, client: int) -> None:
        raise FedloraError(f"client {client} cannot be taken out", "make new ClientStates of the others")

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._files.keys() | self._held.keys()))

    def __len__(self) -> int:
        return len(self._files.keys() | self._held.keys())

    def __contains__(self, client: object) -> bool:
        return client in self._held or client in self._files

    def __deepcopy__(self, memo: dict[int, Any]) -> ClientStates:
        """The same clients, in a temporary folder of their own."""
        other = ClientStates(self._device)
        other.update(self)
        return other

    def _hold(self, client: int, state: State) -> None:
        """Keep a state in memory, and write what no longer fits."""
        self._bytes += size_bytes(state) - size_bytes(self._held.pop(client, {}))
        self._held[client] = state
        while self._bytes > MEMORY:
            oldest, leaves = self._held.popitem(last=False)
            self._bytes -= size_bytes(leaves)
            if oldest in self._changed:
                self._write(oldest, leaves)

    def _place(self) -> Path:
        if self._folder is not None:
            return self._folder
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="fedlora-clients-")
        return Path(self._temporary.name)

    def _write(self, client: int, state: State) -> None:
        from safetensors.torch import save

        data = save(on_host(state))
        digest = hashlib.sha256(data).hexdigest()
        name = f"client-{client:05d}-{digest[:16]}.safetensors"
        before, _ = self._files.get(client, ("", ""))
        if name != before:
            folder = self._place()
            self._put(folder / name, data)
            if before and self._temporary is not None:
                (folder / before).unlink()
        self._files[client] = (name, digest)
        self._changed.discard(client)

    @staticmethod
    def _put(path: Path, data: bytes) -> None:
        temp = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temp.write_bytes(data)
            os.replace(temp, path)
        except OSError as error:
            with suppress(OSError):
                temp.unlink()
            raise FedloraError(
                f"cannot write the tensors of a client to {path}: {error.strerror}",
                "free some space there, make the folder writable, or name another one: FEDLORA_RUNS for the "
                "store of runs, TMPDIR for a federation that runs without it",
            ) from error

    def _read(self, name: str, digest: str) -> State:
        from safetensors.torch import load

        path = self._place() / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise FedloraError(
                f"the tensors of a client in {path} are damaged or gone",
                "start the run again: it goes on from its last whole checkpoint",
            )
        state = load(data)
        return {n: state[n] if self._device is None else state[n].to(self._device) for n in sorted(state)}
