"""Notebook cells for tests that have no notebook."""

from __future__ import annotations

import itertools
import linecache
from typing import Any

_NUMBERS = itertools.count()


def cell(source: str, **names: Any) -> dict[str, Any]:
    """The names of a notebook in which ``source`` is a cell: no file, its text in linecache alone.

    Args:
        names: what the notebook knows already.
    """
    file = f"/nowhere/cell_{next(_NUMBERS)}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    place: dict[str, Any] = {**names, "__name__": "__main__"}
    exec(compile(source, file, "exec"), place)
    return place
