"""Pages of the documentation that do not lie in docs/ (the hook of mkdocs.yml): README, CONTRIBUTING,
CHANGELOG, every item's notebook, the report, the help of the commands, and the API, one page a room.

Nothing is executed: a notebook comes with its outputs where `fedlora reproduce` has left its executed copy in
``figures/<profile>/`` (``FIGURES`` names another folder), else without.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from html import unescape
from pathlib import Path
from typing import Any

import griffe
import nbformat
from latex2mathml.converter import convert as mathml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from typer.cli import get_docs_for_click
from typer.main import get_command

from fedlora_kit import paths
from fedlora_kit.batch.folders import NOTEBOOK_FILE
from fedlora_kit.cli import app
from fedlora_kit.papers.items import ITEMS
from fedlora_kit.study.item import PROFILES, Item

ROOT = Path(__file__).resolve().parent.parent
FIGURES = Path(os.environ.get("FIGURES", ROOT / "figures"))
PACKAGE = "fedlora_kit"
FRONT = {  # page -> file of the repository
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "rolora.md": "examples/rolora/README.md",
}
# A fenced block, a link or picture, code in a line: what begins first counts.
LINKS = re.compile(
    r"^```.*?^```|(!?)\[((?:`[^`]*`|[^\[\]`])*)\]\(([^)\s]+)\)|`[^`\n]+`", re.DOTALL | re.MULTILINE
)
MATHS = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)
VERBATIM = re.compile(r"\x08\s*\n((?:.+\n)+)")  # typer's mark of a paragraph that is not filled
EXAMPLES = re.compile(r"^>>> .*(?:\n.+)*|\]\[", re.MULTILINE)
EXPORTER = MarkdownExporter(
    raw_template="""{% extends 'markdown/index.md.j2' %}
{% block codecell %}{% if cell.metadata.get('jupyter', {}).get('source_hidden') %}
<details markdown="1"><summary>Solution</summary>
{{ super() }}
</details>
{% else %}{{ super() }}{% endif %}{% endblock %}
{% block outputs %}{% if cell.outputs %}
<div class="output" markdown="1">
{{ super() }}
</div>
{% endif %}{% endblock %}"""
)

_origins: dict[str, str] = {}  # page -> file of the repository, to which its links are relative


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A folder's name in the navigation becomes the pages of its items, or of the API's rooms."""
    folders: dict[str, list[Any]] = {"api/": [f"api/{room}.md" for room in rooms()]}
    for item in ITEMS:
        pages = folders.setdefault(item.id.rpartition("/")[0] + "/", [])
        pages.append({item.name: f"{item.id}.md"} if item.paper else f"{item.id}.md")

    def opened(entry: Any) -> list[Any]:
        if isinstance(entry, dict):
            ((name, inner),) = entry.items()
            inner = inner if isinstance(inner, list) else [inner]
            return [{name: [page for one in inner for page in opened(one)]}]
        return folders.get(entry, [entry])

    config.nav = [page for entry in config.nav or () for page in opened(entry)]
    return config


def rooms() -> dict[str, list[str]]:
    """Room -> its public modules; those of the top are in a room of the package's name."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        room = parts[1] if len(parts) > 2 else PACKAGE
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts):
            found.setdefault(room, []).append(".".join(parts))
    return found


def executed(item: Item) -> tuple[str, Path]:
    """The profile of an item's executed notebook and that file; ``""`` and the bare notebook without one."""
    for profile in reversed(PROFILES):
        if (copy := FIGURES / profile / item.id / NOTEBOOK_FILE).is_file():
            return profile, copy
    return "", item.path


def described(module: str) -> str:
    """The API of a module; of a package its text alone, for what it hands on stands where it is defined."""
    package = (ROOT / module.replace(".", "/")).is_dir()
    return f"::: {module}" + "\n    options:\n      members: false" * package


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/, and what they show."""

    def add(uri: str, content: str | bytes | None = None, path: Path | None = None, origin: str = "") -> None:
        _origins.update({uri: origin} if origin else {})
        files.append(File.generated(config, uri, content=content, abs_src_path=path and str(path)))

    _origins.clear()
    _origins.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    for page, source in FRONT.items():
        add(page, path=ROOT / source, origin=source)
    for path in sorted(ROOT.glob("figures/*/gallery/*.png")):
        add(path.relative_to(ROOT).as_posix(), path=path)
    for item in ITEMS:
        text, pictures = notebook_page(item)
        add(f"{item.id}.md", text, origin=item.path.relative_to(paths.home()).as_posix())
        for name, data in pictures.items():
            add(posixpath.join(posixpath.dirname(item.id), name), data)
    reports = {profile: FIGURES / profile / "index.html" for profile in reversed(PROFILES)}
    reports = {profile: path for profile, path in reports.items() if path.is_file()}
    for profile, path in reports.items():
        add(f"report/{profile}.html", path=path)
    add("report.md", report_page(list(reports)))
    command = get_command(app)
    with command.context_class(command, info_name="fedlora") as context:
        text = get_docs_for_click(obj=command, ctx=context, name="fedlora", title="All options")
        add("help.md", VERBATIM.sub(r"```text\n\1```\n", text))
    lines = [
        "# The API",
        "One page a room of the house; [which builds on which](contributing.md#the-house).",
        "",
    ]
    for room, modules in rooms().items():
        add(f"api/{room}.md", "\n\n".join([f"# {room}", *map(described, modules)]))
        lines.append(f"- [`{room}`](api/{room}.md): {summary(room)}")
    add("api.md", "\n".join(lines))
    return files


def notebook_page(item: Item) -> tuple[str, dict[str, bytes]]:
    """An item's notebook as Markdown, and its pictures by name."""
    profile, path = executed(item)
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):  # but no folder of the machine
            cell.source = re.sub(r"^output_dir = .*\n?", "", cell.source, flags=re.MULTILINE)
    body, resources = EXPORTER.from_notebook_node(notebook, {"unique_key": item.name})
    told = f"`{item.path.relative_to(paths.home())}`"
    if profile:
        told += f", as `fedlora reproduce {item.id} --profile {profile}` left it."
    else:
        told += f", not executed where this site was made: `fedlora reproduce {item.id}` does it."
    title, _, rest = body.lstrip().partition("\n")
    return f"{title}\n\n{told}\n{{: .told }}\n\n{rest}", resources["outputs"]


def report_page(profiles: list[str]) -> str:
    """Leads to the reports that there are."""
    lines = ["# The report", "Each number of a reproduction with the runs behind it, in one file.", ""]
    lines += [f"- [Profile `{profile}`](report/{profile}.html)" for profile in profiles]
    if not profiles:
        lines.append("There was none where this site was made. `make reproduce`, then `make docs`.")
    return "\n".join(lines)


def summary(room: str) -> str:
    """The first line of a room's docstring."""
    path = ROOT / PACKAGE / ("" if room == PACKAGE else room) / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to the repository's files lead to their pages; those to files without a page become text."""
    origin = _origins.get(page.file.src_uri)
    if origin is None:
        return markdown
    places = {source: uri for uri, source in _origins.items()}

    def led(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if target is None or re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        folder = posixpath.dirname(page.file.src_uri)
        if files.get_file_from_path(posixpath.normpath(posixpath.join(folder, path))):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        uri = places.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) is None and not mark:
            return text
        uri = posixpath.relpath(uri, folder or ".")
        return f"{mark}[{text}]({uri}{'#' * bool(anchor)}{anchor})"

    return LINKS.sub(led, markdown)


class Doctests(griffe.Extension):
    """What Markdown would take for something else in docstrings: examples, and indices as ``a[i][j]``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLES.sub(_kept, obj.docstring.value)


def _kept(match: re.Match[str]) -> str:
    return r"]\[" if match[0] == "][" else f"```pycon\n{match[0]}\n```"


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML, which browsers show by themselves."""

    def shown(match: re.Match[str]) -> str:
        return mathml(unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return MATHS.sub(shown, html)
