"""Files to start from: a method, a partitioner or a notebook, each with a test that passes as it is.

For a task and a paper see `scaffold_task` and `scaffold_paper`.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlora_kit import disk, paths
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments import atomic

KINDS = ("method", "partitioner", "notebook", "task", "paper")
_ROOMS = {"method": "methods", "partitioner": "partition"}
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_IMPORTED = {
    "Any",
    "ClassVar",
    "ClientUpdate",
    "Indices",
    "Mapping",
    "Method",
    "Partitioner",
    "Sequence",
    "State",
}


@dataclass(frozen=True)
class Plan:
    """What will be written.

    Attributes:
        files: path -> text; none of the paths is taken.
        registered: the name under which a run's description knows it; of a notebook its item.
        own: whether it goes to a folder of the user's own.
        changed: a file of the kit that gets an import: path -> its new text.
        table: of a task, the item and the settings that a table of it is made with.
        notebook: the .py file of which an .ipynb is made.
    """

    kind: str
    files: dict[Path, str]
    registered: str
    own: bool
    changed: dict[Path, str]
    table: tuple[str, str] = ("", "")
    notebook: Path | None = None

    def write(self) -> None:
        """Write all files; a notebook's .ipynb is made from its .py."""
        for path, text in {**self.files, **self.changed}.items():
            atomic.write_text(path, text)
        if self.notebook is not None:
            from fedlora_kit.batch.pair import as_text

            atomic.write_text(self.notebook.with_suffix(".ipynb"), as_text(self.notebook))


def plan(kind: str, name: str, to: Path | None = None) -> Plan:
    """What `fedlora new` writes; nothing is written yet.

    Args:
        name: lower-case words joined by hyphens or underscores.
        to: a folder of the user's own; None for the checkout that this package is imported from.

    Raises:
        UnknownName: no such kind.
        BadValue: a name that is no identifier or taken, no checkout, a folder that cannot be used.
    """
    if kind not in KINDS:
        raise UnknownName("kind of file", kind, KINDS)
    module = checked_name(kind, name)
    class_name = "".join(word.capitalize() for word in module.split("_"))
    registered = {"method": module.replace("_", "-"), "notebook": f"own/{module}"}.get(kind, module)
    taken = _taken(kind, registered, class_name)
    if taken:
        raise BadValue(f"{taken} already", "choose another name")
    target, test = places(kind, module, to)
    files = {target: f"{kind}.py.j2", test: f"{kind}_test.py.j2"}
    values = {
        "module": module,
        "name": module if kind == "notebook" else registered,
        "cls": class_name,
        "title": module.replace("_", " ").capitalize(),
        "own": to is not None,
        "item": registered,
    }
    changed = {}
    if to is None and kind in _ROOMS:
        init = target.with_name("__init__.py")
        changed[init] = announced(init.read_text("utf-8"), f"fedlora_kit.{_ROOMS[kind]}", module, class_name)
    texts = {path: rendered(template, values) for path, template in files.items()}
    notebook = target if kind == "notebook" else None
    return Plan(kind, texts, registered, to is not None, changed, notebook=notebook)


def checked_name(kind: str, name: str) -> str:
    """The module's name for a thing of that name.

    Raises:
        BadValue: it is not of lower-case words joined by hyphens or underscores.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or not module.isidentifier() or keyword.iskeyword(module):
        raise BadValue(
            f"{name!r} cannot be the name of a {kind}",
            "lower-case letters and digits, words joined by - or _, a letter first: my-method",
        )
    return module


def _taken(kind: str, registered: str, class_name: str) -> str:
    """What has the name, as the beginning of an error; empty if nothing."""
    if kind == "notebook":
        return ""
    from fedlora_kit import methods, partition

    known: Iterable[str] = methods.METHODS if kind == "method" else partition.partitioner_names()
    if registered in known:
        return f"a {kind} called {registered!r} is registered"
    room = methods if kind == "method" else partition
    if class_name in {*_IMPORTED, *room.__all__}:
        return f"a class called {class_name} is there"
    return ""


def places(kind: str, module: str, to: Path | None) -> tuple[Path, Path]:
    """Where the file and its test go.

    Raises:
        BadValue: one of them is there, the new file would hide a module, or the folder cannot be used.
    """
    target, test = _places(kind, module, to)
    for path in (target, test, *([target.with_suffix(".ipynb")] if kind == "notebook" else [])):
        if path.exists():
            raise BadValue(f"{path} is there already", "choose another name")
    return target, test


def _places(kind: str, module: str, to: Path | None) -> tuple[Path, Path]:
    if to is not None:
        folder = disk.folder(str(to), "--to")
        if (folder / "__init__.py").exists():
            raise BadValue(f"{folder} is a Python package", "name a plain folder with --to")
        if not (folder / f"{module}.py").exists() and importlib.util.find_spec(module) is not None:
            raise BadValue(
                f"a Python module called {module!r} is installed already, and the new file would hide it",
                "choose another name",
            )
        return folder / f"{module}.py", folder / f"test_{module}.py"
    root = paths.home() if kind == "notebook" else paths.checkout()
    if root is None:
        raise BadValue("the kit is installed here, and no checkout", "name a folder of your own: --to DIR")
    if not any((root / sign).is_file() for sign in (paths.MARKER, "tests/conftest.py")):
        raise BadValue(f"{root} is no checkout of the kit", "name a folder of your own: --to DIR")
    room = root / "notebooks" / "own" if kind == "notebook" else root / "fedlora_kit" / _ROOMS[kind]
    return room / f"{module}.py", root / "tests" / f"test_{module}.py"


def rendered(template: str, values: dict[str, Any]) -> str:
    """A file's text from its template in ``templates/``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedlora_kit.cli", "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def announced(text: str, package: str, module: str, class_name: str) -> str:
    """The ``__init__.py`` of a room with one class more: its import and its name in ``__all__``, both sorted.

    Raises:
        BadValue: it has not the form that is expected.
    """
    lines = text.splitlines()
    imports = [i for i, line in enumerate(lines) if line.startswith(f"from {package}.")]
    listed = [i for i, line in enumerate(lines) if re.fullmatch(r'    "\w+",', line)]
    classes = [i for i in listed if re.match(r"[A-Z]\w*[a-z]", lines[i].strip(' ",'))]
    if not imports or not classes:
        raise BadValue(f"{package} has an unexpected __init__.py", "use --to DIR, or import the class there")
    entry = f'    "{class_name}",'
    at = next((i for i in classes if lines[i] > entry), classes[-1] + 1)
    lines.insert(at, entry)
    after = [i for i in imports if lines[i].split()[1] > f"{package}.{module}"]
    lines.insert(after[0] if after else imports[-1] + 1, f"from {package}.{module} import {class_name}")
    return "\n".join(lines) + "\n"
