"""The report: one HTML file that needs nothing else, made from the item folders of one profile.

It shows what `reporting.outputs` and the batch runner wrote, and only that: no number is computed here.
Figures are embedded, there are no scripts and no requests; it reads in light and dark, on a phone and on
paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fedlora_kit import __version__
from fedlora_kit.experiments import atomic
from fedlora_kit.reporting.outputs import VERDICTS, item_folder
from fedlora_kit.reporting.sections import Listed, Section, sections_of

_STATES = {
    "ok": "run",
    "failed": "failed",
    "damaged": "unreadable",
    "not run": "not run",
    "planned": "planned",
}


def write_page(output_dir: str | Path, profile: str, items: Iterable[Listed] | None = None) -> Path:
    """Write ``<output_dir>/<profile>/index.html``, and one page a paper beside its items; the first's path.

    Args:
        output_dir: as for `reporting.outputs.ItemOutputs`.
        items: what the page lists; all items of the three papers if ``None``. Folders of other items follow
            at the end.

    An item folder that cannot be read is shown as such, with the reason; it does not stop the page.

    Raises:
        FedloraError: the page cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    from fedlora_kit.papers.items import ITEMS, PAPERS

    items = ITEMS if items is None else items
    titles = {"start": "Lessons", "other": "Other items"} | {paper.id: paper.title for paper in PAPERS}
    references = {paper.id: paper.reference for paper in PAPERS}
    base = item_folder("x", profile, output_dir).parent
    sections = sections_of(base, list(items))
    papers: dict[str, list[Section]] = {}
    for section in sections:
        papers.setdefault(section.paper, []).append(section)
    loader = PackageLoader("fedlora_kit.reporting", "templates")
    environment = Environment(
        loader=loader,
        autoescape=select_autoescape(["j2", "html"], default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")

    def write(path: Path, shown: dict[str, list[Section]], only: str = "", prefix: str = "") -> Path:
        several = [section for of_paper in shown.values() for section in of_paper]
        verdicts = [claim["status"] for s in several if s.state == "ok" for claim in s.claims]
        text = template.render(
            profile=profile,
            papers=shown,
            only=only,
            prefix=prefix,
            titles=titles,
            references=references,
            states={state: sum(s.state == state for s in several) for state in _STATES},
            state_names=_STATES,
            verdicts={verdict: verdicts.count(verdict) for verdict in VERDICTS},
            version=__version__,
            finished=max((s.when for s in several), default=""),
            versions=_common_versions(several),
        )
        atomic.write_text(path, text)
        return path

    for paper in references:
        of_paper = papers.get(paper, [])
        if any(section.state not in {"planned", "not run"} for section in of_paper):
            write(base / paper / "index.html", {paper: of_paper}, only=paper, prefix="../")
    return write(base / "index.html", papers)


def _common_versions(sections: Sequence[Section]) -> dict[str, str]:
    """Package → version, or all versions where the items were run with different ones."""
    found: dict[str, list[str]] = {}
    for section in sections:
        for name, version in (section.status.get("versions") or {}).items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return {name: " / ".join(several) for name, several in found.items()}
