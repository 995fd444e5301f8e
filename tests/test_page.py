"""The report page: it shows what the folders hold, safely, and nothing that they do not."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt
from page_tools import Item, claims, fill, filled_page, finish, key

from fedlora_kit.reporting.comparison import COLUMNS
from fedlora_kit.reporting.outputs import ItemOutputs, item_folder
from fedlora_kit.reporting.page import write_page


class Structure(HTMLParser):
    """Tags that stay open, every address, and the visible text."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("href", "src", "srcset", "action")
        ]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script", "noscript"):
            self.text += data


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_STAGING", raising=False)
    return tmp_path


def page(items: list[Item]) -> tuple[str, Structure]:
    path = write_page("figures", "smoke", items)
    text = path.read_text()
    structure = Structure(text)
    assert structure.open == []
    assert len(set(structure.ids)) == len(structure.ids)
    return text, structure


def comparison(comparable: bool) -> pd.DataFrame:
    row = dict(
        zip(
            COLUMNS,
            ["eps=6|task=x", "accuracy %", 85.0, 1.1, "SEEN", "src", 70.125, 2.5, 3, -14.875],
            strict=False,
        )
    )
    return pd.DataFrame([{**row, "comparable": comparable}])


def test_without_any_run_every_item_is_listed_as_planned_or_not_run() -> None:
    _, structure = page([Item("ffa-lora/table1"), Item("ffa-lora/table2", notebook=None)])
    assert "○ not run" in structure.text
    assert "… planned" in structure.text
    assert "ffa-lora-table2" in structure.ids
    assert "fedlora reproduce ffa-lora/table1 --profile smoke" in structure.text


def test_by_default_it_lists_all_items_of_the_papers() -> None:
    from fedlora_kit.papers.items import ITEMS

    text = write_page("figures", "smoke").read_text()
    assert all(f'id="{item.id.replace("/", "-")}"' in text for item in ITEMS)


def test_a_finished_item_shows_all_its_parts() -> None:
    outputs = ItemOutputs("ffa-lora/table1", "smoke")
    outputs.table(pd.DataFrame({"method": ["lora"], "accuracy": ["91.5 ± 0.4"]}))
    outputs.comparison(comparison(comparable=True))
    outputs.privacy(pd.DataFrame({"epsilon": [5.991], "sigma": [0.990234]}))
    outputs.note(["Smaller model."])
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    outputs.figure(fig)
    claims(outputs.folder, ("Spread is lower.", "reproduced"), ("Loss is smaller.", "not reproduced"))
    finish("ffa-lora/table1")
    text, structure = page([Item("ffa-lora/table1", title="The table")])
    for part in (
        *("The table", "91.5 ± 0.4", "ε 6 · x", "85.00 ± 1.10", "70.12 ± 2.50", "−14.88"),
        *(
            "5.991",
            "0.9902",
            "Smaller model.",
            "Spread is lower.",
            "✓ reproduced",
            "✗ not reproduced",
            "because",
        ),
        *("1.5 min", "2026-01-31 12:34 UTC", "torch 2.13"),
    ):
        assert part in structure.text, part
    assert re.search(r'<img [^>]*width="[1-9]\d+" height="[1-9]\d+"', text)
    assert "Not comparable" not in structure.text
    assert re.search(r'src="data:image/svg\+xml;base64,[A-Za-z0-9+/=]{100,}"', text)
    for name in ("table.csv", "comparison.csv", "figure.png"):
        assert f"ffa-lora/table1/{name}" in structure.addresses


def test_each_paper_that_has_run_gets_a_page_of_its_own() -> None:
    outputs = ItemOutputs("ffa-lora/table1", "smoke")
    outputs.table(pd.DataFrame({"method": ["lora"], "accuracy": [91.5]}))
    outputs.comparison(comparison(comparable=False))
    claims(outputs.folder, ("Spread is lower.", "reproduced"), ("Loss is smaller.", "not testable"))
    folder = finish("ffa-lora/table1")
    items = [Item("ffa-lora/table1", title="First"), Item("ffa-lora/table2"), Item("fed-hello/curves")]
    _, whole = page(items)
    assert "ffa-lora/index.html" in whole.addresses
    assert "fed-hello/index.html" not in whole.addresses
    assert not (folder.parent.parent / "fed-hello").exists()
    own = Structure((folder.parent / "index.html").read_text())
    assert own.open == []
    assert "Improving LoRA in Privacy-preserving Federated Learning" in own.text
    assert "curves" not in own.text
    assert "1 of 1" in own.text  # published numbers that stand beside a reproduced one
    assert "Spread is lower." in own.text
    assert not re.search(r'"(fed-hello|start)', str(own.ids))
    for address in own.addresses:  # every link leads somewhere from the place of this page
        if not address.startswith(("data:", "#", "../index.html")):
            assert (folder.parent / address).exists(), address
        elif address.startswith("#"):
            assert address[1:] in own.ids


def test_it_asks_for_nothing_from_outside() -> None:
    ItemOutputs("x", "smoke").table(pd.DataFrame({"a": [1]}))
    finish("x")
    text, structure = page([Item("x")])
    assert all(re.match(r"(data:image/|#|x/|\.\./claims\.html$)", address) for address in structure.addresses)
    assert "<script src" not in text
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_text_from_notebooks_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    outputs = ItemOutputs("x", "smoke")
    outputs.table(pd.DataFrame({evil: [evil]}))
    outputs.note([evil])
    claims(outputs.folder, (evil, "reproduced"))
    finish("x")
    finish("y", "failed", evil)
    text, structure = page([Item("x", title=evil), Item("y")])
    assert evil not in text
    assert structure.text.count(evil) >= 6


def test_numbers_of_another_size_are_marked_as_not_comparable() -> None:
    ItemOutputs("x", "smoke").comparison(comparison(comparable=False))
    finish("x")
    assert "Not comparable" in page([Item("x")])[1].text


def test_a_failed_item_shows_its_reason_and_no_results() -> None:
    folder = item_folder("x", "smoke")
    ItemOutputs("x", "smoke").table(pd.DataFrame({"a": ["stale"]}))
    claims(folder, ("Stale claim.", "reproduced"))
    (folder / "earlier").mkdir()
    (folder / "earlier" / "status.json").write_text("{}")
    finish("x", "failed", "NonFinite: loss became NaN in round 3")
    _, structure = page([Item("x")])
    assert "loss became NaN in round 3" in structure.text
    assert "stale" not in structure.text
    assert "Stale claim." not in structure.text
    assert "x/earlier/" in structure.addresses


def test_files_without_a_finished_run_are_not_shown() -> None:
    ItemOutputs("x", "smoke").table(pd.DataFrame({"a": ["orphan"]}))
    _, structure = page([Item("x")])
    assert "orphan" not in structure.text
    assert "not run" in structure.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "table.csv").write_text("a\n999\n"),
        lambda f: (f / "table.csv").unlink(),
        lambda f: (f / "status.json").write_text("{"),
        lambda f: (f / "status.json").write_text("[]"),
    ],
)
def test_changed_or_damaged_files_are_shown_as_unreadable(damage: object) -> None:
    ItemOutputs("x", "smoke").table(pd.DataFrame({"a": ["content"]}))
    folder = finish("x")
    ItemOutputs("y", "smoke").table(pd.DataFrame({"a": ["other item"]}))
    finish("y")
    damage(folder)  # type: ignore[operator]
    _, structure = page([Item("x"), Item("y")])
    assert "! unreadable" in structure.text
    assert "999" not in structure.text
    assert "other item" in structure.text


def test_claims_are_counted_over_the_items_that_ran() -> None:
    kinds = ["reproduced", "reproduced", "not testable", "not reproduced", "not reproduced"]
    folder = item_folder("x", "smoke")
    claims(folder, *((f"claim {i}", kind) for i, kind in enumerate(kinds)))
    records = json.loads((folder / "claims.json").read_text())
    records[-1]["reason"] = "the interval includes 0, so this is undecided"
    (folder / "claims.json").write_text(json.dumps(records))
    finish("x")
    finish("z", "failed", "NaN")
    text, _ = page([Item("x"), Item("y"), Item("z")])
    rows = re.findall(r'<th scope="row">([a-z ]+)</th><td class="n[^"]*">(\d+)', text)
    assert dict(rows[:8]) == {
        "done": "1",
        "failed": "1",
        "not run": "1",
        "reproduced": "2",
        "not reproduced": "1",
        "undecided": "1",
        "not testable": "1",
        "unknown": "2",
    }


def test_folders_of_unknown_items_follow_at_the_end() -> None:
    ItemOutputs("extra/item", "smoke").table(pd.DataFrame({"a": ["bonus"]}))
    finish("extra/item")
    _, structure = page([Item("x")])
    assert "bonus" in structure.text
    assert "Other items" in structure.text


def test_the_same_folders_give_the_same_page() -> None:
    ItemOutputs("x", "smoke").table(pd.DataFrame({"a": [1.25]}))
    finish("x")
    assert page([Item("x")])[0] == page([Item("x")])[0]


class Accessible(Structure):
    """What a screen reader goes by."""

    def __init__(self, text: str) -> None:
        self.problems: list[str] = []
        self.headings: list[int] = []
        self.landmarks: set[str] = set()
        self.tables: list[set[str]] = []
        self.names: set[str] = set()
        super().__init__(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag) and "dialog" not in self.open:
            self.headings.append(int(tag[1]))
        if tag in ("header", "main", "footer", "search"):
            self.landmarks.add(tag)
        if tag == "table":
            self.tables.append(set())
        if tag == "caption":
            self.tables[-1].add("caption")
        if tag == "th" and given.get("scope") not in ("col", "row", "rowgroup"):
            self.problems.append("th without scope")
        if tag == "img" and not given.get("alt"):
            self.problems.append("img without alt")
        if tag in ("input", "select", "textarea") and "label" not in self.open:
            self.problems.append(f"{tag} without label")
        if given.get("role") == "region" and not given.get("aria-label"):
            self.problems.append("region without name")
        self.names |= set((given.get("aria-labelledby") or "").split())


def test_it_can_be_read_without_seeing_it() -> None:
    found = Accessible(filled_page().read_text())
    assert found.problems == []
    assert found.tables
    assert all("caption" in table for table in found.tables)
    assert found.landmarks == {"header", "main", "footer", "search"}
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    steps = zip(found.headings, found.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)
    assert found.names <= set(found.ids)
    assert "#items" in found.addresses  # the way past the controls


def data_of(text: str) -> dict[str, dict[str, object]]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_a_number_leads_to_the_runs_that_it_is_the_mean_of() -> None:
    text = filled_page().read_text()
    data = data_of(text)
    fragment = re.search(r'<a href="#([^"]+)" id="\1">84\.95 ± 1\.70</a>', text)
    assert fragment is not None
    title, said, runs = data["evidence"][fragment[1]]  # type: ignore[misc]
    assert title == "FFA-LoRA · IID: 84.95 ± 1.70"
    assert said == "The mean of accuracy over 3 runs, from results.csv; checked."
    assert [run[0] for run in runs] == [key("ffa-lora", "iid", seed) for seed in range(3)]
    run: dict[str, object] = data["runs"][key("ffa-lora", "iid", 0)]  # type: ignore[assignment]
    assert [data["pool"][at] for at in run["spec"].values()] == [{"name": "ffa-lora"}, 0]  # type: ignore
    assert run["curves"]["test accuracy"][-1] == [4, 0.8325]  # type: ignore[index]
    assert run["privacy"]["epsilon"] == 5.99  # type: ignore[index]
    assert "problem" in data["runs"][key("ffa-lora", "severe", 2)]
    # every run and every number that a link names is there
    for address in Structure(text).addresses:
        if address.startswith("#run-"):
            assert address[5:] in data["runs"]
        elif re.match("#ffa-lora-table1-(c[0-9]|t-|privacy-[0-9])", address):
            assert address[1:] in data["evidence"]


def test_a_published_number_stands_with_difference_and_interval() -> None:
    _, structure = page_of(filled_page())
    # seeds 80, 81.7, 83.4 against 85: sd 1.7, t(0.975, 2) = 4.3027, half width 4.223
    assert "−3.30 [−7.52, +0.92]" in structure.text
    assert "1 of 1" in structure.text
    assert "Cells of which no published number is known" in structure.text


def page_of(path: Path) -> tuple[str, Structure]:
    text = path.read_text()
    return text, Structure(text)


def test_the_page_reads_only_the_runs_of_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedlora_kit.experiments import entry
    from fedlora_kit.experiments.store import Store

    fill()
    for n in range(20):
        with Store().work(f"{n:x}".rjust(16, "f"), {}) as work:
            work.finish({"history.jsonl": [], "results.json": {}, "provenance.json": {}})
    read: set[str] = set()
    original = entry.read_manifest
    monkeypatch.setattr(entry, "read_manifest", lambda f, k: (read.add(k), original(f, k))[1])
    text = write_page("figures", "smoke", [Item("ffa-lora/table1")]).read_text()
    assert len(read) == 11
    assert len(data_of(text)["runs"]) == 12


@pytest.mark.parametrize("name", ["history.jsonl", "spec.json", "manifest.json"])
def test_a_damaged_run_is_shown_as_such(name: str) -> None:
    from fedlora_kit.paths import runs_dir

    fill()
    (runs_dir() / key("lora", "iid", 0) / name).write_text("{")
    data = data_of(write_page("figures", "smoke", [Item("ffa-lora/table1")]).read_text())
    assert "damaged" in data["runs"][key("lora", "iid", 0)]["problem"]  # type: ignore[operator]
    assert "curves" in data["runs"][key("lora", "iid", 1)]
