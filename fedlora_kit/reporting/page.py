"""The report: one HTML file that needs nothing else, made from the item folders of one profile.

It shows what `reporting.outputs` and the batch runner wrote, and of the store the runs that made it; the only
number computed here is the interval of a difference. Figures and runs are embedded and nothing is requested:
it works from the file system, in light and dark, on a phone and on paper, and by keyboard.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedlora_kit import __version__
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.store import Store
from fedlora_kit.reporting.claims_page import write_claims_page
from fedlora_kit.reporting.outputs import VERDICTS, item_folder
from fedlora_kit.reporting.rendering import templates
from fedlora_kit.reporting.runs import run_data
from fedlora_kit.reporting.sections import Section, sections_of
from fedlora_kit.study.item import Item

_STATES = {
    "ok": "done",
    "failed": "failed",
    "damaged": "unreadable",
    "not run": "not run",
    "planned": "planned",
}
_DONE, _FAILED = ("ok",), ("failed", "damaged")


def write_page(
    output_dir: str | Path, profile: str, items: Iterable[Item] | None = None, store: Store | None = None
) -> Path:
    """Write ``<output_dir>/<profile>/index.html``, one page a paper beside its items, and the claims in all
    profiles, ``<output_dir>/claims.html``; the first's path.

    Args:
        output_dir: as for `reporting.outputs.ItemOutputs`.
        items: what the page lists; `papers.items.all_items` if ``None``. Folders of other items follow
            at the end.
        store: where the items' runs lie; the kit's if ``None``. Only the runs that the items name are read.

    An item folder that cannot be read is shown as such, with the reason, and a run that is missing or damaged
    too; neither stops the page.

    Raises:
        FedloraError: the page cannot be written.
    """
    from fedlora_kit.papers.items import all_items, papers

    items = list(all_items() if items is None else items)
    titles = {"start": "Lessons", "other": "Other items"} | {paper.id: paper.title for paper in papers()}
    references = {paper.id: paper.reference for paper in papers()}
    base = item_folder("x", profile, output_dir).parent
    sections = sections_of(base, items)
    by_paper: dict[str, list[Section]] = {}
    for section in sections:
        by_paper.setdefault(section.paper, []).append(section)
    own_pages = {p for p in references if any(s.state in _DONE + _FAILED for s in by_paper.get(p, []))}
    template = templates().get_template("page.html.j2")
    script = "\n" + "".join(templates().get_template(f"{name}.js.j2").render() for name in ("page", "runs"))
    runs = run_data((key for section in sections for key in section.runs), store)

    def write(path: Path, shown: dict[str, list[Section]], only: str = "", prefix: str = "") -> Path:
        several = [section for of_paper in shown.values() for section in of_paper]
        text = template.render(
            profile=profile,
            papers=shown,
            only=only,
            prefix=prefix,
            titles=titles,
            references=references,
            own_pages=own_pages,
            overview=_overview(shown, titles, set(references)),
            states={state: sum(s.state == state for s in several) for state in _STATES},
            state_names=_STATES,
            version=__version__,
            finished=max((s.when for s in several), default=""),
            versions=_common_versions(several),
            data=_data(several, runs),
            script=script,
            script_hash=f"sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}",
        )
        atomic.write_text(path, text)
        return path

    named = {paper: titles[paper] for paper in references}
    write_claims_page(base.parent, items, named, Store() if store is None else store)
    for paper in sorted(own_pages):
        write(base / paper / "index.html", {paper: by_paper[paper]}, only=paper, prefix="../")
    return write(base / "index.html", by_paper)


def _overview(
    papers: dict[str, list[Section]], titles: dict[str, str], known: set[str]
) -> list[dict[str, Any]]:
    """One entry a paper: how many items are done, failed, not run; how many of their claims are reproduced,
    not reproduced, undecided, not testable; how many items have no verdicts.
    """
    rows = []
    for paper, sections in papers.items():
        counts = {
            "done": sum(s.state in _DONE for s in sections),
            "failed": sum(s.state in _FAILED for s in sections),
            "not run": sum(s.state not in _DONE + _FAILED for s in sections),
            **{verdict: sum(s.verdicts.get(verdict, 0) for s in sections) for verdict in VERDICTS},
            "unknown verdict": sum(s.state not in _DONE for s in sections),
        }
        name = paper if paper in known else titles.get(paper, paper)
        rows.append({"paper": paper, "name": name, "counts": counts})
    return rows


def _data(sections: Sequence[Section], runs: dict[str, Any]) -> str:
    """The page's runs and evidence as JSON that can stand inside a script element."""
    wanted = {key for section in sections for key in section.runs}
    content = {
        "pool": runs["pool"],
        "runs": {key: run for key, run in runs["runs"].items() if key in wanted},
        "evidence": {e.id: [e.title, e.said, e.runs] for s in sections for e in s.evidence},
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _common_versions(sections: Sequence[Section]) -> dict[str, str]:
    """Package → version, or all versions where the items were run with different ones."""
    found: dict[str, list[str]] = {}
    for section in sections:
        for name, version in (section.status.get("versions") or {}).items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return {name: " / ".join(several) for name, several in found.items()}
