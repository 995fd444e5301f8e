"""The .ipynb that belongs to a .py percent file: the one is what people open, the other what they review."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def paired(source: Path) -> Any:
    """The notebook of a .py percent file: kernel and language set, stable cell ids, no outputs.

    Returns:
        An ``nbformat.NotebookNode`` of format 4.5.
    """
    import jupytext
    import nbformat

    notebook = jupytext.read(source)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
            "jupytext": {"formats": "ipynb,py:percent"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def as_text(source: Path) -> str:
    """That notebook as the text of its file."""
    import nbformat

    return f"{nbformat.writes(paired(source))}\n"
