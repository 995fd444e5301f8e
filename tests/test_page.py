"""The report page: it shows what the folders hold, safely, and nothing that they do not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("Agg")
from matplotlib import pyplot as plt

from fedlora_kit.batch.status import Status, digests, write_status
from fedlora_kit.reporting.comparison import COLUMNS
from fedlora_kit.reporting.outputs import ItemOutputs, item_folder
from fedlora_kit.reporting.page import write_page


@dataclass(frozen=True)
class Item:
    id: str
    notebook: str | None = "x.ipynb"
    title: str = "A title"
    kind: str = "table"
    foundation: str = "SEEN"

    @property
    def paper(self) -> str:
        return self.id.rpartition("/")[0]


class Structure(HTMLParser):
    """Tags that stay open, every address, and the visible text."""

    VOID = ("meta", "img", "br", "link")

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
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_STAGING", raising=False)
    return tmp_path


def finish(item: str, status: str = "ok", error: str | None = None) -> Path:
    folder = item_folder(item, "smoke")
    folder.mkdir(parents=True, exist_ok=True)
    finished = "2026-01-31T12:34:56+00:00"
    done = Status(item, status, "smoke", error, 90.0, versions={"torch": "2.13"}, finished=finished)
    write_status(folder, Status(**{**vars(done), "files": digests(folder)}))
    return folder


def claims(folder: Path, *rows: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("id", "source", "foundation")
    records = [{**dict.fromkeys(keys, "s"), "text": t, "status": s, "reason": "because"} for t, s in rows]
    (folder / "claims.json").write_text(json.dumps(records))


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
        *("The table", "91.5 ± 0.4", "eps=6 · task=x", "85.00 ± 1.10", "70.12 ± 2.50", "−14.88"),
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
    for address in own.addresses:  # every link leads somewhere from the place of this page
        if not address.startswith(("data:", "#", "../index.html")):
            assert (folder.parent / address).exists(), address
        elif address.startswith("#"):
            assert address[1:] in own.ids


def test_it_asks_for_nothing_from_outside() -> None:
    ItemOutputs("x", "smoke").table(pd.DataFrame({"a": [1]}))
    finish("x")
    text, structure = page([Item("x")])
    assert all(re.match(r"(data:image/|#|x/)", address) for address in structure.addresses)
    assert "<script" not in text
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
    claims(item_folder("x", "smoke"), ("a", "reproduced"), ("b", "reproduced"), ("c", "not testable"))
    finish("x")
    text, _ = page([Item("x"), Item("y")])
    tiles = re.findall(r'<div class="tile [^"]*"><b>(\d+)</b><span>([^<]+)</span>', text)
    assert {name: int(count) for count, name in tiles} == {
        "run": 1,
        "failed": 0,
        "not run": 1,
        "reproduced": 2,
        "not reproduced": 0,
        "not testable": 1,
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
