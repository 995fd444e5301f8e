"""Which runs stand behind a number of a table.

An item's tables by run (``results.csv``, ``grid.csv``, …: columns ``seed`` and ``key``) name the runs. A
number of another table is traced to them by its coordinates, and *checked*: only where the mean over those
runs gives the printed digits does the page say what the number is the mean of. Where the coordinates fit and
no column does (a notebook may compute something else from its runs), the page names the runs and says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from statistics import fmean, stdev

from fedlora_kit.numerals import half_a_unit
from fedlora_kit.reporting.tables import Table, finite, number
from fedlora_kit.study import words

_KEY = re.compile(r"[0-9a-f]{16}")
_WRITTEN = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_MEAN = re.compile(rf"([+−-]?{_WRITTEN})(?: ± ({_WRITTEN}))?(?: \(.*)?")
_THEIRS = ("official", "published", "reported")  # in the name of a table that holds others' numbers
_MANY = 200  # rows; a longer table is raw material, not a result
_DIGITS = 4  # of a number without a spread, so that agreement is no coincidence

Rows = tuple[int, ...]
Behind = tuple["Source", Rows, list[str], bool]
"""Source, rows, the columns whose mean is the number, and whether it is their spread instead."""


@dataclass(frozen=True)
class Evidence:
    """The runs behind one number.

    Attributes:
        id: the fragment of the page that leads here.
        title: the number and where it stands.
        said: how it comes from the runs.
        runs: (key, seed, the run's own value or ""), for a claim also which side of it the run is on.
    """

    id: str
    title: str
    said: str
    runs: tuple[tuple[str, ...], ...]


@dataclass
class Source:
    """A table by run: coordinates before ``seed`` and ``key``, values after them.

    Of a table with a column ``round`` only each run's last round is taken.
    """

    table: Table
    coords: list[str] = field(init=False)
    values: list[str] = field(init=False)
    rows: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        header = self.table.header
        first = min(header.index(name) for name in ("seed", "key") if name in header)
        self.coords = header[:first]
        records = [dict(zip(header, row, strict=True)) for row in self.table.raw]
        if "round" in header[first:]:
            records = list({tuple(r[c] for c in (*self.coords, "key")): r for r in records}.values())
        self.rows = [row for row in records if _KEY.fullmatch(row["key"])]
        self.values = [
            name
            for name in header[first:]
            if name not in ("seed", "key", "round")
            and any(finite(row[name]) is not None for row in self.rows)
        ]
        self._stats: dict[tuple[Rows, str], tuple[float, float, int]] = {}

    def at(self, coords: Mapping[str, str]) -> Rows:
        """The rows that have these coordinates."""
        rows: Rows = tuple(range(len(self.rows)))
        for column, value in coords.items():
            rows = self.where(rows, column, value)
        return rows

    def where(self, rows: Rows, column: str, value: str) -> Rows:
        """Those of ``rows`` that have this coordinate, however it is spelt (6, 6.0)."""
        return tuple(i for i in rows if spelt(self.rows[i][column]) == spelt(value))

    def stats(self, rows: Rows, column: str) -> tuple[float, float, int]:
        """Mean, standard deviation (n − 1) and number of the finite values."""
        if (rows, column) not in self._stats:
            found = [v for i in rows if (v := finite(self.rows[i][column])) is not None]
            mean = fmean(found) if found else math.nan
            self._stats[rows, column] = (mean, stdev(found) if len(found) > 1 else math.nan, len(found))
        return self._stats[rows, column]


def spelt(text: str) -> str:
    """A coordinate as `study.reported.cell` writes it."""
    value = number(text)
    if value is not None and math.isfinite(value):
        return f"{value:.12g}"
    return "none" if text in ("", "nan") else text.lower() if text in ("True", "False") else text


def sources(tables: Sequence[Table]) -> list[Source]:
    """The tables by run, the results first."""
    order = {"results": 0, "runs": 1}
    found = [Source(table) for table in tables if {"seed", "key"} <= set(table.header)]
    return sorted((s for s in found if s.rows), key=lambda s: (order.get(s.table.name, 2), s.table.name))


def keys(tables: Sequence[Table]) -> list[str]:
    """Every run that an item's tables name, each once."""
    named = [(table.header.index("key"), table) for table in tables if table.by_run]
    return list(dict.fromkeys(r[i] for i, table in named for r in table.raw if _KEY.fullmatch(r[i])))


def trace(table: Table, known: Sequence[Source], prefix: str) -> Iterator[Evidence]:
    """Link the numbers of ``table`` to their runs; what each link shows.

    Args:
        table: gets its ``links``: to ``#run-<key>`` in a table by run, else to the evidence yielded here.
        known: from `sources`.
        prefix: of the fragments, unique on the page.
    """
    if table.by_run:
        column = table.header.index("key")
        table.links = {
            (i, column): f"#run-{row[column]}"
            for i, row in enumerate(table.raw)
            if _KEY.fullmatch(row[column])
        }
        return
    if len(table.rows) > _MANY or any(word in table.name for word in _THEIRS):
        return
    behind = {
        (i, j): found
        for i, row in enumerate(table.raw)
        for j, text in enumerate(row)
        if _MEAN.fullmatch(text) and (found := _behind(table, i, j, known)) is not None
    }
    of = _shared(table, behind)
    table.of = of if any(" ± " in table.raw[i][j] for i, j in behind) else ""
    for i, row in enumerate(table.raw):
        for j in range(len(row)):
            if (i, j) in behind:
                source, rows, columns, spread = behind[i, j]
                columns = sorted(columns, key=lambda c: c != of)
                at = _at(source, table.header, row)
                where = " · ".join(
                    [*(words.value(table.header[k], row[k]) for k in at), words.heading(table.header[j])]
                )
                shown = table.rows[i][j]
                evidence = _evidence(f"{prefix}-{i}-{j}", f"{where}: {shown}", source, rows, columns, spread)
                table.links[i, j] = f"#{evidence.id}"
                yield evidence


def trace_cell(
    name: dict[str, str],
    mean: str,
    count: str,
    shown: str,
    known: Sequence[Source],
    fragment: str,
    metric: str = "",
) -> Evidence | None:
    """The runs behind a cell of the comparison; all of the item's where its name gives no coordinates.

    ``metric`` ("best test accuracy %") tells columns apart that give the same mean.
    """
    kinds = {word: word in metric.replace(" ", "") for word in ("best", "last10")}
    for source in known:
        rows = source.at(name) if name.keys() <= set(source.coords) else ()
        if rows:
            columns = [
                column
                for column in source.values
                if _close(source.stats(rows, column)[0], finite(mean), 1e-9)
                and source.stats(rows, column)[2] == finite(count)
            ]
            columns.sort(key=lambda c: sum(c.endswith(f"_{kind}") != said for kind, said in kinds.items()))
            title = " · ".join(words.place(key, value) for key, value in name.items())
            return _evidence(fragment, f"{title}: {shown}", source, rows, columns)
    if not known:
        return None
    title = " · ".join(name.values())
    return _evidence(fragment, f"{title}: {shown}", known[0], known[0].at({}), [])


def _shared(table: Table, behind: dict[tuple[int, int], Behind]) -> str:
    """The column that gives every mean with a spread in the table; "" where there is none.

    A run's last score may be its best one, so that one cell alone does not tell which of them it holds.
    """
    means = [columns for at, (*_, columns, _) in behind.items() if " ± " in table.raw[at[0]][at[1]]]
    common = [c for c in means[0] if all(c in columns for columns in means)] if means else []
    return common[0] if common else ""


def _at(source: Source, header: Sequence[str], row: Sequence[str]) -> list[int]:
    """Columns of a table that are coordinates of the source, and name some of its rows."""
    return [k for k, name in enumerate(header) if name in source.coords and source.at({name: row[k]})]


def _behind(table: Table, i: int, j: int, known: Sequence[Source]) -> Behind | None:
    """What stands behind one number."""
    weak: Behind | None = None
    for source in known:
        at = _at(source, table.header, table.raw[i])
        if j in at or not at:
            continue
        rows = source.at({table.header[k]: table.raw[i][k] for k in at})
        free = [c for c in source.coords if c not in {table.header[k] for k in at}]
        named = rows
        for token in [table.header[j], *re.split(r"[,:]\s*|\s", table.header[j])]:
            for column in free:
                named = source.where(named, column, token) or named
        for chosen in dict.fromkeys([named, rows, *_groups(source, rows, free)]):
            for spread in (False, True):
                columns = [c for c in source.values if _is(table.raw[i][j], source.stats(chosen, c), spread)]
                if columns:
                    words = f"{table.name} {table.header[j]}".lower().replace("-", "_").replace(" ", "_")
                    columns.sort(key=lambda c: (c not in words, -len(c) if c in words else 0))
                    return source, chosen, columns, spread
        weak = weak or ((source, named, [], False) if named else None)
    return weak


def _groups(source: Source, rows: Rows, free: Sequence[str]) -> Iterator[Rows]:
    """``rows`` parted by one coordinate, then by two."""
    for n in (1, 2):
        for columns in combinations(free, n):
            values = [dict.fromkeys(source.rows[i][c] for i in rows) for c in columns]
            for chosen in product(*values):
                part = rows
                for column, value in zip(columns, chosen, strict=True):
                    part = source.where(part, column, value)
                if part and part != rows:
                    yield part


def _is(text: str, stats: tuple[float, float, int], spread: bool) -> bool:
    """Whether a printed number is this mean (with this spread), or this spread."""
    match = _MEAN.fullmatch(text)
    if match is None:
        return False
    mean, printed = match.groups()
    value = finite(mean.replace("−", "-"))
    tolerance = 1.0000002 * half_a_unit(mean)
    if printed is not None:
        return (
            not spread
            and _close(stats[0], value, tolerance)
            and _close(stats[1], finite(printed), 1.0000002 * half_a_unit(printed))
        )
    if len(mean.partition("e")[0].lstrip("+−-0.").replace(".", "")) < _DIGITS:
        return False
    return _close(stats[1] if spread else stats[0], value, tolerance)


def _close(found: float, value: float | None, tolerance: float) -> bool:
    return value is not None and abs(found - value) <= max(tolerance, 1e-9 * abs(value))


def _evidence(
    fragment: str, title: str, source: Source, rows: Rows, columns: Sequence[str], spread: bool = False
) -> Evidence:
    n = len(rows)
    runs = f"{n} run{'s' if n != 1 else ''}"
    if columns:
        also = f" ({', '.join(columns[1:4])} {'gives' if len(columns) == 2 else 'give'} the same)" * (
            len(columns) > 1
        )
        what = "standard deviation" if spread else "mean" if n > 1 else "value"
        good = source.stats(rows, columns[0])[2]
        over = runs if good == n else f"{good} of {runs} (the others gave no number)"
        said = f"The {what} of {columns[0]}{also} over {over}, from {source.table.name}.csv; checked."
    else:
        said = (
            f"The {runs} of these coordinates in {source.table.name}.csv. The number is no plain mean of a "
            "column there; how the notebook makes it stands in the item's executed notebook.ipynb."
        )
    named = [source.rows[i] for i in rows]
    behind = tuple((row["key"], row["seed"], row[columns[0]] if columns else "") for row in named)
    return Evidence(fragment, title, said, behind)
