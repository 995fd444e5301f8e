"""The table at the end of `fedlora reproduce`: item, status, minutes, claims, and where the page is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlora_kit.batch.status import Status
from fedlora_kit.numerals import fixed
from fedlora_kit.reporting.outputs import VERDICTS, count_claims, item_folder


@dataclass(frozen=True)
class Line:
    """One item of the summary; ``claims`` is verdict → number, ``None`` where the item's outputs are not
    current.
    """

    item: str
    status: str
    minutes: float
    claims: dict[str, int] | None
    error: str | None


def summarise(statuses: Sequence[Status], output_dir: str | Path) -> list[Line]:
    """One line a status, with the claims counted from the item's folder."""
    lines = []
    for status in statuses:
        folder = item_folder(status.item, status.profile, output_dir)
        claims = count_claims(folder) if status.good else None
        lines.append(Line(status.item, status.status, status.seconds / 60, claims, status.error))
    return lines


def summary_text(lines: Sequence[Line]) -> str:
    """The summary as a plain table; an unchanged item shows the minutes that its run took."""
    from tabulate import tabulate  # type: ignore[import-untyped]

    rows = [
        [
            line.item,
            line.status,
            fixed(line.minutes, 1, 1) if line.status != "planned" else "",
            *(
                [str(line.claims[verdict]) for verdict in VERDICTS]
                if line.claims is not None
                else [""] * len(VERDICTS)
            ),
        ]
        for line in lines
    ]
    headers = ["item", "status", "minutes", *VERDICTS]
    align = ("left", "left", "right", *["right"] * len(VERDICTS))
    text: str = tabulate(rows, headers, disable_numparse=True, colalign=align)
    return text
