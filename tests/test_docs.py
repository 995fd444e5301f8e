"""`make docs`: pages, notebooks with their outputs, report, commands and API as one site, whole in itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import browser as chromium
import nbformat.v4 as nb
import pytest

from fedlora_kit.papers.items import ITEMS

ROOT = Path(__file__).resolve().parent.parent
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
pytestmark = pytest.mark.slow


class Links(HTMLParser):
    """What a page points at, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.loaded += [values[name] for name in ("src", "srcset", "data") if name in values]
        self.loaded += [values["href"]] if tag == "link" and "href" in values else []


def left_by_reproduce(folder: Path) -> None:
    """An executed notebook and a report, as `fedlora reproduce` leaves them."""
    table = '<table class="dataframe"><tr><th>accuracy</th></tr><tr><td>83.44</td></tr></table>'
    outputs = [
        nb.new_output("stream", text="round 1 of 3\n"),
        nb.new_output("display_data", data={"text/html": table, "text/plain": "a frame"}),
        nb.new_output("display_data", data={"image/png": DOT, "text/plain": "a figure"}),
    ]
    hidden = {"jupyter": {"source_hidden": True}}
    cells = [
        nb.new_markdown_cell(
            "# Start\n\nThe loss $a < b$. See [the other](ffa-lora/figure1.ipynb), [code](../setup.py)."
        ),
        nb.new_code_cell("output_dir = '/somewhere'\nseeds = 2", metadata={"tags": ["injected-parameters"]}),
        nb.new_code_cell("shown = f[0](away)", outputs=outputs),
        nb.new_code_cell("answer = 42", metadata=hidden),
    ]
    (folder / "smoke/start_here").mkdir(parents=True)
    (folder / "smoke/start_here/notebook.ipynb").write_text(nb.writes(nb.new_notebook(cells=cells)))
    (folder / "smoke/index.html").write_text("<!doctype html><title>The numbers</title>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once; strict: a warning is an error."""
    folder = tmp_path_factory.mktemp("docs")
    left_by_reproduce(folder / "figures")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FIGURES": str(folder / "figures")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "site"


def test_the_site_is_complete_whole_and_shows_what_is_there(site: Path) -> None:
    pages = {path: Links(path.read_text()) for path in sorted(site.rglob("*.html"))}
    lost = []
    for path, page in pages.items():
        for target in page.loaded:
            assert not re.match(r"(https?:)?//", target), f"{path.name} loads {target}"
        for link in page.links if path.name != "404.html" else ():
            place, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", place):
                continue
            target = (path.parent / place).resolve() if place else path
            if not target.is_file() or (anchor and anchor not in pages[target].anchors):
                lost.append(f"{path.relative_to(site)} -> {link}")
    assert not lost
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style

    for item in ITEMS:
        assert (site / f"{item.id}.html").is_file()
    known = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "api"))
    for name in ("partition.dirichlet.Dirichlet", "experiments.run.run", "flower.client", "errors.BadValue"):
        assert f"fedlora_kit.{name}" in known
    assert ">fedlora backbones build<" in re.sub(r"</?code>", "", (site / "help.html").read_text())
    assert "report/smoke.html" in pages[site / "report.html"].links

    start = (site / "start_here.html").read_text()
    for part in ("round 1 of 3", "<td>83.44</td>", "<math", "<summary>Solution</summary>", "--profile smoke"):
        assert part in start
    assert "/somewhere" not in start
    assert "ffa-lora/figure1.html" in pages[site / "start_here.html"].links
    assert "setup.py" not in " ".join(pages[site / "start_here.html"].links)
    text = re.sub(r"<[^>]+>", "", start)
    assert "shown = f[0](away)" in text
    assert "a frame" not in text
    assert "not executed" in (site / "ffa-lora/figure1.html").read_text()


@pytest.fixture(scope="module")
def window() -> Iterator[chromium.Browser]:
    if chromium.found() is None:
        pytest.skip("no Chromium here")
    one = chromium.Browser()
    yield one
    one.close()


def test_on_a_phone_and_a_desktop_nothing_reaches_over_the_edge_or_outside(
    site: Path, window: chromium.Browser
) -> None:
    wide, missing = [], []
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html" or (path.parent.name == "api" and path.stem != "partition"):
            continue  # addresses from the server's root; pages that are all made alike, and long
        window.call("Page.navigate", url=path.as_uri())
        window.wait(f"location.href === {path.as_uri()!r} && document.readyState === 'complete'")
        for width in (390, 1280):
            window.size(width, 800)
            if not window.do("document.documentElement.scrollWidth <= innerWidth"):
                wide.append(f"{path.relative_to(site)} at {width}")
        if not window.do("[...document.images].every(image => image.naturalWidth > 0)"):
            missing.append(path.name)
    assert not wide
    assert not missing
    assert not window.errors
    assert not [one for one in window.requests if not one.startswith(("file:", "data:", "about:"))]

    window.size(390, 800, dark=True)
    window.call("Page.navigate", url=(site / "gallery.html").as_uri())
    window.wait("location.href.endsWith('gallery.html') && document.readyState === 'complete'")
    ground = "getComputedStyle(document.querySelector('{}')).backgroundColor"
    assert window.do(ground.format("body")) != "rgb(255, 255, 255)"
    assert window.do(ground.format(".md-content img")) == "rgb(255, 255, 255)"
