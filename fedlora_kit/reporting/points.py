"""The points of a figure: where they lie in the picture, and which runs they come from.

`points_of` writes down what was drawn. `trace_points` finds a point's runs as `evidence` finds those of a
number: by computing the value anew from a table by run, or by meeting it in another table, whose link it then
shares. Points of a line are looked for together; those that agree with two sets of runs, or none, get none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fedlora_kit.reporting.evidence import Evidence, spelt
from fedlora_kit.reporting.tables import Table, finite
from fedlora_kit.study import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 40  # points of a line
_AGREE = 0.8  # of a line's points must be found in one line of a table
_DIGITS = 4  # some point of a line has them, so that agreement is no coincidence
_ROWS = 20_000  # of a table that is searched

Point = tuple[int, str, float, float, float, float]
"""The number of its line and its label, x and y in the figure's units, the place in % from left and top."""
_READINGS: tuple[Callable[[Point], float], ...] = (
    lambda point: point[3],
    lambda point: point[3] / 100,
    lambda point: point[2],
    lambda point: point[2] / 100,
)
"""Which of a point's numbers may be the runs': y or x, as it is or in per cent."""


@dataclass(frozen=True)
class Spot:
    """A place in a picture, % from the left and the top, and the fragment that it leads to."""

    left: float
    top: float
    link: str
    title: str
    first: bool


def points_of(fig: Figure) -> list[Point]:
    """The points of lines, error bars, bars and scatters of a figure that has been drawn."""
    width, height = fig.bbox.width, fig.bbox.height
    found, line = [], 0
    for axes in fig.axes:
        for label, points in _drawn(axes):
            line += 1
            for x, y in points[:: max(1, math.ceil(len(points) / _MOST))]:
                across, up = axes.transData.transform((x, y))
                if math.isfinite(x + y) and axes.bbox.contains(across, up):
                    place = round(float(100 * across / width), 2), round(float(100 - 100 * up / height), 2)
                    found.append((line, label, float(x), float(y), *place))
    return found


def _drawn(axes: Axes) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer, ErrorbarContainer

    labels: dict[Any, str] = {}
    for container in axes.containers:
        label = str(container.get_label())
        if isinstance(container, ErrorbarContainer):
            data, caps, _ = container.lines
            labels |= {data: label} | dict.fromkeys(caps, "")
        elif isinstance(container, BarContainer):
            yield label, [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in container.patches]
    for line in axes.lines:
        if labels.get(line, "-") and line.get_transform() == axes.transData:
            yield labels.get(line, str(line.get_label())), _pairs(line.get_xydata())
    for cloud in axes.collections:
        if isinstance(cloud, PathCollection):
            yield str(cloud.get_label()), _pairs(cloud.get_offsets())


def _pairs(drawn: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in drawn]


@dataclass(frozen=True)
class _Group:
    """Rows of a table by run that share some coordinates, and one column of theirs."""

    table: Table
    at: dict[str, str]
    column: str
    rows: tuple[int, ...]

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self.table.raw[i][self.table.header.index("key")] for i in self.rows)

    def lines(self) -> Iterator[tuple[object, ...]]:
        """The lines that it may be a point of: along one of its coordinates, along two, or along none."""
        for n in range(3):
            for along in combinations(self.at, n):
                fixed = tuple(at for at in self.at.items() if at[0] not in along)
                yield self.table.name, self.column, along, fixed


def trace_points(
    points: Iterable[Point], tables: Sequence[Table], prefix: str
) -> tuple[list[Spot], list[Evidence]]:
    """The points that lead to runs, and what their links show beyond those that the tables have.

    Args:
        points: as `points_of` gives them.
        tables: with their links, from `evidence.trace`.
        prefix: of the fragments, unique on the page.
    """
    lines: dict[int, list[Point]] = {}
    for point in points:
        lines.setdefault(point[0], []).append(point)
    wanted = {_same(n) for line in lines.values() for read in _READINGS for n in map(read, line)}
    groups: dict[str, list[_Group]] = {}
    for table in tables:
        if {"seed", "key"} <= set(table.header) and len(table.raw) <= _ROWS:
            for value, group in _groups(table, wanted):
                groups.setdefault(value, []).append(group)
    cells = {
        _same(number): link
        for table in tables
        if not table.by_run
        for (i, j), link in table.links.items()
        if (number := finite(table.raw[i][j])) is not None
    }
    spots: list[Spot] = []
    made: dict[tuple[frozenset[str], str], Evidence] = {}
    for line in lines.values():
        for read in _READINGS:
            values = [_same(read(point)) for point in line]
            if all(len(value.strip("-0.").replace(".", "")) < _DIGITS for value in values):
                continue
            if found := _line([groups.get(value, []) for value in values]):
                for (_, _, _, _, left, top), one, value in zip(line, found, values, strict=True):
                    if one is not None:
                        once = one.keys, "" if "round" in one.at else value
                        new = once not in made
                        evidence = made.setdefault(once, _evidence(f"{prefix}-p{len(made)}", one))
                        spots.append(Spot(left, top, f"#{evidence.id}", evidence.title, new))
                break
            if all(value in cells for value in values):
                said = "" if line[0][1].startswith("_") else line[0][1]
                spots += [
                    Spot(left, top, cells[value], said or "this number", False)
                    for (*_, left, top), value in zip(line, values, strict=True)
                ]
                break
    return spots, list(made.values())


def _line(candidates: Sequence[Sequence[_Group]]) -> list[_Group | None]:
    """One group a point, all of one line of the table; nothing where no line has most of the points, or where
    two do. Single seeds are looked at only where no means fit.
    """
    found: dict[tuple[object, ...], dict[int, list[_Group]]] = {}
    for seeds in (False, True):
        for n, groups in enumerate(candidates):
            for group in groups:
                if ("seed" in group.at) == seeds:
                    for name in group.lines():
                        found.setdefault(name, {}).setdefault(n, []).append(group)
        most = max(map(len, found.values()), default=0)
        if most >= _AGREE * len(candidates):
            break
    else:
        return []
    ways: dict[tuple[frozenset[str] | None, ...], list[_Group | None]] = {}
    for places in found.values():
        if len(places) == most and all(len({g.keys for g in groups}) == 1 for groups in places.values()):
            way = [places[n][0] if n in places else None for n in range(len(candidates))]
            ways[tuple(group.keys if group else None for group in way)] = way
    return next(iter(ways.values())) if len(ways) == 1 else []


def _same(number: float) -> str:
    return f"{number:.9g}"


def _groups(table: Table, wanted: set[str]) -> Iterator[tuple[str, _Group]]:
    """The groups whose mean is one of the wanted values."""
    header = table.header
    first = min(header.index("seed"), header.index("key"))
    others = [name for name in ("round", "seed") if name in header]
    coords = [*header[:first][:5], *others]
    values = [name for name in header[first:] if name not in ("seed", "key", "round")]
    numbers = {name: [finite(row[header.index(name)]) for row in table.raw] for name in values}
    for n in range(len(coords) + 1):
        for chosen in combinations(coords, n):
            places = [header.index(name) for name in chosen]
            parts: dict[tuple[str, ...], list[int]] = {}
            for i, row in enumerate(table.raw):
                parts.setdefault(tuple(row[place] for place in places), []).append(i)
            for at, rows in parts.items():
                for name in values:
                    good = [number for i in rows if (number := numbers[name][i]) is not None]
                    if good and (value := _same(fmean(good))) in wanted:
                        yield value, _Group(table, dict(zip(chosen, at, strict=True)), name, tuple(rows))


def _evidence(fragment: str, group: _Group) -> Evidence:
    header = group.table.header
    key, seed, value = (header.index(name) for name in ("key", "seed", group.column))
    at: Mapping[str, str] = {c: text for c, text in group.at.items() if c not in ("round", "seed")}
    where = " · ".join(words.place(c, spelt(text)) for c, text in at.items()) or words.heading(group.column)
    n = len(group.keys)
    over = f"{group.column} over {n} run{'s' * (n != 1)}, from {group.table.name}.csv"
    if "round" in group.at:
        said = f"Each point of this line is the mean of {over}, at its round; checked. The runs' histories:"
    else:
        said = f"The mean of {over}; checked." if n > 1 else f"The value of {over}; checked."
    rows = [group.table.raw[i] for i in group.rows]
    runs = tuple((row[key], row[seed], "" if "round" in group.at else row[value]) for row in rows)
    return Evidence(fragment, where, said, runs)
