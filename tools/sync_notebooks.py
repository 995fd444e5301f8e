"""Write each notebook's .ipynb anew from its paired .py percent file (what `make notebooks` runs).

The .py is what people review, the .ipynb what they open; tests/test_notebooks.py keeps them in step. The
.ipynb carries no outputs: executed notebooks lie under figures/.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def paired(source: Path) -> nbformat.NotebookNode:
    """The notebook that belongs to a .py file: kernel and language set, stable cell ids, no outputs."""
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


def main() -> int:
    for source in sorted(NOTEBOOKS.rglob("*.py")):
        target = source.with_suffix(".ipynb")
        text = nbformat.writes(paired(source)) + "\n"
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            print(f"wrote {target.relative_to(NOTEBOOKS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
