"""A small selection of a profile's results, kept in git (what `make gallery` runs).

    python tools/gallery.py [--figures DIR] [--profile smoke]

Copies tables and light pictures of the chosen items to figures/<profile>/gallery/ and writes docs/gallery.md:
what was run, our numbers beside the published ones, what they are worth, and what became of the papers'
claims. The README's part between the two gallery marks gets the claims counted in every profile that has
results, one figure and one table. It runs nothing, and takes only items whose files are those that their
notebook left.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.papers.items import ITEMS, PAPERS
from fedlora_kit.reporting.comparison import NOT_COMPARABLE
from fedlora_kit.reporting.outputs import VERDICTS
from fedlora_kit.reporting.runs import run_data
from fedlora_kit.reporting.sections import Section, sections_of
from fedlora_kit.reporting.tables import Table
from fedlora_kit.study import words
from fedlora_kit.study.item import PROFILES

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = (
    "ffa-lora/figure1",
    "ffa-lora/table1",
    "ffa-lora/table2",
    "ffa-lora/init_of_a",
    "ffa-lora/discordance1",
    "fed-hello/table2",
    "fed-hello/curves",
    "fed-hello/patterns",
    "fedlora-optimizer/global",
    "fedlora-optimizer/open_choices",
)
#: one figure and one table for the README: of each the first that has results
IN_README = (("ffa-lora/discordance1", "fed-hello/curves"), ("ffa-lora/table2", "ffa-lora/table1"))
BEGIN, END = "<!-- gallery: made by tools/gallery.py -->", "<!-- end of gallery -->"
PICTURE, WHOLE = 100_000, 5_000_000  # bytes
ROWS = 8  # of a comparison
CLAIMS = 3  # of a verdict in the README


def light(picture: bytes) -> bytes:
    """A PNG of at most `PICTURE` bytes: fewer colours, then fewer pixels."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for width in (1200, 1000, 850, 700, 550, 400):
        size = (width, max(1, round(image.height * width / image.width)))
        small = image if image.width <= width else image.resize(size, Image.Resampling.LANCZOS)
        for colours in (256, 64, 32):
            buffer = io.BytesIO()
            small.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
            if buffer.tell() <= PICTURE:
                return buffer.getvalue()
    raise BadValue("a picture does not fit into the gallery", f"at most {PICTURE} bytes")


def markdown(header: list[str], rows: list[list[str]], numeric: list[bool]) -> list[str]:
    """A table as lines of markdown."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    return [line(header), line(["--:" if n else ":--" for n in numeric]), *map(line, rows)]


def in_words(table: Table) -> list[list[str]]:
    """The rows in words."""
    return [[words.value(name, c) for name, c in zip(table.header, row, strict=True)] for row in table.rows]


def setting(section: Section, data: dict[str, Any]) -> str:
    """What was run, read off the runs' descriptions; nothing where the item has none."""
    specs = [data["runs"][key].get("spec", {}) for key in section.runs]
    specs = [spec for spec in specs if {"data", "model", "split", "rounds", "seed"} <= set(spec)]
    if not specs:
        return ""

    def every(part: str, name: str) -> str:
        values = dict.fromkeys(str(data["pool"][spec[part]][name]) for spec in specs)
        return " or ".join(values)

    reported = {
        row[table.header.index("seed")]
        for table in section.tables
        if table.by_run and table.name == "results" and "seed" in table.header
        for row in table.raw
    }
    seeds = len(reported or {data["pool"][spec["seed"]] for spec in specs})  # not those of a grid
    task, backbone = every("data", "task"), every("model", "backbone")
    clients, rounds = every("split", "clients"), every("rounds", "rounds")
    return (
        f"Run here on `{task}` with `{backbone}`: {clients} clients, {rounds} rounds, {seeds} seeds, "
        f"{len(section.runs)} runs."
    )


def compared(section: Section) -> list[str]:
    """The published numbers beside ours, and what that is worth."""
    table = section.comparison
    if table is None:
        return ["No published number of this item is known."]
    rows = [row for row in table.rows if row[4] != "–"]
    lines: list[str] = []
    if rows:
        shown = [[row[0], row[1], row[2], row[4], row[5], row[6]] for row in rows[:ROWS]]
        header = ["cell", "metric", "published", "reproduced", "seeds", "difference [95 %]"]
        lines += markdown(header, shown, [False, False, True, True, True, True])
        lines.append("")
    rest = f" {len(rows) - ROWS} more stand in the report." if len(rows) > ROWS else ""
    missing = len(table.rows) - len(rows)
    lost = (
        f" {missing} published number{'s have' if missing != 1 else ' has'} none of ours beside."
        if missing
        else ""
    )
    worth = (
        "Same setting as published, so far as it is known."
        if section.comparable
        else f"**Not comparable**: {NOT_COMPARABLE}"
    )
    return [*lines, f"{worth}{rest}{lost}"]


def keep(section: Section, folder: Path, figures: Path) -> None:
    """Copy an item's picture and table to ``folder``; but for what anybody makes in minutes, the runs' scores
    with their keys, too."""
    for table in section.tables:
        if table.by_run and table.name == "results" and figures.name != "smoke":
            shutil.copyfile(figures / section.id / "results.csv", folder / f"{section.anchor}.csv")
    for picture in section.figures[:1]:
        data = light((figures / section.id / f"{picture.name}.png").read_bytes())
        atomic.write_bytes(folder / f"{section.anchor}.png", data)
    if any(table.name == "table" for table in section.tables):
        shutil.copyfile(figures / section.id / "table.md", folder / f"{section.anchor}.md")


def judged(section: Section, most: int | None = None) -> list[str]:
    """The item's claims by verdict, of each verdict the first ``most``."""
    lines = []
    for verdict in VERDICTS:
        texts = [claim["text"] for claim in section.claims if claim["status"] == verdict]
        more = f"; and {len(texts) - most} more" if most is not None and len(texts) > most else ""
        if texts:
            lines.append(f"* *{verdict}*: {'; '.join(texts[:most])}{more}")
    return lines


def shown(
    section: Section, place: str, data: dict[str, Any], level: str, most: int | None = None
) -> list[str]:
    """One item as a section of a page, for which its picture lies in ``place``."""
    lines = [f"{level} {section.title}", "", f"`{section.id}`. {setting(section, data)}".strip(), ""]
    for picture in section.figures[:1]:
        alt = picture.caption.replace("[", "(").replace("]", ")").replace("\n", " ")
        lines += [f"![{alt}]({place}/{section.anchor}.png)", ""]
        lines += [picture.caption, ""] if picture.caption != section.title else []
    main = [table for table in section.tables if table.name == "table"]
    if main and not section.figures:
        what = f"Mean ± standard deviation over seeds of `{main[0].of}`." if main[0].of else ""
        lines += [what, ""] if what else []
        lines += [*markdown([*map(words.heading, main[0].header)], in_words(main[0]), main[0].numeric), ""]
    claims = judged(section, most)
    return [*lines, *(["Claims:", "", *claims, ""] if claims else [])]


def made_of(data: dict[str, Any]) -> str:
    """The runs, and the commits they were made at."""
    states = {
        f"{git['commit'][:10]}{' (with changes)' if git.get('dirty') else ''}"
        for run in data["runs"].values()
        if "same" in run and (git := data["pool"][run["same"]].get("git")) and git.get("commit")
    }
    return f"{len(data['runs'])} training runs" + (f" at {', '.join(sorted(states))}" if states else "")


def counted(figures: Path) -> list[str]:
    """The papers' claims by verdict, in every profile that has results."""
    rows = []
    for profile in PROFILES:
        sections = sections_of(figures / profile, ITEMS)
        for paper in PAPERS if any(section.state == "ok" for section in sections) else ():
            of_paper = [section for section in sections if section.paper == paper.id]
            ran = [section for section in of_paper if section.state == "ok"]
            values = [sum(section.verdicts[verdict] for section in ran) for verdict in VERDICTS]
            rows.append([paper.id, f"`{profile}`", f"{len(ran)} of {len(of_paper)}", *map(str, values)])
    return markdown(["paper", "profile", "items run", *VERDICTS], rows, [False, False, *[True] * 5])


def texts(profile: str, figures: Path, folder: Path) -> tuple[str, str]:
    """The README's part and docs/gallery.md; pictures and tables go to ``folder``."""
    done = [section for section in sections_of(figures / profile, ITEMS) if section.state == "ok"]
    chosen = [section for name in CHOSEN for section in done if section.id == name]
    if not chosen:
        raise BadValue("none of the gallery's items has results", f"fedlora reproduce --profile {profile}")
    data = run_data(key for section in done for key in section.runs)
    lost = [key for key, run in data["runs"].items() if "spec" not in run]
    if lost and len(lost) == len(data["runs"]):
        raise BadValue(
            "none of the runs behind the results is in the store",
            "make the gallery where the runs are, or name their store in FEDLORA_RUNS",
        )
    last = max(section.when for section in done)
    counts = ["Claims of the papers, judged by code:", "", *counted(figures), ""]
    made = f"Profile `{profile}`, last run {last}, {made_of(data)}."
    place = f"figures/{profile}/gallery"
    readme, page = [*counts, made, ""], ["# Gallery", "", made, *counts]
    page += ["[What a verdict means](reproduction.md#what-a-verdict-means).", ""]
    names = {section.id for section in chosen}
    front = {next((one for one in wanted if one in names), "") for wanted in IN_README}
    for section in chosen:
        keep(section, folder, figures / profile)
        page += [*shown(section, f"../{place}", data, "##"), *compared(section), ""]
        if section.id in front:
            readme += shown(section, place, data, "###", CLAIMS)
    if absent := [name for name in CHOSEN if name not in names]:
        page += [f"Without results in this profile: {', '.join(f'`{name}`' for name in absent)}.", ""]
    readme += ["Beside the published numbers, with more of both: [gallery](docs/gallery.md).", ""]
    return "\n".join(readme), "\n".join(page)


def between(readme: str, part: str) -> str:
    """The README with the part between its marks replaced."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise BadValue("the README has no place for the gallery", f"put {BEGIN} and {END} into it, once each")
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{part}{END}{rest.partition(END)[2]}"


def make(figures: Path, profile: str, root: Path = ROOT) -> Path:
    """Write the gallery's files, its page and the README's part; the gallery's folder."""
    readme, place = root / "README.md", f"figures/{profile}/gallery"
    between(readme.read_text("utf-8"), "")  # before anything is written
    fresh = figures / profile / ".gallery"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    part, page = texts(profile, figures, fresh)
    size = sum(path.stat().st_size for path in fresh.iterdir())
    if size > WHOLE:
        raise BadValue(f"the gallery has {size} bytes", f"at most {WHOLE}: choose fewer items")
    folder = root / place
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(fresh, folder)
    (root / "docs").mkdir(exist_ok=True)
    atomic.write_text(root / "docs" / "gallery.md", page)
    atomic.write_text(readme, between(readme.read_text("utf-8"), part))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", type=Path, default=ROOT / "figures", help="where the results lie")
    parser.add_argument("--profile", default="smoke")
    given = parser.parse_args()
    try:
        folder = make(given.figures.resolve(), given.profile)
    except FedloraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {folder}, docs/gallery.md and the README's part")
    return 0


if __name__ == "__main__":
    sys.exit(main())
