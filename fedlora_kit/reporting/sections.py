"""What an item's folder holds, read for the report page: text and pictures, nothing computed."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from fedlora_kit.errors import FedloraError
from fedlora_kit.reporting.outputs import read_claims

_SVG_LIMIT = 2 * 2**20  # bytes; a larger drawing is shown as its PNG
_LONG = 40  # rows; a longer table is folded
_NUMBER_LIKE = re.compile(r"|–|[+−-]?(inf|nan|[0-9.,]+(e[+-]?[0-9]+)?( ± ([0-9.,]+|nan|–))?)", re.IGNORECASE)
"""A cell of a column to align to the right: empty, a number, or a mean with its spread."""


class Listed(Protocol):
    """What the page needs to know of an item; `papers.items.Item` has it."""

    @property
    def id(self) -> str: ...
    @property
    def paper(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def notebook(self) -> str | None: ...
    @property
    def foundation(self) -> str: ...


@dataclass
class Table:
    """A CSV file as text: ``numeric`` says which columns are aligned to the right."""

    name: str
    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]

    @property
    def long(self) -> bool:
        return len(self.rows) > _LONG


@dataclass
class Section:
    """All that the page shows of one item."""

    id: str
    paper: str
    kind: str
    title: str
    foundation: str
    state: str
    problem: str = ""
    status: dict[str, Any] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)  # data URIs
    tables: list[Table] = field(default_factory=list)
    comparison: Table | None = None
    comparable: bool = True
    privacy: Table | None = None
    claims: list[dict[str, str]] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    earlier: bool = False

    @property
    def anchor(self) -> str:
        return self.id.replace("/", "-")

    @property
    def published(self) -> str:
        """How many published numbers stand beside a reproduced one, of all that are known: ``2 of 4``."""
        if self.comparison is None:
            return ""
        known = [row for row in self.comparison.rows if row[2] != "–"]
        met = sum(row[4] != "–" for row in known)
        return f"{met} of {len(known)}" if known else "none known"

    @property
    def when(self) -> str:
        """``2026-01-31 12:00 UTC``; empty if the status does not say."""
        return _when(self.status)

    @property
    def minutes(self) -> str:
        return f"{float(self.status.get('seconds') or 0) / 60:.1f}"


def sections_of(base: Path, items: Sequence[Listed]) -> list[Section]:
    """Every item as a section of the page, filled from its folder where it has been run."""
    sections = []
    for item in items:
        state = "planned" if item.notebook is None else "not run"
        section = Section(item.id, item.paper or "start", item.kind, item.title, item.foundation, state)
        sections.append(_filled(section, base / item.id))
    known = {section.id for section in sections}
    for path in sorted(base.glob("**/status.json")):
        name = path.parent.relative_to(base).as_posix()
        if name not in known and not {".staging", "earlier"} & set(path.parent.parts):
            sections.append(_filled(Section(name, "other", "", name, "", "not run"), path.parent))
    return sections


def _filled(section: Section, folder: Path) -> Section:
    if not (folder / "status.json").is_file():
        return section  # no finished run: whatever files lie there are not shown
    try:
        return _read(section, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FedloraError) as error:
        # Never half an item: what was read before the error is dropped.
        problem = f"its files cannot be read: {error}"
        return Section(
            section.id, section.paper, section.kind, section.title, section.foundation, "damaged", problem
        )


def _read(section: Section, folder: Path) -> Section:
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    section.status = status
    section.files = sorted(name for name in status["files"] if (folder / name).is_file())
    if status["status"] != "ok":
        section.state = "failed"
        section.problem = str(status["error"])
        section.earlier = (folder / "earlier" / "status.json").is_file()
        return section
    changed = [
        name
        for name, digest in status["files"].items()
        if not (folder / name).is_file() or sha256((folder / name).read_bytes()).hexdigest() != digest
    ]
    if changed:
        raise ValueError(f"{', '.join(changed)} changed or vanished after the run; run the item again")
    section.state = "ok"
    names = {Path(name).stem for name in section.files if name.endswith(".csv")}
    section.figures = [
        _embedded(folder, Path(name).stem)
        for name in _main_first(section.files, "figure")
        if name.endswith(".svg")
    ]
    section.tables = [
        _table(folder / f"{name}.csv") for name in _main_first(names - {"comparison", "privacy"}, "table")
    ]
    if "comparison" in names:
        section.comparison, section.comparable = _comparison(folder / "comparison.csv")
    if "privacy" in names:
        section.privacy = _table(folder / "privacy.csv")
    section.claims = read_claims(folder)
    if "deviations.json" in section.files:
        section.deviations = [
            str(line) for line in json.loads((folder / "deviations.json").read_text("utf-8"))
        ]
    return section


def _when(status: dict[str, Any]) -> str:
    stamp = str(status.get("finished") or "")
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp else ""


def _main_first(names: Iterable[str], main: str) -> list[str]:
    return sorted(names, key=lambda name: (Path(name).stem != main, name))


def _embedded(folder: Path, stem: str) -> str:
    """A data URI. As an image, not inline: two drawings then cannot mix up their ids, and nothing in one
    can run.
    """
    path, kind = folder / f"{stem}.svg", "image/svg+xml"
    if path.stat().st_size > _SVG_LIMIT and (folder / f"{stem}.png").is_file():
        path, kind = folder / f"{stem}.png", "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if not lines or any(len(line) != len(lines[0]) for line in lines):
        raise ValueError(f"{path.name} is not a table")
    return lines[0], lines[1:]


def _table(path: Path) -> Table:
    header, rows = _rows(path)
    numeric = [
        any(row[i] for row in rows) and all(_NUMBER_LIKE.fullmatch(row[i]) for row in rows)
        for i in range(len(header))
    ]
    shown = [[_shown(cell) if numeric[i] else cell for i, cell in enumerate(row)] for row in rows]
    return Table(path.stem, header, shown, numeric)


def _comparison(path: Path) -> tuple[Table, bool]:
    """The comparison with each mean and its spread in one column, and whether the numbers may be compared
    at all.
    """
    header, rows = _rows(path)
    records = [dict(zip(header, row, strict=True)) for row in rows]
    comparable = all(record.get("comparable", "True").lower() in ("true", "1", "") for record in records)
    shown = []
    for record in records:
        difference = _number(record["difference"])
        shown.append(
            [
                record["cell"].replace("|", " · "),
                record["metric"],
                _with_spread(record["published"], record["published_std"]),
                record["label"],
                _with_spread(record["reproduced_mean"], record["reproduced_std"]),
                _shown(record["n_seeds"]),
                ""
                if difference is None or math.isnan(difference)
                else f"{difference:+.4g}".replace("-", "−"),
            ]
        )
    titles = ["cell", "metric", "published", "how known", "reproduced", "seeds", "difference"]
    return Table("comparison", titles, shown, [False, False, True, False, True, True, True]), comparable


def _with_spread(mean: str, spread: str) -> str:
    value = _number(mean)
    if value is None or math.isnan(value):
        return "–"
    digits = 2 if 10 <= abs(value) < 1e4 else None  # percentages: the same decimals for mean and spread
    parts = [part if digits is None else f"{float(part):.{digits}f}" for part in (mean, spread) if part]
    return " ± ".join(parts if digits is not None else [_shown(part) for part in parts])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    """A number to four significant digits; whole numbers as they are."""
    value = _number(text)
    if value is None or text.lstrip("+-").isdigit():
        return text
    if not math.isfinite(value):
        return {"inf": "∞", "-inf": "−∞"}.get(str(value), "–")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
