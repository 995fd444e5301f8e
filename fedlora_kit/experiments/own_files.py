"""Files of the user's own: neither installed, nor Python's, nor the package's; and which others they import.

A file counts by its code, blind to comments, docstrings and layout, and to where it lies.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.source import PACKAGE, canonical

_INSTALLED = {"site-packages", "dist-packages"}


#: dots in front, module, names taken from it
Import = tuple[int, str, tuple[str, ...]]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Source:
    """A file, read.

    Attributes:
        text: its syntax tree as text, blind to prose and layout.
        imports: each import anywhere in it.
        functions: (name, first line) -> its functions that begin there, as Python's code objects call them.
        codes: the code objects of all functions and classes that it would define now; nothing is run.
    """

    text: str
    imports: tuple[Import, ...]
    functions: dict[tuple[str, int], list[Function]]
    codes: frozenset[CodeType]


@lru_cache(maxsize=1024)
def is_own(file: str) -> bool:
    """Whether a module's file is the user's: not below a folder of installed packages, Python or the kit."""
    path = Path(file).resolve()
    return not _INSTALLED & set(path.parts) and not any(path.is_relative_to(at) for at in _not_own())


@lru_cache(maxsize=1)
def _not_own() -> tuple[Path, ...]:
    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = [*standard, *site.getsitepackages(), site.getusersitepackages()]
    return PACKAGE, *(Path(place).resolve() for place in places)


def parse(text: str | bytes) -> Source | None:
    """Source text, read; None if it is no Python."""
    try:
        tree = ast.parse(text)
        whole = compile(text, "<own>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    functions: dict[tuple[str, int], list[Function]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            functions.setdefault(("<lambda>", node.lineno), []).append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            functions.setdefault((node.name, first), []).append(node)
    return Source(canonical(tree), tuple(imports_in(tree)), functions, frozenset(all_codes(whole)))


def read(path: Path) -> Source | None:
    """A file, read; anew only when its size or time has changed. None if it is no Python.

    Raises:
        BadValue: it cannot be read.
    """
    try:
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadValue(
            f"{path} cannot be read: {error.strerror or error}", "put the file back, or import it again"
        ) from error


@lru_cache(maxsize=256)
def _read(path: Path, _size: int, _time: int) -> Source | None:
    return parse(path.read_bytes())


def all_codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from all_codes(constant)


def closure(files: Iterable[Path], *, alone: bool = False) -> list[tuple[str, str]]:
    """(file name, SHA-256) of files and, unless ``alone``, of all own ones that they import, theirs included.

    Nothing is imported for it. Imports inside functions count, too. What is no Python counts by its bytes.

    Raises:
        BadValue: a file cannot be read.
    """
    found: dict[Path, str] = {}
    waiting = [path.resolve() for path in files]
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        source = read(path) if path.suffix == ".py" else None
        if source is None:
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[path] = hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()
            waiting += [] if alone else imported(source.imports, path.parent)
    return [(path.name, digest) for path, digest in found.items()]


def imported(imports: Iterable[Import], folder: Path) -> list[Path]:
    """The own files that a source in ``folder`` imports at first hand; packages by their ``__init__.py``."""
    files: dict[Path, None] = {}
    for dots, module, names in imports:
        parts = module.split(".") if module else []
        for more in ([], *([name] for name in names)):
            for file in _on_the_way([*parts, *more], folder, dots):
                if Path(file).is_file() and is_own(file):
                    files[Path(file).resolve()] = None
    return list(files)


def _on_the_way(parts: Iterable[str], folder: Path, dots: int) -> Iterator[str]:
    """The files of ``a``, ``a.b`` and ``a.b.c`` for a.b.c, as far as there are such modules of the user's."""
    places: Iterable[str] | None = None
    if dots:
        start = [folder, *folder.parents][dots - 1]
        places = [str(start)]
        yield str(start / "__init__.py")
    for name in parts:
        spec = _top(name, folder) if places is None else PathFinder.find_spec(name, list(places))
        file = spec.origin if spec is not None and spec.has_location else None
        if file is not None:
            yield file
        if spec is None or spec.submodule_search_locations is None or (file is not None and not is_own(file)):
            return
        places = spec.submodule_search_locations


def _top(name: str, folder: Path) -> ModuleSpec | None:
    """Where a module lies that is named in full; None for Python's, the kit's, and what lies nowhere."""
    if name in sys.stdlib_module_names or name in (PACKAGE.name, "__main__"):
        return None
    loaded: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded
    with suppress(ImportError, ValueError, AttributeError):
        return PathFinder.find_spec(name, [str(folder)]) or importlib.util.find_spec(name)
    return None


def imports_in(tree: ast.Module) -> Iterator[Import]:
    """Each import anywhere in a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names if alias.name != "*")
            yield node.level, node.module or "", names
