"""Files and paper folders of the user's own: named once, known to every process that is started from here.

``--with`` of each command and `notebook.use` import them here and name them in an environment variable.
Kernels, training processes and Flower's nodes inherit it, and import the same before they begin; a job for
Ray names them, too. They register what they define, and what such a class reaches is part of its runs' keys
(`experiments.reach`).
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import ModuleType

from fedlora_kit.disk import here
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.surroundings import environment

VARIABLE = "FEDLORA_WITH"
PAPER = "paper.py"
"""The file that makes a folder a paper's: the folder is a package, and this is what it begins with."""
REPORTED = "reported.csv"
"""The numbers that a paper reports, beside its `PAPER`."""
START_UP = "from fedlora_kit.experiments import own_code\nown_code.modules()\ndel own_code\n"
"""What a kernel runs first."""


def files() -> list[Path]:
    """The files and folders that `VARIABLE` names, each once."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return list(dict.fromkeys(_place(Path(name)) for name in named if name))


def modules() -> list[ModuleType]:
    """What `files` names, imported, in its order.

    Raises:
        BadValue: see `load`.
    """
    return load(files())


def within() -> AbstractContextManager[None]:
    """What is named inside the block is named until its end: another command of the same process does not
    carry it along."""
    return environment({VARIABLE: os.environ.get(VARIABLE, "")})


def name_files(paths: Iterable[Path]) -> list[ModuleType]:
    """Import files and folders here, beside those that are named already, and have the processes that this
    one starts from now on import them, too; to the end of a block `within`, where there is one.

    Raises:
        BadValue: one that is missing, whose path has the character that parts paths, or that cannot be
            imported.
    """
    whole = [_place((here() / path.expanduser()).resolve()) for path in paths]
    for path in whole:
        if os.pathsep in str(path):
            raise BadValue(
                f"{path} has a {os.pathsep!r} in its path, which parts paths in {VARIABLE}",
                "move the file, or rename its folder",
            )
    loaded = load(whole)
    os.environ[VARIABLE] = os.pathsep.join(map(str, dict.fromkeys([*files(), *whole])))
    return loaded


def load(paths: Iterable[Path]) -> list[ModuleType]:
    """Import files and folders by their places, each once, under their own names.

    A file may import modules that lie beside it. A folder with a `PAPER` is a package: ``folder`` is that
    file, ``folder.table1`` the file beside it. Hyphens of its name become underscores.

    Returns:
        The modules, in the order of ``paths``.

    Raises:
        BadValue: one that is missing, whose name a module has already, or that raises when it is imported.
    """
    return [_module(_place(path)) for path in paths]


def package_name(folder: Path) -> str:
    """The name under which a paper's folder is imported."""
    return re.sub(r"\W", "_", folder.name)


def _place(path: Path) -> Path:
    """A folder by whichever of its two names."""
    return path.parent if path.name == PAPER else path


def _module(path: Path) -> ModuleType:
    if path.is_dir():
        file, name, inside = path / PAPER, package_name(path), [str(path)]
        if not file.is_file():
            raise BadValue(
                f"{path} has no {PAPER}", "name a .py file, or a folder that `fedlora new paper` wrote"
            )
    else:
        file, name, inside = path, path.stem, None
        if path.suffix != ".py" or not path.is_file():
            raise BadValue(f"{path} is no Python file", "name a .py file, as `fedlora new method` writes it")
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) == str(file):
        return there
    if there is not None or _hides(name, file):
        raise BadValue(f"a module called {name!r} is there already", f"give {path.name} another name")
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    assert spec is not None
    assert spec.loader is not None
    if inside is None and str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # at the end: nothing that is installed is hidden
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[one]
        if isinstance(error, FedloraError) or not isinstance(error, Exception):
            raise
        raise BadValue(
            f"{file.name} cannot be imported: {type(error).__name__}: {error}",
            f"run its test: python -m pytest {file.with_name('test_' + file.name)}",
        ) from error
    return module


def _hides(name: str, file: Path) -> bool:
    """Whether a plain import of the name finds another file."""
    spec = importlib.util.find_spec(name)
    if spec is None or str(file.parent) in (spec.submodule_search_locations or ()):
        return False
    return spec.origin is None or Path(spec.origin).resolve() != file


def contents(cells: Iterable[str] = (), folder: Path | None = None) -> list[tuple[str, str]]:
    """(file name, SHA-256 of its code) of what `files` names, a paper's reported numbers among it, and of
    what these import of the user's own.

    Args:
        cells: of a notebook in ``folder``: what they import, or name in `notebook.use`, counts as well.

    Raises:
        BadValue: a file cannot be read.
    """
    from fedlora_kit.experiments import own_files

    found = files()
    for cell in cells:
        with suppress(SyntaxError, ValueError):  # such a cell will say so itself
            lines = [line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!", "?"))]
            tree, place = ast.parse("\n".join(lines)), folder or here()
            found += own_files.imported(own_files.imports_in(tree), place)
            found += [(place / name).resolve() for name in _used(tree)]
    whole = [part for path in found for part in _parts(path)]
    return own_files.closure([path for path in whole if path.is_file()])


def _parts(path: Path) -> Sequence[Path]:
    return (path / PAPER, path / REPORTED) if path.is_dir() else (path,)


def _used(tree: ast.Module) -> list[str]:
    """What a cell names in ``kit.use(...)``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [c.args for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "use"]
    return [
        a.value for args in named for a in args if isinstance(a, ast.Constant) and isinstance(a.value, str)
    ]
