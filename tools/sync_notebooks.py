"""Write each notebook's .ipynb anew from its paired .py percent file (what `make notebooks` runs).

The .py is what people review, the .ipynb what they open; tests/test_notebooks.py keeps them in step. The
.ipynb carries no outputs: executed notebooks lie under figures/. Notebooks of the user's own (notebooks/own/)
are left alone: they may have been edited as .ipynb (`jupytext --sync` goes by which form is newer).
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedlora_kit.batch.pair import as_text, paired
from fedlora_kit.papers.items import OWN

__all__ = ["main", "paired"]
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main() -> int:
    folders = [NOTEBOOKS, *sorted((NOTEBOOKS.parent / "examples").glob("*/notebooks"))]
    for source in sorted(path for folder in folders for path in folder.rglob("*.py")):
        if source.parent == NOTEBOOKS / OWN:
            continue
        target, text = source.with_suffix(".ipynb"), as_text(source)
        if not target.exists() or target.read_text("utf-8") != text:
            target.write_text(text, "utf-8")
            print(f"wrote {target.relative_to(NOTEBOOKS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
