"""Digests of the package's own source: what makes a stored run or an executed notebook out of date."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from fedlora_kit.errors import UnknownName

RUN_ROOMS: tuple[str, ...] = (
    "randomness",
    "columns",
    "partition",
    "data",
    "models",
    "adapter",
    "privacy",
    "methods",
    "training",
    "experiments/spec",
    "experiments/setup",
    "experiments/run",
)
"""What decides a run's numbers: a module ``X.py`` or a package ``X/``, relative to the package."""

PACKAGE = Path(__file__).resolve().parent.parent
"""This package's folder."""
_TEXT = {".py", ".j2", ".mplstyle", ".css", ".json", ".csv", ".toml"}
_Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_digest(rooms: Sequence[str] = RUN_ROOMS, package: Path | None = None) -> str:
    """SHA-256 (64 hex digits) of the code in ``rooms``, blind to comments, docstrings and layout.

    Editing prose therefore trains nothing again; any other change does. The value is the same on every
    Python version that reads the source into the same tree. It is taken once a process, at the first call,
    because the modules in memory do not follow later edits either: restart the kernel after an edit.

    Args:
        rooms: modules or packages, relative to the package, without ``.py``.
        package: the package's folder; this package if ``None`` (only then the value is cached).

    Raises:
        UnknownName: a room that does not exist. To leave it out silently would keep old results alive.
    """
    return _own(_source, tuple(rooms)) if package is None else _source(package, tuple(rooms))


def package_digest(package: Path | None = None) -> str:
    """SHA-256 (64 hex digits) of the text of every source file and template of the package.

    Any edit changes it, prose included, for a notebook may show docstrings. Cached like
    :func:`source_digest`.
    """
    return _own(_package) if package is None else _package(package)


@lru_cache
def _own(take: Callable[..., str], *given: tuple[str, ...]) -> str:
    return take(PACKAGE, *given)


def _source(package: Path, rooms: tuple[str, ...]) -> str:
    files = {path for room in rooms for path in _files_of(room, package)}
    return _digest(package, files, lambda path: canonical(ast.parse(path.read_bytes(), path.name)))


def _package(package: Path) -> str:
    files = {
        p for p in package.rglob("*") if p.suffix in _TEXT and p.is_file() and "__pycache__" not in p.parts
    }
    return _digest(package, files, lambda path: path.read_text("utf-8"))  # reads CRLF as LF


def _digest(package: Path, files: Iterable[Path], text_of: Callable[[Path], str]) -> str:
    named = sorted((path.relative_to(package).as_posix(), path) for path in files)
    return pack(*(part for name, path in named for part in (name, text_of(path)))).hex()


def pack(*parts: bytes | str) -> bytes:
    """SHA-256 (32 bytes) of parts, with their lengths: no two lists of parts run into one."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.digest()


def _files_of(room: str, package: Path) -> list[Path]:
    module, folder = package / f"{room}.py", package / room
    if module.is_file():
        return [module]
    if folder.is_dir():
        return [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]
    known = {p.relative_to(package).with_suffix("").as_posix() for p in package.rglob("*.py")}
    known |= {Path(name).parent.as_posix() for name in known} - {"."}
    raise UnknownName("room of the package", room, known)


def covered(module: str) -> bool:
    """Whether a module of the package, by its full name, is among `RUN_ROOMS`.

    >>> covered("fedlora_kit.methods.fedit"), covered("fedlora_kit.study.grid")
    (True, False)
    """
    place = module.removeprefix(f"{PACKAGE.name}.").replace(".", "/")
    return any(f"{place}/".startswith(f"{room}/") for room in RUN_ROOMS)


def canonical(node: object) -> str:
    """A syntax tree as text, blind to docstrings and layout.

    Own, because ``ast.dump`` prints the same tree differently from version to version: fields that are empty
    are left out here, since newer versions add such fields.
    """
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if isinstance(node, ast.AST):
        parts = []
        for field, value in sorted(ast.iter_fields(node)):
            if (
                field == "body"
                and isinstance(node, _Documented)
                and ast.get_docstring(node, clean=False) is not None
            ):
                value = value[1:]
            if value is None or value == [] or field == "type_ignores":
                continue
            parts.append(f"{field}={canonical(value)}")
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    return repr(node)
