"""Reads what was printed back as numbers, to hold it against the CSV file beside it."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

from fedlora_kit import numerals
from fedlora_kit.study import words

_POWER = re.compile(r"\$(-?)(?:([\d.]+) \\times )?10\^\{(-?\d+)\}\$")


def number(text: str) -> float | None:
    """The number of a printed cell (Markdown, LaTeX, terminal); NaN where it says that there is none."""
    text = _POWER.sub(lambda m: f"{m[1]}{m[2] or 1}e{m[3]}", text.strip()).replace("$\\infty$", "∞")
    text = text.replace("$-$", "-").replace("−", "-").replace(",", "").replace("∞", "inf")
    if text in (numerals.MISSING, "--", ""):
        return math.nan
    try:
        return float(text)
    except ValueError:
        return None


def close(printed: str, value: float, bound: float = numerals.BOUND) -> bool:
    """Whether a printed cell gives ``value`` back, to a relative error of ``bound``."""
    found = number(printed)
    if found is None or math.isnan(value) or math.isinf(value):
        return found is not None and (found == value or (math.isnan(found) and math.isnan(value)))
    return abs(found - value) <= bound * abs(value) * (1 + 1e-9)


def rows_of(path: Path) -> list[list[str]]:
    """Header and rows of a printed table, cells as they stand there."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".md":
        lines = [line[1:-1] for line in lines if line.startswith("|") and not re.match(r"\|:?-+", line)]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    body = [
        line.removesuffix(r" \\") for line in lines if line.endswith(r" \\") and "multicolumn" not in line
    ]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in body]


def wrong_cells(folder: Path) -> list[str]:
    """The cells of a folder's printed tables that are not what the CSV file beside them says."""
    return [
        f"{printed.name}: {wrong}"
        for table in sorted(folder.glob("*.csv"))
        for printed in (table.with_suffix(".md"), table.with_suffix(".tex"))
        if printed.exists()
        for wrong in (_comparison if table.stem == "comparison" else _table)(table, printed)
    ]


def _table(table: Path, printed: Path) -> list[str]:
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    found = rows_of(printed)
    if [len(row) for row in found] != [len(row) for row in rows]:
        return ["rows or columns are missing"]
    return [
        f"{name}: {value} is printed as {cell}"
        for row, line in zip(rows[1:], found[1:], strict=True)
        for name, value, cell in zip(rows[0], row, line, strict=True)
        if not _same(words.value(name, value), cell, printed.suffix)
        and not (name == "method" and cell.lower() == value)  # one that only the notebook registered
    ]


def _same(value: str, cell: str, kind: str) -> bool:
    read = math.nan if value in ("", "nan") else number(value)
    if read is not None:
        return close(cell, read)
    return kind == ".tex" or cell.replace("\\|", "|") == " ".join(value.splitlines())


def _comparison(table: Path, printed: Path) -> list[str]:
    with table.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    known = [record for record in records if record["published"]] or records
    header, *lines = rows_of(printed)
    wrong = []
    for record, line in zip(known, lines, strict=True):
        shown = dict(zip(header, line, strict=True))
        for side, *columns in (
            ("published", "published", "published_std"),
            ("reproduced", "reproduced_mean", "reproduced_std"),
            ("difference", "difference"),
        ):
            cells = re.split(r" ± | \$\\pm\$ ", shown[side])
            for cell, column in zip(cells, columns, strict=False):
                bound = numerals.BOUND * (10 if column.endswith("_std") else 1)
                if not close(cell.removeprefix("+"), float(record[column] or "nan"), bound):
                    wrong.append(f"{record['cell']}, {column}: {record[column]} is printed as {cell}")
    return wrong
