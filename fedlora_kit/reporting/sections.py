"""What an item's folder holds, read for the report page: text, pictures and the way to the runs."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedlora_kit.errors import BadValue
from fedlora_kit.numerals import MISSING, fixed
from fedlora_kit.reporting import evidence, verdict_evidence
from fedlora_kit.reporting.comparison import in_text, in_words
from fedlora_kit.reporting.evidence import Evidence, Source
from fedlora_kit.reporting.outputs import FIGURE_KINDS, changed_files, count_claims, read_claims
from fedlora_kit.reporting.points import Spot, trace_points
from fedlora_kit.reporting.tables import Table, read_rows, read_table, written
from fedlora_kit.study.item import Item
from fedlora_kit.study.reported import coords
from fedlora_kit.study.sequential import at_look

_MIME = {"svg": "image/svg+xml", "png": "image/png"}
_APART = {"comparison", "privacy"}


@dataclass(frozen=True)
class Picture:
    """A figure: ``data`` is its address in the page, ``files`` its files beside the page, best for print
    first; ``width`` and ``height`` in CSS pixels, 0 where they are not known; ``spots``: its points
    that lead to runs.
    """

    name: str
    caption: str
    data: str
    files: list[str]
    width: int = 0
    height: int = 0
    spots: list[Spot] = field(default_factory=list)


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
    figures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    comparison: Table | None = None
    unpublished: Table | None = None
    comparable: bool = True
    privacy: Table | None = None
    claims: list[dict[str, str]] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    earlier: bool = False

    @property
    def anchor(self) -> str:
        return self.id.replace("/", "-")

    @property
    def name(self) -> str:
        return self.id.split("/")[-1]

    @property
    def verdicts(self) -> dict[str, int]:
        """Verdict → number of claims; empty where the item has no results."""
        return count_claims(self.claims) if self.state == "ok" else {}

    @property
    def published(self) -> str:
        """How many published numbers stand beside a reproduced one, of all that are known: ``2 of 4``."""
        rows = self.comparison.rows if self.comparison else []
        return f"{sum(row[4] != MISSING for row in rows)} of {len(rows)}"

    @property
    def when(self) -> str:
        """``2026-01-31 12:00 UTC``; empty if the status does not say."""
        stamp = str(self.status.get("finished") or "")
        return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp else ""

    @property
    def minutes(self) -> str:
        return fixed(float(self.status.get("seconds") or 0) / 60, 1, 1)


def sections_of(base: Path, items: Sequence[Item]) -> list[Section]:
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
        return _read(deepcopy(section), folder)
    except Exception as error:  # never half an item: what was read before the error is dropped
        return replace(section, state="damaged", problem=f"its files cannot be read: {error}")


def _read(section: Section, folder: Path) -> Section:
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    section.status = status
    section.files = sorted(name for name in status["files"] if (folder / name).is_file())
    if status["status"] != "ok":
        section.state = "failed"
        section.problem = str(status["error"])
        section.earlier = (folder / "earlier" / "status.json").is_file()
        return section
    if changed := changed_files(folder, status["files"]):
        raise ValueError(f"{', '.join(changed)} changed or vanished after the run; run the item again")
    section.state = "ok"
    names = {Path(name).stem for name in section.files if name.endswith(".csv")}
    drawn = {Path(name).stem for name in section.files if Path(name).suffix[1:] in _MIME}
    section.figures = [_picture(folder, name, section) for name in _main_first(drawn, "figure")]
    section.tables = [read_table(folder / f"{name}.csv") for name in _main_first(names - _APART, "table")]
    known = evidence.sources(section.tables)
    for table in section.tables:
        section.evidence += evidence.trace(table, known, f"{section.anchor}-t-{table.name}")
    if "comparison" in names:
        _compare(section, folder / "comparison.csv", known)
    if "privacy" in names:
        section.privacy = read_table(folder / "privacy.csv")
        ledger = verdict_evidence.trace_ledger(section.privacy, known, f"{section.anchor}-privacy")
        section.evidence += ledger
    section.claims = read_claims(folder)
    _judge(section, folder, known)
    if "deviations.json" in section.files:
        section.deviations = [
            str(line) for line in json.loads((folder / "deviations.json").read_text("utf-8"))
        ]
    for figure in section.figures:
        drawn_points = folder / f"{figure.name}.points.json"
        if drawn_points.name in section.files:
            points = json.loads(drawn_points.read_text("utf-8"))
            spots, found = trace_points(points, section.tables, f"{section.anchor}-{figure.name}")
            figure.spots.extend(spots)
            section.evidence += found
    section.runs = evidence.keys(section.tables)
    return section


def _judge(section: Section, folder: Path, known: Sequence[Source]) -> None:
    """Each claim's place on the page (``at``), and whether runs stand behind it (``traced``)."""
    if not section.claims:
        return
    records = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    for claim, record in zip(section.claims, records, strict=True):
        claim["at"] = f"{section.anchor}-claim-{claim['id']}"
        figures = record.get("evidence") or {}
        with at_look(record.get("look", 1)):
            found = verdict_evidence.trace_claim(claim, figures, known, f"{claim['at']}-runs")
        claim["traced"] = found.id if found else ""
        claim["short"] = verdict_evidence.in_short(figures)
        section.evidence += [found] if found else []


def _main_first(names: Iterable[str], main: str) -> list[str]:
    return sorted(names, key=lambda name: (name != main, name))


def _picture(folder: Path, name: str, section: Section) -> Picture:
    """A data URI of the smaller of drawing and raster. As an image, not inline: two drawings then cannot mix
    up their ids, and nothing in one can run.
    """
    files = [f"{name}.{kind}" for kind in FIGURE_KINDS if f"{name}.{kind}" in section.files]
    shown = min((f for f in files if f.split(".")[-1] in _MIME), key=lambda f: (folder / f).stat().st_size)
    data = base64.b64encode((folder / shown).read_bytes()).decode()
    caption = folder / f"{name}.txt"
    words = caption.read_text(encoding="utf-8").strip() if caption.name in section.files else section.title
    sides = _sides(folder / f"{name}.png") if f"{name}.png" in files else (0, 0)
    return Picture(name, words, f"data:{_MIME[shown.split('.')[-1]]};base64,{data}", files, *sides)


def _sides(png: Path) -> tuple[int, int]:
    """How large a figure is shown: two thirds of its pixels; one of two columns then fills the page."""
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    return round(width * 2 / 3), round(height * 2 / 3)


def _compare(section: Section, path: Path, known: Sequence[Source]) -> None:
    """The comparison, with the cells of which nothing is published apart, and whether the numbers may be
    compared at all.
    """
    header, rows = read_rows(path)
    records = [dict(zip(header, row, strict=True)) for row in rows]
    section.comparable = all(r.get("comparable", "True").lower() in ("true", "1", "") for r in records)
    titles = ["cell", "metric", "published", "how known", "reproduced", "seeds", "difference"]
    both = Table("comparison", titles, [], [False, False, True, False, True, True, True])
    ours = Table("without a published number", [*titles[:2], *titles[4:6]], [], [False, False, True, True])
    for n, record in enumerate(records):
        published, shown, difference, interval = in_text(record)
        table, at = (ours, 2) if published == MISSING else (both, 4)
        row = [
            " · ".join(map(in_words, record["cell"].split("|"))),
            record["metric"],
            shown,
            written(record["n_seeds"]),
        ]
        if table is both:
            how = " · ".join(word for word in (record["label"], record["source"]) if word)
            row = [*row[:2], published, how, *row[2:], f"{difference} {interval}".strip()]
        try:
            name = coords(record["cell"])
        except BadValue:
            name = {"cell": record["cell"]}
        found = None
        if shown != MISSING:
            fragment = f"{section.anchor}-c{n}"
            found = evidence.trace_cell(
                name, record["reproduced_mean"], record["n_seeds"], shown, known, fragment, record["metric"]
            )
        if found is not None:
            table.links[len(table.rows), at] = f"#{found.id}"
            section.evidence.append(found)
        table.rows.append(row)
    section.comparison = both if both.rows else None
    section.unpublished = ours if ours.rows else None
