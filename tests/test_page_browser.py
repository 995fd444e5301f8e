"""The report page in a real browser, at a phone's and a desktop's width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser as chromium
import pytest
from page_tools import filled_page, key

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="no Chromium here")
SHOWN = "[...document.querySelectorAll('article')].filter(a => !a.hidden).map(a => a.id)"
WIDTHS = [(375, 800), (1280, 900)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDLORA_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("FEDLORA_STAGING", raising=False)
        patch.delenv("FEDLORA_RUNS", raising=False)
        yield filled_page()


@pytest.fixture(scope="module")
def started() -> Iterator[chromium.Browser]:
    one = chromium.Browser()
    yield one
    one.close()


@pytest.fixture(params=WIDTHS, ids=["phone", "desktop"])
def browser(
    request: pytest.FixtureRequest, started: chromium.Browser, page: Path
) -> Iterator[chromium.Browser]:
    """The page, freshly loaded. Whatever a test does, nothing is complained of and nothing asked for."""
    started.size(*request.param)
    started.errors.clear()
    started.requests.clear()
    started.open(page)
    yield started
    started.do("1")  # events that are still under way
    assert started.errors == []
    assert all(u.startswith(("file:", "data:")) or u == "about:blank" for u in started.requests)


def type_in(browser: chromium.Browser, name: str, value: str) -> None:
    browser.do(
        f"(() => {{ const f = document.querySelector('#filter').elements['{name}']; f.value = '{value}';"
        " f.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def fits(browser: chromium.Browser) -> bool:
    return bool(browser.do("document.documentElement.scrollWidth <= innerWidth"))


def test_nothing_reaches_over_the_edge(browser: chromium.Browser) -> None:
    assert fits(browser)
    browser.do("for (const d of document.querySelectorAll('details')) d.open = true")
    assert fits(browser)
    browser.do("document.querySelector('img').scrollIntoView()")
    browser.wait("document.querySelector('img').naturalWidth > 0")


def test_filter_and_search(browser: chromium.Browser) -> None:
    count = "document.querySelector('#count').textContent"
    everything = browser.do(SHOWN)
    assert browser.do(count) == "5 items"
    type_in(browser, "paper", "fed-hello")
    assert browser.do(SHOWN) == ["fed-hello-curves", "fed-hello-table2"]
    assert browser.do(count) == "2 of 5 items"
    type_in(browser, "state", "failed")
    assert browser.do(SHOWN) == ["fed-hello-curves"]
    browser.do("document.querySelector('#filter').reset()")
    browser.wait(f"{count} === '5 items'")
    type_in(browser, "verdict", "reproduced")
    assert browser.do(SHOWN) == ["ffa-lora-table1"]
    claims = "[...document.querySelectorAll('.claims li')].filter(c => !c.hidden).length"
    assert browser.do(claims) == 2
    type_in(browser, "verdict", "not reproduced")
    assert browser.do(claims) == 1
    type_in(browser, "verdict", "undecided")
    assert browser.do(SHOWN) == []
    type_in(browser, "verdict", "")
    type_in(browser, "text", "ZEBRAS remark")
    assert browser.do(SHOWN) == ["fedlora-optimizer-global"]
    type_in(browser, "text", key("lora", "severe", 1))
    assert browser.do(SHOWN) == ["ffa-lora-table1"]
    type_in(browser, "text", "no such thing")
    assert browser.do(SHOWN) == []
    assert browser.do(count) == "0 of 5 items"
    type_in(browser, "text", "")
    assert browser.do(SHOWN) == everything
    assert browser.do("document.querySelector('#count').getAttribute('aria-live')") == "polite"


def test_light_and_dark(browser: chromium.Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = browser.do(ground)
    browser.do("document.querySelector('#theme').click()")
    dark = browser.do(ground)
    assert dark != light
    browser.do("document.querySelector('#theme').click()")
    assert browser.do(ground) == light
    width, height = browser.do("[innerWidth, innerHeight]")
    browser.do("localStorage.clear(); delete document.documentElement.dataset.theme")
    browser.size(width, height, dark=True)
    assert browser.do(ground) == dark  # what the system asks for, until the button is used


def test_every_text_stands_out_from_its_ground(browser: chromium.Browser) -> None:
    """WCAG AA: a ratio of 4.5 for text, in both themes."""
    script = """(() => {
      const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
      const rgb = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
      };
      const part = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = colour => {
        const [r, g, b] = rgb(colour).map(v => part(v / 255));
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const ground = e => {
        for (; e; e = e.parentElement) {
          const colour = getComputedStyle(e).backgroundColor;
          if (rgb(colour)[3] === 255) return colour;
        }
        return 'white';
      };
      const written = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
      for (const d of document.querySelectorAll('details')) d.open = true;
      const poor = [];
      for (const e of document.querySelectorAll('body *')) {
        if (!written(e) || !e.checkVisibility()) continue;
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        if (ratio < 4.5) poor.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio]);
      }
      return poor;
    })()"""
    assert browser.do(script) == []
    browser.do("document.querySelector('#theme').click()")
    assert browser.do(script) == []
    browser.do("document.querySelector('#theme').click()")


def test_three_steps_from_the_list_to_a_run(browser: chromium.Browser) -> None:
    browser.do("document.querySelector('#ffa-lora-table1 summary').click()")
    browser.do("[...document.querySelectorAll('td a')].find(a => a.textContent === '84.95 ± 1.70').click()")
    browser.wait("document.querySelector('dialog').open")
    assert "The mean of accuracy over 3 runs" in browser.do("document.querySelector('dialog').textContent")
    browser.do("document.querySelector('dialog details summary').click()")
    assert browser.do("document.querySelectorAll('dialog polyline').length") == 3
    shown = browser.do("document.querySelector('dialog details').innerText")
    for part in ("method.name", "ffa-lora", "5.99", "versions.torch", "2.13", key("ffa-lora", "iid", 0)):
        assert part in shown.replace("\n", "")
    assert fits(browser)
    assert browser.do(
        "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
    )
    assert "between" in browser.do("document.querySelector('dialog svg').getAttribute('aria-label')")
    browser.press("Escape", 27)
    browser.wait("!document.querySelector('dialog').open")
    assert browser.do("document.activeElement.textContent") == "84.95 ± 1.70"  # back where one was
    browser.wait("location.hash === ''")


def test_the_address_of_a_number_can_be_passed_on(browser: chromium.Browser, page: Path) -> None:
    fragment = browser.do("document.querySelector('td a[id]').id")
    browser.open(page, f"#{fragment}")
    browser.wait("document.querySelector('dialog').open")
    browser.open(page, f"#run-{key('ffa-lora', 'severe', 2)}")
    browser.wait("document.querySelector('dialog').open")
    assert "not in the store" in browser.do("document.querySelector('dialog').textContent")
    shown = browser.do("[...document.querySelectorAll('dialog a')].map(a => a.textContent)")
    assert shown[0] == f"index.html#run-{key('ffa-lora', 'severe', 2)}"
    browser.open(page, f"#{fragment}")
    browser.press("Escape", 27)
    browser.wait("!document.querySelector('dialog').open")
    browser.wait(f"document.activeElement.id === '{fragment}'")  # the number, though one came by its address
    browser.open(page, f"#{fragment}")
    browser.do("[...document.querySelectorAll('dialog a')].at(2).click()")
    browser.wait("location.hash === '#ffa-lora-table1-deviations' && !document.querySelector('dialog').open")
    browser.open(page, "#ffa-lora-table1-claim-worse")
    browser.wait("document.querySelector('#ffa-lora-table1 details').open")
    browser.do("document.querySelector('#ffa-lora-table1-claim-worse a').click()")
    browser.wait("document.querySelector('dialog').open")
    assert "LoRA, severely unequal" in browser.do("document.querySelector('dialog table').innerText")
    browser.open(page, "#fed-hello-curves")
    browser.wait("document.querySelector('#fed-hello-curves details').open")
    assert "NaN in round 3" in browser.do("document.querySelector('#fed-hello-curves').innerText")


def test_the_keyboard_is_enough(browser: chromium.Browser) -> None:
    browser.press("Tab", 9)
    assert browser.do("document.activeElement.className") == "skip"
    browser.press("Enter", 13)
    browser.wait("document.activeElement.id === 'items'")
    reached = ""
    for _ in range(8):
        browser.press("Tab", 9)
        reached = browser.do("document.activeElement.closest('article')?.id || ''")
        if reached == "ffa-lora-table1":
            break
    assert reached == "ffa-lora-table1"
    browser.press("Enter", 13)
    browser.wait("document.querySelector('#ffa-lora-table1 details').open")
    assert browser.do("parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2")


def test_a_point_of_a_figure_leads_to_its_runs(browser: chromium.Browser) -> None:
    browser.do("document.querySelector('#ffa-lora-table1 details').open = true")
    points = "document.querySelectorAll('#ffa-lora-table1-figure .plot a')"
    assert browser.do(f"{points}.length") == 2  # LoRA's 81.7 and 71.7 may be accidents
    inside = f"""(() => {{
      const box = document.querySelector('.plot').getBoundingClientRect();
      return [...{points}].map(a => a.getBoundingClientRect()).every(
        p => p.left > box.left && p.right < box.right && p.top > box.top && p.bottom < box.bottom);
    }})()"""
    assert browser.do(inside)
    browser.do(f"{points}[1].click()")
    browser.wait("document.querySelector('dialog').open")
    shown = browser.do("document.querySelector('dialog').innerText")
    assert "FFA-LoRA" in shown
    assert "severely unequal" in shown
    assert all(key("ffa-lora", "severe", seed) in shown for seed in range(3))


def test_paper_has_the_results_and_the_appendix_where_it_is_wanted(browser: chromium.Browser) -> None:
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.do("dispatchEvent(new Event('beforeprint'))")
    assert browser.do("document.querySelectorAll('main details:not([open])').length") == 0
    hidden = "['.controls', '#theme', '.skip'].every(s => !document.querySelector(s).checkVisibility())"
    assert browser.do(hidden)
    visible = "[{}].map(s => document.querySelector('#ffa-lora-table1 ' + s).checkVisibility())"
    results = visible.format("'.claims', '.brief', 'figure', 'table.table'")
    assert browser.do(results) == [True] * 4
    rest = visible.format("'.raw', '.prose', 'table.privacy'")
    assert browser.do(rest) == [False] * 3
    browser.do("document.querySelector('#whole input').click()")
    assert browser.do(rest) == [True] * 3
    browser.do("document.querySelector('#whole input').click()")
    browser.do("dispatchEvent(new Event('afterprint'))")
    assert browser.do("document.querySelectorAll('main details[open]').length") == 0
    browser.call("Emulation.setEmulatedMedia", media="")
