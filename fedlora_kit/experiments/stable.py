"""Values as bytes that are equal where the values are: in another process, on another machine."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from types import BuiltinFunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from fedlora_kit.experiments.source import pack

#: definitions (functions, classes, modules) -> what stands for them; None for every other value
Refer = Callable[[Any], bytes | None]

_PLAIN = (type(None), bool, int, float, str, bytes, type(...), type(NotImplemented))
#: their state changes as they are drawn from, so it is no part of what a run is
_GENERATORS = (
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    torch.Generator,
)


class Unstable(Exception):
    """A value that no other process could be sure to have: an open file, a lock, a random generator.

    Attributes:
        kind: its type's name.
    """

    def __init__(self, value: object) -> None:
        self.kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        super().__init__(self.kind)


class Values:
    """Turns values into 32 bytes.

    Numbers, texts, containers (dicts in their order), arrays and tensors by their bytes, an existing file
    that a `Path` names by name and content, everything else by its class and what it says is its state
    (``__reduce_ex__``).

    Args:
        refer: stands for functions, classes and modules.
        folder: paths and texts that begin with it count from there, so that it may be moved; None: no such.
    """

    def __init__(self, refer: Refer, folder: Path | None = None) -> None:
        self._refer = refer
        self._folder = str(folder) if folder is not None else None
        self._inside: dict[int, int] = {}

    def token(self, value: Any) -> bytes:
        """What stands for a value.

        Raises:
            Unstable: nothing can.
        """
        if isinstance(value, str) and type(value) is str:
            return pack("str", self._moved(value))
        if type(value) in _PLAIN:
            return pack(type(value).__name__, repr(value))
        reference = self._refer(value)
        if reference is not None:
            return pack("definition", reference)
        if id(value) in self._inside:
            return pack("inside", str(len(self._inside) - self._inside[id(value)]))
        self._inside[id(value)] = len(self._inside)
        try:
            return self._content(value)
        except Unstable:
            raise
        except Exception as error:
            raise Unstable(value) from error
        finally:
            del self._inside[id(value)]

    def _content(self, value: Any) -> bytes:
        if isinstance(value, _GENERATORS) or value is os.environ:
            raise Unstable(value)
        if type(value) in (list, tuple):
            return pack(type(value).__name__, *map(self.token, value))
        if type(value) is dict:
            return pack("dict", *(self.token(part) for item in value.items() for part in item))
        if type(value) in (set, frozenset):
            named = sorted(value, key=lambda one: str(getattr(one, "__qualname__", "")))
            return pack(type(value).__name__, *sorted(map(self.token, named)))
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
            return pack("tensor", str(plain.dtype), str(tuple(plain.shape)), data)
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.hasobject:
                return pack("objects", str(array.shape), *map(self.token, array.ravel().tolist()))
            data = np.ascontiguousarray(array).tobytes()
            return pack("array", type(value).__name__, str(array.dtype.descr), str(array.shape), data)
        if isinstance(value, PurePath):
            return self._path(value)
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            known = owner is None or isinstance(owner, ModuleType)
            whose = str(value.__module__) if known else self.token(owner)
            return pack("builtin", whose, value.__qualname__)
        return self._reduced(value)

    def _path(self, value: PurePath) -> bytes:
        if isinstance(value, Path) and value.is_file():
            with value.open("rb") as file:
                return pack("file", value.name, hashlib.file_digest(file, "sha256").digest())
        return pack("path", self._moved(value.as_posix()))

    def _moved(self, text: str) -> str:
        if self._folder is not None and (text == self._folder or text.startswith(self._folder + os.sep)):
            return "." + text[len(self._folder) :]
        return text

    def _reduced(self, value: Any) -> bytes:
        how = value.__reduce_ex__(4)
        if isinstance(how, str):
            return pack("global", type(value).__module__, how)
        parts = [
            # lists' items and dicts' items come as iterators
            list(part) if index > 2 and isinstance(part, Iterable) else part
            for index, part in enumerate(how[:5])
        ]
        return pack("object", *map(self.token, parts))
