"""The page *claim × profile*: what holds on toys, real small models, GPUs, beside the papers' numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import signed, significant
from fedlora_kit.reporting.evidence import spelt
from fedlora_kit.reporting.outputs import VERDICTS, read_claims
from fedlora_kit.reporting.rendering import templates
from fedlora_kit.reporting.tables import read_rows
from fedlora_kit.reporting.verdict_evidence import in_short
from fedlora_kit.study import words
from fedlora_kit.study.item import PROFILES, Item
from fedlora_kit.study.reported import coords

_TWO_SIDES = re.compile(r"(\w+): \((\w+=[^()]*)\) ([−/]) \((\w+=[^()]*)\)")
"""How a verdict's reason names what it compared (`study.claims`)."""
_METRICS = {
    "accuracy": ("accuracy %", "final test accuracy %"),
    "accuracy_best": ("best test accuracy %",),
    "accuracy_last10": ("mean test accuracy % of the last 10 rounds",),
    "trained_parameters": ("trainable parameters",),
    "sigma": ("noise multiplier",),
}
"""Our column → the published metrics that are the same thing."""


@dataclass(frozen=True)
class Found:
    """A claim's verdict in one profile: where the report shows it, on what it was run, and its figures."""

    status: str
    address: str
    reason: str
    figures: str
    made_of: str


@dataclass
class Row:
    """A claim: the paper's own figures, if known, and its verdict by profile."""

    text: str
    published: str = ""
    found: dict[str, Found] = field(default_factory=dict)


def write_claims_page(
    output_dir: Path, items: Sequence[Item], titles: Mapping[str, str], store: Store
) -> Path:
    """Write ``<output_dir>/claims.html``; its path.

    Args:
        items: those of papers are shown, lessons are not.
        titles: a paper's id → its title.
        store: where the runs lie; what they were made of is not said of those that it lacks.

    Raises:
        FedloraError: the page cannot be written.
    """
    shown = [item for item in items if item.paper in titles]
    there = {
        p.parent.relative_to(output_dir) for i in shown for p in output_dir.glob(f"*/{i.id}/claims.json")
    }
    ran = {place.parts[0] for place in there}
    profiles = [*PROFILES, *sorted(ran - set(PROFILES))]
    papers: dict[str, list[tuple[Item, list[Row]]]] = {}
    for item in shown:
        folders = {p: output_dir / p / item.id for p in profiles if Path(p, item.id) in there}
        papers.setdefault(item.paper, []).append((item, _rows(item, folders, store)))
    text = (
        templates()
        .get_template("claims.html.j2")
        .render(
            papers=papers,
            titles=titles,
            profiles=profiles,
            counts={p: _counts(p, papers) for p in profiles if p in ran},
            profile_words=words.PROFILES,
        )
    )
    path = output_dir / "claims.html"
    atomic.write_text(path, text)
    return path


def _counts(profile: str, papers: Mapping[str, list[tuple[Item, list[Row]]]]) -> dict[str, dict[str, int]]:
    """Paper → verdict → number of claims."""
    counts: dict[str, dict[str, int]] = {}
    for paper, items in papers.items():
        found = [row.found[profile].status for _, rows in items for row in rows if profile in row.found]
        counts[paper] = {status: n for status in VERDICTS if (n := found.count(status))}
    return counts


def _rows(item: Item, folders: Mapping[str, Path], store: Store) -> list[Row]:
    """An item's claims, in the order of the largest profile that has them.

    A folder without a finished run, or one that cannot be read, is left to the report to complain of.
    """
    reported = _reported(item) if folders else []
    rows: dict[str, Row] = {}
    for profile, folder in reversed([*folders.items()]):
        try:
            if json.loads((folder / "status.json").read_text("utf-8"))["status"] != "ok":
                continue
            claims = read_claims(folder)
            records = json.loads((folder / "claims.json").read_text("utf-8"))
            models, seeds = _made_of(folder, store)
        except (OSError, ValueError, KeyError, TypeError, FedloraError):
            continue
        for claim, record in zip(claims, records, strict=True):
            figures = record.get("evidence") or {}
            counted = int(figures.get("n_seeds") or seeds)
            made_of = [models] * bool(models) + [f"{counted} seed{'s' * (counted != 1)}"] * bool(counted)
            row = rows.setdefault(claim["id"], Row(claim["text"]))
            row.found[profile] = Found(
                claim["status"],
                f"{profile}/index.html#{item.id.replace('/', '-')}-claim-{claim['id']}",
                claim["reason"],
                in_short(figures),
                ", ".join(made_of),
            )
            row.published = row.published or _published(reported, claim["reason"])
    return list(rows.values())


def _made_of(folder: Path, store: Store) -> tuple[str, int]:
    """The backbones of an item's results, as far as the store has their runs, and the number of seeds."""
    results = sorted(
        folder.glob("*.csv"), key=lambda path: (path.stem != "results", path.stem != "runs", path.stem)
    )
    for path in results:
        header, rows = read_rows(path)
        if {"seed", "key"} <= set(header):
            seed, key = header.index("seed"), header.index("key")
            once = dict.fromkeys(row[key] for row in rows if row[seed] == rows[0][seed])
            models = dict.fromkeys(_backbone(Entry(one, store.root / one)) for one in once)
            return " and ".join(filter(None, models)), len({row[seed] for row in rows})
    return "", 0


def _backbone(run: Entry) -> str:
    try:
        return str(run.spec["model"]["backbone"])
    except (OSError, ValueError, KeyError, TypeError, FedloraError):  # not in this store, or damaged
        return ""


def _reported(item: Item) -> list[tuple[str, dict[str, str], float]]:
    """Metric, coordinates and value of an item's published numbers; none where the file cannot be read."""
    from fedlora_kit.papers.published import published

    try:
        known = published(item.paper, item.name)
    except FedloraError:
        return []
    return [
        (metric, coords(cell), float(value))
        for metric, cell, value in zip(known["metric"], known["cell"], known["value"], strict=True)
    ]


def _published(reported: Sequence[tuple[str, dict[str, str], float]], reason: str) -> str:
    """The paper's own difference or ratio of what a verdict compared, over the cells that have both sides."""
    sides = _TWO_SIDES.match(reason)
    if sides is None:
        return ""
    value, first, sign, second = sides.groups()
    for metric in _METRICS.get(value, ()):
        numbers = [(at, number) for name, at, number in reported if name == metric]
        one, other = _side(numbers, first), _side(numbers, second)
        pairs = [(number, other[place]) for place, number in one.items() if place in other]
        if pairs:
            found = fmean(a - b for a, b in pairs) if sign == "−" else fmean(a / b for a, b in pairs)
            said = signed(significant(found, 3)) if sign == "−" else significant(found, 3)
            a, b = map(significant, pairs[0])
            return f"{said} ({len(pairs)} cells)" if len(pairs) > 1 else f"{said}: {a} {sign} {b}"
    return ""


def _side(numbers: Sequence[tuple[dict[str, str], float]], side: str) -> dict[tuple[str, ...], float]:
    """The published numbers that have a side's coordinates, by their other coordinates."""
    wanted = {column: text for column, _, text in (part.partition("=") for part in side.split(", "))}
    return {
        tuple(f"{column}={text}" for column, text in at.items() if column not in wanted): number
        for at, number in numbers
        if all(column in at and spelt(at[column]) == spelt(text) for column, text in wanted.items())
    }
