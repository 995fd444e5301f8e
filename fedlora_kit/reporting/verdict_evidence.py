"""Which runs stand behind a claim's verdict, and behind an ε of the privacy ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from fedlora_kit.numerals import signed, significant
from fedlora_kit.reporting.evidence import Evidence, Rows, Source, spelt
from fedlora_kit.reporting.tables import Table, finite
from fedlora_kit.study import words

_SIDE = re.compile(r"\((\w+=[^()]*)\)")  # as `study.pairing.describe` writes it
_VALUE = re.compile(r"\w+")
_LEDGER = ("epsilon", "sigma")
_EXACT = 1e-9


def in_short(evidence: Mapping[str, object]) -> str:
    """A verdict's difference or ratio with its interval; empty where it has none."""
    at = evidence.get("difference")
    ends = [end for name in ("lower", "upper") if isinstance(end := evidence.get(name), int | float)]
    if isinstance(at, int | float) and len(ends) == 2:
        low, high = (signed(significant(end, 3)) for end in ends)
        return f"{signed(significant(at, 3))} [{low}, {high}]"
    ratio = evidence.get("ratio")
    return f"ratio {significant(ratio, 3)}" if isinstance(ratio, int | float) else ""


def trace_claim(
    claim: Mapping[str, str], figures: Mapping[str, object], known: Sequence[Source], fragment: str
) -> Evidence | None:
    """The runs of the sides that a verdict's reason names, such as ``(method=lora) − (method=ffa-lora)``.

    *Checked* is said only where the difference and its interval, computed here anew from those runs, are the
    verdict's.

    Args:
        claim: as `outputs.read_claims` gives it; judged at the present look (`study.sequential`).
        figures: the verdict's evidence in claims.json.
        known: from `evidence.sources`.
    """
    reason = claim["reason"]
    sides = list(dict.fromkeys(_SIDE.findall(reason.split(" = ")[0].split(" is ")[0])))
    value = _VALUE.match(reason)
    if not sides or value is None:
        return None
    for source in known:
        found = [_rows(source, side) for side in sides]
        if value[0] in source.values and all(found):
            runs = tuple(
                (
                    source.rows[i]["key"],
                    source.rows[i]["seed"],
                    source.rows[i][value[0]],
                    words.sentence(side),
                )
                for side, rows in zip(sides, found, strict=True)
                for i in rows
            )
            where = f"each side's runs, from {source.table.name}.csv"
            if len(found) == 2 and _agrees(source, found[0], found[1], value[0], figures):
                said = f"{value[0]} of {where}: their difference by seed with its interval; checked."
            else:
                said = (
                    f"E{where[1:]}, and their {value[0]} there. The verdict could not be recomputed from "
                    "these values; how it is made stands in the item's executed notebook.ipynb."
                )
                if "round" in source.table.header:  # the last round's, where a verdict may be of another
                    runs = tuple((key, seed, "", side) for key, seed, _, side in runs)
            return Evidence(
                fragment, f"{claim['status']}: {claim['text']}", f"{said} {words.sentence(reason)}", runs
            )
    return None


def _rows(source: Source, side: str) -> Rows:
    """The rows with all coordinates of a side; none where the table lacks one of them."""
    rows: Rows = tuple(range(len(source.rows)))
    for part in side.split(", "):
        column, _, wanted = part.partition("=")
        if column not in source.coords:
            return ()
        several = {spelt(one) for one in wanted.split("/")} | {spelt(wanted)}
        rows = tuple(i for i in rows if spelt(source.rows[i][column]) in several)
    return rows


def _agrees(source: Source, one: Rows, other: Rows, value: str, figures: Mapping[str, object]) -> bool:
    """Whether the paired difference over seeds, each the mean over its cells, is the verdict's.

    As in `study.pairing.pair`, a seed counts if it has every cell on every side, with a finite value.
    """
    from fedlora_kit.study.statistics import mean_interval

    sides = []
    for rows in (one, other):
        by_seed: dict[str, list[float | None]] = {}
        for i in rows:
            by_seed.setdefault(source.rows[i].get("seed", ""), []).append(finite(source.rows[i][value]))
        sides.append(by_seed)
    cells = max(len(found) for side in sides for found in side.values())
    means = [
        {
            seed: sum(whole) / cells
            for seed, found in side.items()
            if len(whole := [number for number in found if number is not None]) == cells
        }
        for side in sides
    ]
    seeds = [seed for seed in means[0] if seed in means[1]]
    if len(seeds) < 2:
        return False
    interval = mean_interval([means[0][seed] - means[1][seed] for seed in seeds])
    ours = {"difference": interval.mean, "lower": interval.lower, "upper": interval.upper}
    return all(
        isinstance(given := figures.get(name), int | float)
        and abs(given - number) <= _EXACT * max(1.0, abs(number))
        for name, number in ours.items()
    )


def trace_ledger(table: Table, known: Sequence[Source], prefix: str) -> Iterator[Evidence]:
    """Link ε and σ of a privacy ledger to the runs whose largest they are; what each link shows.

    Args:
        table: gets its ``links``.
        prefix: of the fragments, unique on the page.
    """
    for i, row in enumerate(table.raw):
        for j, name in enumerate(table.header):
            if name in _LEDGER:
                found = _largest(table, row, name, row[j], known)
                if found is not None:
                    source, rows = found
                    at = [k for k, column in enumerate(table.header) if column in source.coords]
                    title = " · ".join(
                        [
                            *(words.value(table.header[k], row[k]) for k in at),
                            f"{words.heading(name)} {row[j]}",
                        ]
                    )
                    over = f"{len(rows)} run{'s' * (len(rows) != 1)}"
                    said = (
                        f"The largest {name} of {over}, from {source.table.name}.csv; checked. A run's is "
                        "the largest over its clients; δ, sampling rate, steps and accountant stand in its "
                        "privacy ledger below."
                    )
                    runs = tuple(
                        (source.rows[n]["key"], source.rows[n]["seed"], source.rows[n][name]) for n in rows
                    )
                    evidence = Evidence(f"{prefix}-{i}-{j}", title, said, runs)
                    table.links[i, j] = f"#{evidence.id}"
                    yield evidence


def _largest(
    table: Table, row: Sequence[str], name: str, text: str, known: Sequence[Source]
) -> tuple[Source, Rows] | None:
    """Source and rows with the row's coordinates, of which each run is taken once."""
    wanted = finite(text)
    for source in known:
        if name not in source.values or wanted is None:
            continue
        named = zip(table.header, row, strict=True)
        rows = source.at({column: value for column, value in named if column in source.coords})
        once = tuple({source.rows[i]["key"]: i for i in reversed(rows)}.values())[::-1]
        values = [v for i in once if (v := finite(source.rows[i][name])) is not None]
        if values and abs(max(values) - wanted) <= _EXACT * max(1.0, abs(wanted)):
            return source, once
    return None
