"""Strict notebook parameters: values are data, never code, and an unknown name is an error.

papermill itself only logs a warning for an unknown parameter, and its line-wise reader loses a declaration
whose comment holds an ``=`` and cuts a default at a ``#``. So the cell is read from its syntax tree
instead, which agrees with ``papermill.inspect_notebook`` wherever that reads the line at all.
"""

from __future__ import annotations

import ast
import io
import json
import math
import os
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.study.item import Item

TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NONE = ("none", "null")
_OPTIONS = {"profile": "--profile", "output_dir": "--output"}


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: ``name: type = default  # help``.

    ``type`` is one of `TYPES`, with `` | None`` behind it where ``None`` is allowed.
    """

    name: str
    type: str
    default: Any
    help: str

    @property
    def optional(self) -> bool:
        return self.type.endswith(" | None")

    @property
    def base(self) -> str:
        return self.type.removesuffix(" | None")


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook's JSON (format 4).

    Raises:
        BadValue: the file is missing, damaged, or of an older format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadValue(f"notebook {path.name} is missing", f"expected at {path}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadValue(
            f"notebook {path} is damaged: {error}", "restore it from git, or from its paired .py"
        ) from None
    if not isinstance(content, dict) or (content.get("nbformat"), type(content.get("cells"))) != (4, list):
        raise BadValue(f"{path} is not a notebook of format 4", "open and save it in JupyterLab")
    return content


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares in its cell tagged ``parameters``, in order.

    Raises:
        BadValue: no such cell, or a line in it that is not a typed assignment of a plain value.
    """
    for cell in read_notebook(path)["cells"]:
        if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", []):
            source = cell["source"]
            return _declared(source if isinstance(source, str) else "".join(source), path)
    raise BadValue(
        f"notebook {path.name} has no cell tagged 'parameters'",
        "tag the cell that sets profile and output_dir",
    )


def coerce(name: str, value: Any, parameter: Parameter, notebook: str = "") -> Any:
    """``value`` as the parameter's type; text (from ``--set``) is parsed, other values are only checked.

    Lists are comma separated; ``none`` is ``None`` where that is allowed. Whole numbers are taken for
    floats, nothing else is converted.

    Raises:
        BadValue: names the notebook, the parameter, the value and the type.
    """

    def refuse(reason: str = "") -> BadValue:
        where = f" of {notebook}" if notebook else ""
        return BadValue(
            f"parameter {name!r}{where} cannot be {value!r}{': ' + reason if reason else ''}",
            f"it takes {_describe(parameter)}",
        )

    if parameter.optional and (value is None or (isinstance(value, str) and value.strip().lower() in _NONE)):
        return None
    several, inner = parameter.base.startswith("list["), parameter.base.removeprefix("list[").rstrip("]")
    parts: Any = value
    if several and isinstance(value, str):
        text = value.strip()
        inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        parts = [part.strip() for part in inside.split(",")]
        if "" in parts:
            raise refuse("an entry is empty")
    if several and not isinstance(parts, list | tuple):
        raise refuse()
    try:
        return [_scalar(part, inner) for part in parts] if several else _scalar(value, inner)
    except ValueError as error:
        raise refuse(str(error)) from None


def parse_settings(pairs: Iterable[str]) -> dict[str, str]:
    """``["rounds=3", "tasks=a,b"]`` → ``{"rounds": "3", "tasks": "a,b"}``.

    Raises:
        BadValue: no ``=``, a name that is no name, or one name twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        name = name.strip()
        if not separator or not name.isidentifier():
            raise BadValue(f"--set {pair!r} is not of the form key=value", "write for example --set rounds=3")
        if name in settings:
            raise BadValue(
                f"--set names {name!r} twice",
                "give it once; lists are comma separated: --set tasks=sst2,qnli",
            )
        settings[name] = value
    return settings


def notebook_path(item: Item) -> Path:
    """Where the item's notebook lies.

    Raises:
        BadValue: it is only planned.
    """
    if item.notebook is None:
        raise BadValue(
            f"{item.id} has no notebook yet: it is planned",
            "`fedlora list` shows which items have a notebook",
        )
    return item.path


def resolve(item: Item, settings: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """``settings`` checked against what the item's notebook declares, each value of its declared type, and
    the item's own parameters.

    Args:
        given: parameters that have an option of their own, and cannot be among the settings.

    Raises:
        UnknownName: a name the notebook does not declare.
        BadValue: a value of the wrong type; one of the item's own parameters, or one that has an option of
            its own; no notebook.
    """
    for name in _OPTIONS.keys() & settings.keys():
        raise BadValue(f"{name!r} cannot be set with --set", f"use {_OPTIONS[name]}")
    declared = read_parameters(notebook_path(item))
    values = {}
    for name, value in {**settings, **item.parameters, **given}.items():
        if name in settings and name in item.parameters:
            raise BadValue(
                f"{name!r} of {item.id} is always {item.parameters[name]!r}", f"leave {name}={value} out"
            )
        if name not in declared:
            raise UnknownName(f"parameter of notebook {item.id}", name, declared)
        values[name] = coerce(name, value, declared[name], f"notebook {item.id}")
    return values


def _declared(source: str, path: Path) -> dict[str, Parameter]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise BadValue(
            f"the parameters cell of {path.name} is not Python", f"correct it: {error.msg}"
        ) from None
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        line = ast.get_source_segment(source, node) or ""
        bad = BadValue(
            f"the parameters cell of {path.name} holds the line {line.splitlines()[0]!r}",
            f"write name: type = value  # help; types: {', '.join(TYPES)}, each also with | None",
        )
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        value = getattr(node, "value", None)
        if not isinstance(target, ast.Name) or value is None:
            raise bad
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise bad from None
        annotation = getattr(node, "annotation", None)
        kind = _inferred(default) if annotation is None else _normal(ast.unparse(annotation))
        if kind is None:
            raise bad
        found[target.id] = Parameter(target.id, kind, default, comments.get(node.end_lineno or 0, ""))
    return found


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def _normal(annotation: str) -> str | None:
    """An annotation in the spelling of `TYPES`, or None where it is no such type."""
    plain = re.sub(r"^(?:typing\.)?Optional\[(.*)\]$", r"\1 | None", annotation.strip("'\""))
    parts = [part.strip() for part in plain.replace("List[", "list[").split("|")]
    kinds = [part for part in parts if part != "None"]
    if len(kinds) != 1 or kinds[0] not in TYPES:
        return None
    return f"{kinds[0]} | None" if "None" in parts else kinds[0]


def _inferred(default: Any) -> str | None:
    if isinstance(default, bool | int | float | str):
        return type(default).__name__
    if isinstance(default, list) and default and len({type(entry) for entry in default}) == 1:
        kind = f"list[{type(default[0]).__name__}]"
        return kind if kind in TYPES else None
    return None


def _scalar(value: Any, kind: str) -> Any:
    """Raises ValueError with the reason (may be empty)."""
    text = value.strip() if isinstance(value, str) else None
    if kind == "str":
        if text is None:
            raise ValueError(f"{value!r} is no text")
        # a folder that is named from here: the notebook runs elsewhere
        here = value.startswith(("./", "../")) and "\0" not in value and os.path.isdir(value)
        return os.path.abspath(value) if here else value
    if kind == "bool":
        if text is not None and text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        if isinstance(value, bool):
            return value
        raise ValueError(f"{value!r} is neither true nor false")
    if kind == "int":
        if text is not None and re.fullmatch(r"[+-]?[0-9]+", text):
            return int(text)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ValueError(f"{value!r} is no {'number' if isinstance(value, bool) else 'whole number'}")
    try:
        number = math.nan if isinstance(value, bool) else float(value if text is None else text)
    except (ValueError, OverflowError, TypeError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{value!r} is no number")
    return number


def _describe(parameter: Parameter) -> str:
    words = {
        "int": "a whole number, such as 3",
        "float": "a number, such as 0.1 or 1e-3",
        "str": "a text",
        "bool": "true or false",
        "list[int]": "whole numbers separated by commas, such as 0,1,2",
        "list[float]": "numbers separated by commas, such as 0.1,1",
        "list[str]": "words separated by commas, such as sst2,qnli",
    }[parameter.base]
    none = ", or none" if parameter.optional else ""
    return f"{words}{none} ({parameter.help or 'type ' + parameter.type})"
