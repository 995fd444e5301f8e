"""The table at the end of `fedlora reproduce`: item, status, minutes, claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlora_kit.batch.status import PLANNED, Status
from fedlora_kit.numerals import fixed
from fedlora_kit.reporting.outputs import VERDICTS, count_claims, item_folder, read_claims


def summary_text(statuses: Sequence[Status], output_dir: str | Path) -> str:
    """The summary as a plain table: the claims counted where an item's outputs are current; an unchanged item
    shows the minutes that its run took.
    """
    from tabulate import tabulate  # type: ignore[import-untyped]

    rows = []
    for one in statuses:
        claims = count_claims(read_claims(item_folder(one.item, one.profile, output_dir))) if one.good else {}
        minutes = fixed(one.seconds / 60, 1, 1) if one.status != PLANNED else ""
        rows.append([one.item, one.status, minutes, *(str(claims[v]) if claims else "" for v in VERDICTS)])
    align = ("left", "left", "right", *["right"] * len(VERDICTS))
    text: str = tabulate(
        rows, ["item", "status", "minutes", *VERDICTS], disable_numparse=True, colalign=align
    )
    return text
