"""Write each notebook's .ipynb anew from its paired .py percent file (what `make notebooks` runs).

The .py is what people review, the .ipynb what they open; tests/test_notebooks.py keeps them in step. The
.ipynb carries no outputs: executed notebooks lie under figures/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedlora_kit.batch.pair import as_text, paired

__all__ = ["main", "paired"]
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def main() -> int:
    for source in sorted(NOTEBOOKS.rglob("*.py")):
        target, text = source.with_suffix(".ipynb"), as_text(source)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            print(f"wrote {target.relative_to(NOTEBOOKS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
