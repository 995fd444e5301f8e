"""Build the documentation into build/docs: pages, command line and API in one site (`make docs`).

Pages are README, CONTRIBUTING, CHANGELOG and docs/*.md, by markdown-it-py; the API reference is made of the
docstrings by pdoc. The site needs no server and asks for nothing outside itself.
"""

from __future__ import annotations

import argparse
import html
import importlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from stand_ins import import_all

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "fedlora_kit"
FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Page:
    """A page of the site: ``name`` is its file, ``source`` its path in the repository if it has one."""

    name: str
    title: str
    body: str
    source: str = ""


def pages() -> list[Page]:
    """The written pages, README first."""
    sources = [ROOT / name for name in FRONT] + sorted((ROOT / "docs").glob("*.md"))
    names = {path.relative_to(ROOT).as_posix(): _html_name(path) for path in sources}
    found = []
    for path in sources:
        source = path.relative_to(ROOT).as_posix()
        text = path.read_text("utf-8")
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        found.append(
            Page(names[source], heading[1] if heading else path.stem, rendered(text, source, names), source)
        )
    return found


def _html_name(path: Path) -> str:
    return "index.html" if path.name == "README.md" else f"{path.stem.lower()}.html"


def rendered(text: str, source: str, names: dict[str, str]) -> str:
    """Markdown as HTML; links between pages lead to pages, those to other files become text.

    Args:
        source: path of the page in the repository; its links are relative to that.
        names: page in the repository -> file of the site.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").use(anchors_plugin, max_level=3)
    tokens = markdown.parse(text)
    for token in tokens:
        _relink(token.children or [], PurePosixPath(source).parent, names)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _relink(children: list[Token], folder: PurePosixPath, names: dict[str, str]) -> None:
    inside = False  # a link that was made text
    for token in children:
        if token.type == "image":
            token.attrs["src"] = _joined(folder, str(token.attrs["src"]))
        elif token.type == "link_open" and not re.match(r"[a-z]+:|#", str(token.attrs["href"])):
            target, _, fragment = str(token.attrs["href"]).partition("#")
            page = names.get(_joined(folder, target))
            inside = page is None
            if page is None:
                token.tag, token.attrs = "span", {}
            else:
                token.attrs["href"] = f"{page}#{fragment}" if fragment else page
        elif token.type == "link_close" and inside:
            token.tag, inside = "span", False


def _joined(folder: PurePosixPath, target: str) -> str:
    return os.path.normpath((folder / target).as_posix())


def command_line() -> Page:
    """The help of every command."""
    from typer.main import get_command

    from fedlora_kit.cli import app

    parts = ["<h1>The command line</h1>", "<p>What <code>--help</code> says, command by command.</p>"]
    for name, text in _helps(get_command(app), "fedlora"):
        parts.append(f'<h2 id="{name.replace(" ", "-")}">{name}</h2>\n<pre>{html.escape(text)}</pre>')
    return Page("command_line.html", "The command line", "\n".join(parts))


def _helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=name.split()[-1], parent=parent, terminal_width=100)
    yield name, command.get_help(context)
    for inner in getattr(command, "commands", {}):
        yield from _helps(command.get_command(context, inner), f"{name} {inner}", context)


def modules(package: Path = ROOT / PACKAGE) -> list[str]:
    """The public modules, by name."""
    files = sorted(package.rglob("*.py"))
    parts = [path.relative_to(package.parent).with_suffix("").parts for path in files]
    names = [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def api(folder: Path, version: str) -> None:
    """The API reference, by pdoc."""
    import pdoc
    import pdoc.extract
    import pdoc.render

    # Without source listings: they double time and size, and the repository is at hand.
    pdoc.render.configure(docformat="google", footer_text=f"fedlora-kit {version}", show_source=False)
    found = pdoc.extract.walk_specs([PACKAGE])  # leaves out what a package's __all__ does not name
    missing = set(modules()) - set(found)
    pdoc.pdoc(  # a package brings its modules along
        PACKAGE, *sorted(m for m in missing if m.rpartition(".")[0] not in missing), output_directory=folder
    )


def build(out: Path) -> list[str]:
    """Build the site into ``out``, replacing what is there; the warnings of its making, one line each."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    os.environ.setdefault("TQDM_DISABLE", "1")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    absent = import_all(modules(), PACKAGE)
    written = [*pages(), command_line()]
    version = importlib.import_module(PACKAGE).__version__
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=True,
    ).get_template("docs.html.j2")
    for page in written:
        text = template.render(page=page, pages=written, version=version, absent=sorted(absent))
        (out / page.name).write_text(text, "utf-8")
    said = _bring_pictures(written, out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api(out / "api", version)
    return said + sorted({str(w.message) for w in caught if "pdoc" in Path(w.filename).parts})


def _bring_pictures(written: Sequence[Page], out: Path) -> list[str]:
    """Copy the pages' pictures under their paths in the repository; what is missing, one line each."""
    missing = []
    for page in written:
        for source in re.findall(r'<img src="([^":]+)"', page.body):
            if (ROOT / source).is_file():
                (out / source).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / source, out / source)
            else:
                missing.append(f"{page.source}: there is no picture {source}")
    return missing


def main() -> int:
    """The command: 0 if the site was built without a warning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    out = parser.parse_args().out
    said = build(out)
    for line in said:
        print(f"warning: {line}", file=sys.stderr)
    print(f"documentation: {out / 'index.html'}")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
