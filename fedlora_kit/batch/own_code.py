"""Methods and partitioners from files of the user's own, for notebooks that run headlessly.

``fedlora reproduce --with FILE`` names them in an environment variable, which the processes of the notebooks
inherit; each kernel imports the files before its first cell. They register what they define, and what such a
class reaches is part of its runs' keys (`experiments.reach`).
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from fedlora_kit.disk import here
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.surroundings import environment

VARIABLE = "FEDLORA_WITH"
START_UP = "from fedlora_kit.batch import own_code\nown_code.load(own_code.files())\ndel own_code\n"
"""What a kernel runs first."""


def files() -> list[Path]:
    """The files that `VARIABLE` names."""
    return [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def within() -> AbstractContextManager[None]:
    """Files that are named inside the block are named until its end: another command of the same process
    does not carry them along."""
    return environment({VARIABLE: os.environ.get(VARIABLE, "")})


def name_files(paths: Iterable[Path]) -> None:
    """Import the files here, and have the processes that this one starts from now on import them, too; to
    the end of a block `within`, where there is one.

    Raises:
        BadValue: a file that is missing, whose path has the character that parts paths, or that cannot be
            imported.
    """
    whole = [(here() / path.expanduser()).resolve() for path in paths]
    for path in whole:
        if os.pathsep in str(path):
            raise BadValue(
                f"{path} has a {os.pathsep!r} in its path, which parts paths in {VARIABLE}",
                "move the file, or rename its folder",
            )
    load(whole)
    os.environ[VARIABLE] = os.pathsep.join(map(str, whole))


def load(paths: Iterable[Path]) -> None:
    """Import Python files by their place, each once, under the names of their stems; they may import modules
    that lie beside them.

    Raises:
        BadValue: a file that is missing, whose name a module has already, or that raises when it is imported.
    """
    for path in paths:
        if path.suffix != ".py" or not path.is_file():
            raise BadValue(f"{path} is no Python file", "name a .py file, as `fedlora new method` writes it")
        there = sys.modules.get(path.stem)
        if there is not None and getattr(there, "__file__", None) == str(path):
            continue
        if there is not None or _hides(path):
            raise BadValue(
                f"a module called {path.stem!r} is there already", f"give {path.name} another name"
            )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # at the end: nothing that is installed is hidden
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except FedloraError:
            del sys.modules[path.stem]
            raise
        except Exception as error:
            del sys.modules[path.stem]
            raise BadValue(
                f"{path.name} cannot be imported: {type(error).__name__}: {error}",
                f"run its test: python -m pytest {path.with_name('test_' + path.name)}",
            ) from error


def _hides(path: Path) -> bool:
    """Whether a plain import of the name finds another file."""
    spec = importlib.util.find_spec(path.stem)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path)


def contents(cells: Iterable[str] = (), folder: Path | None = None) -> list[tuple[str, str]]:
    """(file name, SHA-256 of its code) of the files and of what they import of the user's own.

    Args:
        cells: of a notebook in ``folder``: what they import counts as well.

    Raises:
        BadValue: a file cannot be read.
    """
    from fedlora_kit.experiments import own_files

    found = files()
    for cell in cells:
        with suppress(SyntaxError, ValueError):  # such a cell will say so itself
            lines = [line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!", "?"))]
            tree = ast.parse("\n".join(lines))
            found += own_files.imported(own_files.imports_in(tree), folder or here())
    return own_files.closure(found)
