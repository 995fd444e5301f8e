"""Which source a function of the user's own has, which names it reads, and which it changes."""

from __future__ import annotations

import ast
import dis
import linecache
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_files
from fedlora_kit.experiments.source import canonical

#: methods that change what they belong to: of containers, tensors and files
_CHANGING = {
    *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add"),
    *("discard", "appendleft", "popleft", "fill_", "copy_", "zero_", "add_", "mul_", "sub_", "div_"),
    *("write", "writelines"),
}


@dataclass(frozen=True)
class Written:
    """A function as it is written.

    Attributes:
        text: its source, blind to docstrings and layout; of all lambdas that begin in its line.
        changes: what lies outside of it and is changed by it, as "x" and "x.y": by ``global x``,
            ``nonlocal x``, ``x[k] = v``, ``x.y = v``, ``x.y.append(v)``.
    """

    text: bytes
    changes: frozenset[str]


def written(function: FunctionType) -> Written | None:
    """How a function is written; None where no file and no cell has it.

    Raises:
        BadValue: its file has changed since it was imported, or cannot be read.
    """
    code = function.__code__
    path = Path(code.co_filename)
    if path.is_file():
        source = own_files.read(path.resolve())
        plain = type(function.__globals__.get("__loader__")) is SourceFileLoader
        if plain and (source is None or code not in source.codes):  # its text speaks for what was imported
            raise BadValue(
                f"{path.name} has changed since {function.__qualname__} was imported from it",
                "restart the kernel (or the process), or import the file anew",
            )
    else:
        source = _cell("".join(linecache.getlines(code.co_filename)))
    nodes = source.functions.get((code.co_name, code.co_firstlineno)) if source is not None else None
    return _written(tuple(nodes)) if nodes else None


@lru_cache(maxsize=1024)
def _written(nodes: tuple[own_files.Function, ...]) -> Written:
    text = "\n".join(map(canonical, nodes)).encode("utf-8", "surrogatepass")
    return Written(text, frozenset(_changed(nodes)))


@lru_cache(maxsize=256)
def _cell(text: str) -> own_files.Source | None:
    return own_files.parse(text)


@lru_cache(maxsize=1024)
def names_in(code: CodeType) -> frozenset[str]:
    """Names of globals and attributes in a function and in those inside it."""
    return frozenset(name for one in own_files.all_codes(code) for name in one.co_names)


@lru_cache(maxsize=1024)
def globals_read(code: CodeType) -> frozenset[str]:
    """Names that a function, or one inside it, looks up among the globals."""
    return frozenset(
        str(step.argval)
        for one in own_files.all_codes(code)
        for step in dis.get_instructions(one)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    )


def _changed(nodes: Iterable[ast.AST]) -> set[str]:
    declared: set[str] = set()
    found: set[str] = set()
    local: set[str] = set()
    for node in (inner for top in nodes for inner in ast.walk(top)):
        if isinstance(node, ast.Global | ast.Nonlocal):
            declared.update(node.names)
        elif isinstance(node, ast.arg):
            local.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            local.add(node.id)
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found.update(_chain(node))
        elif isinstance(node, ast.Attribute) and node.attr in _CHANGING:
            found.update(_chain(node.value))
    return {name for name in found if name.partition(".")[0] not in local} | declared


def _chain(node: ast.expr) -> set[str]:
    """``x.y[k].z`` -> {"x", "x.y"}; empty where it does not begin with a name."""
    attributes: list[str] = []
    while isinstance(node, ast.Subscript | ast.Attribute):
        attributes = [] if isinstance(node, ast.Subscript) else [node.attr, *attributes]
        node = node.value
    if not isinstance(node, ast.Name):
        return set()
    parts = [node.id, *attributes]
    return {".".join(parts[: end + 1]) for end in range(len(parts))}
