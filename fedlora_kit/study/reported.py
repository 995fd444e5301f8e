"""The numbers that the papers report, each with how well it is founded, and the names of table cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fedlora_kit import paths
from fedlora_kit.errors import BadValue, FedloraError

COLUMNS = ("paper", "item", "cell", "metric", "value", "std", "label", "source")
LABELS = ("SEEN", "SECOND", "REPLAYED", "DERIVED")
"""What a row's label begins with. A number that is unknown has no row."""


def cell(**coords: object) -> str:
    """The canonical name of a table cell: ``key=value`` by order of key, joined by ``|``.

    Values become text: ``None`` and NaN are ``none``, a whole float has no decimals. A cell whose source
    gives a phrase and no coordinates is ``cell(cell="the phrase")``, which is the phrase itself.

    Raises:
        BadValue: no coordinates, or ``|``, ``=`` or nothing in a key or value.

    >>> cell(task="sst2", method="lora", eps=6)
    'eps=6|method=lora|task=sst2'
    """
    if not coords:
        raise BadValue("a cell needs coordinates", "give at least one, such as method='lora'")
    texts = {key: _text(value) for key, value in coords.items()}
    for key, text in texts.items():
        if not key or not text.strip() or set("|=") & set(key + text):
            raise BadValue(f"{key}={text!r} cannot name a cell", "give text without | and =")
    if set(texts) == {"cell"}:
        return texts["cell"]
    return "|".join(f"{key}={texts[key]}" for key in sorted(texts))


def coords(name: str) -> dict[str, str]:
    """The coordinates that a cell's name gives, in any order; the inverse of :func:`cell`.

    Raises:
        BadValue: not of the form ``key=value|key=value``, or a key twice.

    >>> coords("eps=6|method=lora")
    {'eps': '6', 'method': 'lora'}
    >>> coords("gain over baseline")
    {'cell': 'gain over baseline'}
    """
    parts = [part.split("=") for part in name.split("|")] if "=" in name else [["cell", name]]
    if any(len(part) != 2 or not all(map(str.strip, part)) for part in parts):
        raise BadValue(f"cell {name!r} is not of the form key=value|key=value", "build it with cell(...)")
    found = {key: value for key, value in parts}  # noqa: C416 - says that the parts are pairs
    if len(found) != len(parts):
        raise BadValue(f"cell {name!r} gives a coordinate twice", "build it with cell(...)")
    return found


def _text(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return "none"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return f"{float(value):.12g}"
    return str(value)


def read(path: Path | None = None) -> pd.DataFrame:
    """All reported numbers, checked.

    Args:
        path: a CSV with the columns `COLUMNS`; the kit's own (``data/reported/reported.csv``) if not given.

    Returns:
        One row a number. ``value`` and ``std`` are floats, ``std`` NaN where none is known; the rest is text,
        ``cell`` in canonical form (the file may give the coordinates in another order).

    Raises:
        FedloraError: no such file.
        BadValue: columns, numbers, labels or cells are not as they should be; names the first line.
    """
    where = path or paths.data_dir() / "reported" / "reported.csv"
    if not where.is_file():
        raise FedloraError(
            f"the reported numbers are missing: {where}",
            "of the kit: restore the file, or set FEDLORA_HOME; of your own paper: write the line "
            f"{','.join(COLUMNS)}, and one more a number",
        )
    frame = pd.read_csv(where, dtype=str, keep_default_na=False)
    if tuple(frame.columns) != COLUMNS:
        raise BadValue(
            f"{where.name} has the columns {', '.join(frame.columns)}", f"expected {', '.join(COLUMNS)}"
        )
    seen: set[tuple[str, ...]] = set()
    cells: list[str] = []
    for line, row in enumerate(frame.to_dict("records"), start=2):
        problem = _problem({str(column): str(text) for column, text in row.items()})
        if not problem:
            cells.append(cell(**coords(row["cell"])))
            place = (row["paper"], row["item"], cells[-1], row["metric"])
            problem = f"{' '.join(place)} stands there twice" if place in seen else ""
            seen.add(place)
        if problem:
            raise BadValue(f"{where.name}, line {line}: {problem}", "correct the line")
    frame["cell"] = pd.Series(cells, dtype=frame["cell"].dtype)
    frame["value"] = frame["value"].astype(float)
    frame["std"] = [float(text or "nan") for text in frame["std"]]
    return frame


def _problem(row: dict[str, str]) -> str:
    """What is wrong with a line, or nothing."""
    if not row["paper"] or not row["item"]:
        return "paper or item is empty"
    try:
        coords(row["cell"])
    except BadValue as error:
        return error.problem
    if not _finite(row["value"]):
        return f"value {row['value']!r} is not a finite number"
    if row["std"] and not (_finite(row["std"]) and float(row["std"]) >= 0):
        return f"std {row['std']!r} is neither empty nor a number of 0 or more"
    if not row["label"].startswith(LABELS):
        return f"label {row['label']!r} does not begin with one of {', '.join(LABELS)}"
    return "" if row["metric"] and row["source"] else "metric or source is empty"


def _finite(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
