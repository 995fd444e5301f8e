"""A frame as text: flat, with numbers in like decimals, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fedlora_kit import numerals
from fedlora_kit.errors import BadValue

if TYPE_CHECKING:
    import pandas as pd


def flat_frame(df: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with plain columns: an index becomes columns, levels of columns are joined by a space.

    Raises:
        BadValue: it has no rows or columns.
    """
    import pandas as pd

    if df.shape[0] == 0 or df.shape[1] == 0:
        raise BadValue(f"the table {name!r} is empty", "check that the runs gave results for its cells")
    plain = isinstance(df.index, pd.RangeIndex) and df.index.name is None
    flat = df.copy()
    if isinstance(flat.columns, pd.MultiIndex):
        flat.columns = pd.Index(
            [" ".join(str(part) for part in parts if str(part)) for parts in flat.columns]
        )
    flat.columns.name = None
    return flat if plain else flat.reset_index()


def texts(df: pd.DataFrame, digits: int) -> tuple[list[str], list[list[str]], list[bool]]:
    """Header, cells as text, and which columns hold numbers."""
    import numpy as np
    import pandas as pd

    def shown(values: Iterable[Any]) -> list[str]:
        cells = list(values)
        floats = [i for i, value in enumerate(cells) if isinstance(value, float | np.floating)]
        texts = [numerals.MISSING if value is None or value is pd.NA else str(value) for value in cells]
        for i, text in zip(floats, numerals.column((cells[i] for i in floats), digits), strict=True):
            texts[i] = text
        return texts

    columns = [shown(df.iloc[:, i].astype(object)) for i in range(df.shape[1])]
    numeric = [bool(pd.api.types.is_numeric_dtype(dtype)) for dtype in df.dtypes]
    return shown(df.columns), [list(row) for row in zip(*columns, strict=True)], numeric


def markdown(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], note: str = ""
) -> str:
    """A Markdown table; ``note`` stands below it."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    def safe(cells: Sequence[str]) -> list[str]:
        return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]

    align = ["right" if number else "left" for number in numeric]
    body = [safe(row) for row in rows]
    text: str = tabulate(body, safe(header), tablefmt="pipe", disable_numparse=True, colalign=align)
    return text + "\n" + (f"\n{note}\n" if note else "")
