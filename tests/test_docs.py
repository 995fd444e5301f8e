"""`make docs`: one site of pages, command line and API, whole in itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import build_docs  # noqa: E402

NAMES = {"README.md": "index.html", "docs/ray.md": "ray.html", "CONTRIBUTING.md": "contributing.html"}


class Links(HTMLParser):
    """What a page points at, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(str(values["id"]))
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        elif values.get("src"):
            self.loaded.append(str(values["src"]))
        elif tag == "link" and values.get("href"):
            self.loaded.append(str(values["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, str(ROOT / "tools" / "build_docs.py"), "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr[-3000:]
    return out


@pytest.mark.slow
def test_the_site_holds_every_page_command_and_public_module(site: Path) -> None:
    for name in build_docs.modules():
        path = site / "api" / f"{name.replace('.', '/')}.html"
        assert path.is_file(), f"{name} has no page"
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert (site / f"{page.stem}.html").is_file()
    assert "Two commands" in (site / "index.html").read_text()
    commands = (site / "command_line.html").read_text()
    for name in ("fedlora", "fedlora reproduce", "fedlora new", "fedlora backbones build"):
        assert f">{name}</h2>" in commands
    api = (site / "api" / "fedlora_kit" / "partition" / "dirichlet.html").read_text()
    assert "Each class is spread over the clients" in api
    flower = (site / "api" / "fedlora_kit" / "flower" / "client.html").read_text()
    assert "docstring" in flower, "also where Flower is not installed"


@pytest.mark.slow
def test_every_link_inside_the_site_leads_somewhere_and_nothing_is_loaded_from_outside(site: Path) -> None:
    pages = {path: Links(path.read_text()) for path in sorted(site.rglob("*.html"))}
    lost = []
    for path, page in pages.items():
        for target in page.loaded:
            assert not re.match(r"(https?:)?//", target), f"{path.name} loads {target}"
        for link in page.links:
            place, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", place):
                continue
            target = (path.parent / place).resolve() if place else path
            known = target in pages and (not anchor or anchor in pages[target].anchors)
            if not known and "api" not in path.relative_to(site).parts:
                lost.append(f"{path.name} -> {link}")
            elif not target.exists():
                lost.append(f"{path.relative_to(site)} -> {link}")
    assert not lost


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](ray.md)", '<a href="ray.html">a</a>'),
        ("[a](../README.md#two-commands)", '<a href="index.html#two-commands">a</a>'),
        ("[a](../fedlora_kit/errors.py)", "<span>a</span>"),
        ("[a](https://example.org)", '<a href="https://example.org">a</a>'),
        ("[a](#here) [b](x.md) [c](ray.md)", '<a href="#here">a</a> <span>b</span> <a href="ray.html">c</a>'),
        ("![p](images/x.png)", '<img src="docs/images/x.png" alt="p" />'),
        ("| a |\n|---|\n| b |", "<th>a</th>"),
        ("## A head", '<h2 id="a-head">A head</h2>'),
        ("<script>x</script>", "&lt;script&gt;"),
    ],
)
def test_pages_are_rendered_with_links_that_fit_the_site(text: str, expected: str) -> None:
    assert expected in build_docs.rendered(text, "docs/page.md", NAMES)


def test_a_missing_picture_is_said(tmp_path: Path) -> None:
    page = build_docs.Page("x.html", "x", '<img src="nowhere/x.png">', "docs/x.md")
    assert build_docs._bring_pictures([page], tmp_path) == ["docs/x.md: there is no picture nowhere/x.png"]


def test_a_package_that_is_not_installed_gets_a_stand_in(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").write_text("")
    (tmp_path / "house" / "room.py").write_text(
        "from nosuchpackage.inner import Base, decorated\nimport nosuchpackage as n\n"
        "app = n.App(name='x')\n"
        "@decorated\ndef plain(x: int) -> int:\n    'Doubles.'\n    return 2 * x\n"
        "@app.main()\ndef other() -> None:\n    'Other.'\n"
        "class Thing(Base, n.Mixin[int]):\n    'A thing.'\n"
    )
    code = (
        "from stand_ins import import_all\n"
        "assert import_all(['house', 'house.room'], 'house') == {'nosuchpackage'}\n"
        "from house import room\n"
        "assert (room.plain(2), room.other.__doc__, room.Thing.__doc__) == (4, 'Other.', 'A thing.')\n"
        "try: import_all(['house.absent'], 'house')\n"
        "except ModuleNotFoundError: print('refused')\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "tools")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "refused\n", done.stderr
