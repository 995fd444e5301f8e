"""Stand-ins for optional packages that are not installed: modules that need them can be documented."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class Anything:
    """Has every attribute, can be called and derived from; as a decorator it changes nothing."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not settings else Anything(self.__name__)

    def __getitem__(self, key: object) -> Any:
        return self

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return ()

    def __repr__(self) -> str:
        return self.__name__


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self) -> None:
        self.packages: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name.partition(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def import_all(modules: Sequence[str], own: str) -> set[str]:
    """Import the modules; a package that is not installed gets a stand-in.

    Args:
        own: the package that they belong to; a module of its own that is missing is an error.

    Returns:
        The packages that have a stand-in now, in this process.
    """
    finder = _Finder()
    sys.meta_path.append(finder)
    for name in modules:
        while True:
            try:
                importlib.import_module(name)
                break
            except ModuleNotFoundError as error:
                package = (error.name or "").partition(".")[0]
                if package in {"", own, *finder.packages}:
                    raise
                finder.packages.add(package)
    return finder.packages
