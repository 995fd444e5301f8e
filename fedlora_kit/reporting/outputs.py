"""What a notebook leaves behind: one folder an item, the same file names for every item.

``DIR/<profile>/<item id>/`` holds ``table.csv``, ``table.md`` and ``table.tex`` or ``figure.pdf``,
``figure.svg``, ``figure.png`` and its caption ``figure.txt`` (``figure.tex``), ``comparison.csv``,
``claims.json`` and, where there are any, ``privacy.csv`` and ``deviations.json``. The report page and the
batch runner read nothing else. Every file is written atomically.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedlora_kit import paths
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import atomic
from fedlora_kit.reporting.as_text import flat_frame, markdown, texts
from fedlora_kit.reporting.whose import item_of_notebook
from fedlora_kit.study import look_log

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from fedlora_kit.study.claims import Judged

VERDICTS = ("reproduced", "not reproduced", "undecided", "not testable")
"""What readers are told of a claim. In claims.json *undecided* is "not reproduced", ``undecided`` true."""
FIGURE_KINDS = ("pdf", "svg", "png")
"""The files of a figure, best for print first."""
STAGING_VARIABLE = "FEDLORA_STAGING"
"""While the batch runner executes a notebook, this names the folder that takes the place of ``output_dir``:
outputs become visible only when the whole notebook has succeeded."""

_ITEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def item_folder(item_id: str, profile: str, output_dir: str | Path = "figures") -> Path:
    """``<output_dir>/<profile>/<item_id>``; a relative ``output_dir`` counts from the kit's home.

    Raises:
        BadValue: an item id or a profile that is not a plain name (it would leave the folder).
    """
    if not _ITEM.fullmatch(item_id) or ".." in item_id:
        raise BadValue(f"item id {item_id!r} is not a plain name", "write it like ffa-lora/table1")
    if not _NAME.fullmatch(profile):
        raise BadValue(f"profile {profile!r} is not a plain name", "write smoke, small or paper")
    return paths.home() / Path(output_dir).expanduser() / profile / item_id


class Shown:
    """A short piece of HTML for the notebook, with plain text beside it for a terminal."""

    def __init__(self, markup: str, text: str) -> None:
        self._markup = markup
        self._text = text

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return self._text


class ItemOutputs:
    """Writes the files of one item.

    Args:
        item_id: as ``fedlora list`` shows it (``ffa-lora/table1``); a copy of the notebook under another name
            writes as the item of its own file (`whose.item_of_notebook`).
        profile: ``smoke``, ``small`` or ``paper``.
        output_dir: top of all outputs; relative to the kit's home, not to the notebook's folder.

    Each method returns what it wrote in a form that a notebook displays well as the last line of a cell. From
    then on what this process judges are looks at this item's results (`study.look_log`).

    Raises:
        BadValue: an item id or a profile that is not a plain name; a copy whose file is no item's.
    """

    def __init__(self, item_id: str, profile: str, output_dir: str | Path = "figures") -> None:
        self.item_id = item_of_notebook(item_id)
        self.profile = profile
        self.folder = item_folder(self.item_id, profile, os.environ.get(STAGING_VARIABLE) or output_dir)
        self._kinds = {"comparison": "comparison", "privacy": "privacy ledger"}
        look_log.judge_for(self.item_id, profile)

    @property
    def name(self) -> str:
        """The item's id without its paper."""
        return self.item_id.rpartition("/")[2]

    def table(self, df: pd.DataFrame, name: str = "table", digits: int = 2) -> pd.DataFrame:
        """``<name>.csv`` in full precision; ``<name>.md`` and ``.tex`` (booktabs) with ``digits`` decimals,
        and more where those would lose a number (`numerals.column`).

        A named index (such as a pivot's) becomes ordinary columns; column levels are joined by a space.

        Raises:
            BadValue: a table without rows or columns: it would look like a result; a name that a figure has.
        """
        flat = flat_frame(df, self._name(name, "table"))
        self._csv(flat, name)
        return self._printed(flat, name, digits)

    def figure(self, fig: Figure, name: str = "figure", caption: str = "") -> Figure:
        """``<name>.pdf``, ``.svg`` and ``.png``, and its points for the report; closes the
        figure, so that it is displayed once and memory is freed.

        Args:
            caption: what is seen, in one or two sentences, for ``<name>.txt``, and for LaTeX ``<name>.tex``:
                readers who do not see the figure go by it. The item's title if not given.

        Raises:
            BadValue: a name that a table has: their ``.tex`` would be one file.
        """
        from matplotlib import pyplot as plt

        from fedlora_kit.papers.items import all_items
        from fedlora_kit.reporting import latex, points, style

        style.save(fig, self.folder, self._name(name, "figure"))
        titles = {item.id: f"{item.title}." for item in all_items()}
        words = " ".join(caption.split()) or titles.get(self.item_id, name)
        atomic.write_text(self.folder / f"{name}.txt", words + "\n")
        atomic.write_text(self.folder / f"{name}.tex", f"\\caption{{{latex.escaped(words)}}}\n")
        atomic.write_json(self.folder / f"{name}.points.json", points.points_of(fig))
        plt.close(fig)
        return fig

    def comparison(self, df: pd.DataFrame) -> pd.DataFrame:
        """``comparison.csv``: one row a cell, the published number beside the reproduced one; ``.md`` and
        ``.tex`` as `comparison.printed` words it, with a note where the two are not comparable.

        Raises:
            BadValue: a column of `comparison.COLUMNS` is missing.
        """
        from fedlora_kit.reporting.comparison import COLUMNS, caveat, printed

        missing = [column for column in COLUMNS if column not in df.columns]
        if missing:
            raise BadValue(
                f"the comparison lacks the columns {', '.join(missing)}",
                "build it with reporting.comparison.compare",
            )
        self._csv(df, "comparison")
        if len(df):
            right = ("published", "reproduced", "seeds", "difference")
            return self._printed(printed(df), "comparison", 2, right, caveat(df))
        return df

    def claims(self, judged: Sequence[Judged]) -> Shown:
        """``claims.json``: every claim with its verdict, reason and evidence, from
        `study.claims.judge_all`.
        """
        from fedlora_kit.study import words
        from fedlora_kit.study.claims import to_json

        atomic.write_text(self.folder / "claims.json", to_json(judged) + "\n")
        claims = read_claims(self.folder)
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(c['text'])}</td>"
            f"<td style='text-align:left'><b>{html.escape(c['status'])}</b></td>"
            f"<td style='text-align:left'>{html.escape(words.sentence(c['reason']))}</td></tr>"
            for c in claims
        )
        return Shown(
            f"<table><thead><tr><th>claim</th><th>verdict</th><th>why</th></tr></thead><tbody>{rows}</tbody></table>",
            "\n".join(
                f"{c['status']:>14}  {c['text']}\n{'':>16}{words.sentence(c['reason'])}" for c in claims
            ),
        )

    def privacy(self, df: pd.DataFrame) -> pd.DataFrame:
        """``privacy.csv``: the privacy ledger (ε spent, δ, σ, q, T, accountant, sampling), one row a
        setting.
        """
        flat = flat_frame(df, "privacy")
        self._csv(flat, "privacy")
        return self._printed(flat, "privacy", 4)

    def note(self, deviations: list[str]) -> Shown:
        """``deviations.json``: where this run departs from the paper, one sentence each."""
        if isinstance(deviations, str) or not all(
            isinstance(line, str) and line.strip() for line in deviations
        ):
            raise BadValue("deviations must be a list of non-empty sentences", "write note(['…', '…'])")
        atomic.write_json(self.folder / "deviations.json", list(deviations))
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in deviations)
        return Shown(f"<ul>{lines}</ul>", "\n".join(f"- {line}" for line in deviations))

    def _name(self, name: str, kind: str) -> str:
        """A name that nothing of another kind has, as both write ``<name>.tex``."""
        if not _NAME.fullmatch(name):
            raise BadValue(f"output name {name!r} is not a plain file name", "use letters, digits, - and _")
        if (taken := self._kinds.setdefault(name, kind)) != kind:
            raise BadValue(
                f"{name!r} is the name of a {taken}, whose {name}.tex this {kind} would overwrite",
                f"give the {kind} another name",
            )
        return name

    def _printed(
        self, flat: pd.DataFrame, name: str, digits: int, right: Sequence[str] = (), note: str = ""
    ) -> pd.DataFrame:
        """Markdown and LaTeX in words; the table as they have it."""
        from fedlora_kit.reporting import latex
        from fedlora_kit.study import words

        shown = words.frame(flat)
        header, rows, numeric = texts(shown, digits)
        numeric = [n or column in right for n, column in zip(numeric, flat.columns, strict=True)]
        atomic.write_text(self.folder / f"{name}.md", markdown(header, rows, numeric, note))
        aligned = [n or any(" ± " in row[i] for row in rows) for i, n in enumerate(numeric)]
        atomic.write_text(self.folder / f"{name}.tex", latex.tabular(header, rows, aligned, note))
        return shown

    def _csv(self, df: pd.DataFrame, name: str) -> None:
        atomic.write_text(self.folder / f"{name}.csv", df.to_csv(index=False, lineterminator="\n"))


def read_claims(folder: Path) -> list[dict[str, str]]:
    """The judged claims of an item folder, each with id, text, status (one of `VERDICTS`), reason, source
    and foundation: what the results contradict and what they merely leave open are told apart.

    An absent file means no claims; a verdict that is none of `VERDICTS` is an error, so that nothing is
    counted wrongly.
    """
    path = folder / "claims.json"
    if not path.is_file():
        return []
    claims = []
    for record in json.loads(path.read_text(encoding="utf-8")):
        claim = {key: str(record[key]) for key in ("id", "text", "status", "reason", "source", "foundation")}
        if claim["status"] not in VERDICTS:
            raise BadValue(
                f"{path.name} holds the verdict {claim['status']!r}", f"allowed: {', '.join(VERDICTS)}"
            )
        undecided = record.get("undecided", "undecided" in claim["reason"])
        if claim["status"] == "not reproduced" and undecided:
            claim["status"] = "undecided"
        claims.append(claim)
    return claims


def changed_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Files of a folder that are not what their SHA-256 says, or are not there.

    Args:
        digests: file name -> SHA-256, of files directly in the folder; another path counts as changed.
    """
    return [
        name
        for name, digest in digests.items()
        if Path(name).name != name
        or not (folder / name).is_file()
        or atomic.sha256_file(folder / name) != digest
    ]


def count_claims(claims: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Verdict → number of claims, as `read_claims` gives them."""
    found = [claim["status"] for claim in claims]
    return {verdict: found.count(verdict) for verdict in VERDICTS}
