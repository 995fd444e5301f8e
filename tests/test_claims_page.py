"""The page claim × profile: every profile's verdicts beside each other, and beside the paper."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from page_tools import Item, claims, fill, finish, key, results
from test_page import Accessible

from fedlora_kit.experiments.store import Store
from fedlora_kit.paths import data_dir, runs_dir
from fedlora_kit.reporting.outputs import ItemOutputs, item_folder
from fedlora_kit.reporting.page import write_page
from fedlora_kit.study.claims import Claim, judge_all, mean_difference
from fedlora_kit.study.item import PROFILES
from fedlora_kit.study.reported import COLUMNS

ITEM = Item("ffa-lora/table1", title="The first table")
LORA, OURS = {"method": "lora"}, {"method": "ffa-lora"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_STAGING", raising=False)
    monkeypatch.delenv("FEDLORA_RUNS", raising=False)
    return tmp_path


def claim(name: str, value: str = "accuracy", **sides: dict[str, str]) -> Claim:
    return Claim(
        name,
        f"The claim {name}",
        "s",
        "f",
        lambda r: mean_difference(r, value, better=sides["better"], worse=sides["worse"]),
    )


def ran(profile: str, *judged: Claim, frame: pd.DataFrame | None = None) -> Path:
    """An item's folder of a profile that has been run."""
    frame = results() if frame is None else frame
    outputs = ItemOutputs(ITEM.id, profile)
    outputs.table(frame, "results")
    outputs.claims(judge_all(judged, frame))
    folder = finish(ITEM.id)
    if profile != "smoke":
        shutil.copyfile(folder / "status.json", outputs.folder / "status.json")
        shutil.rmtree(folder)
    return outputs.folder


def rows() -> dict[str, list[str]]:
    """Claim → what stands in its row, cell by cell."""
    write_page("figures", "smoke", [ITEM, Item("ffa-lora/table2", title="Never run"), Item("start_here")])
    text = (data_dir().parent / "figures/claims.html").read_text()
    assert Accessible(text).problems == []
    found = {}
    for row in re.findall(r'<tr><th scope="row">(The claim [^<]*)</th>(.*?)</tr>', text, re.DOTALL):
        cells = re.findall(r"<td data-of=.*?</td>", row[1], re.DOTALL)
        found[row[0]] = [" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in cells]
    return found


def publish(*lines: tuple[str, str, float]) -> None:
    known = [("ffa-lora", "table1", cell, metric, value, "", "SEEN", "src") for cell, metric, value in lines]
    (data_dir() / "reported").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(known, columns=COLUMNS).to_csv(data_dir() / "reported/reported.csv", index=False)


def test_each_profiles_verdict_figures_model_and_seeds_stand_beside_the_paper() -> None:
    publish(
        ("method=lora|task=a", "accuracy %", 80.0),
        ("method=ffa-lora|task=a", "accuracy %", 81.5),
        ("method=lora|task=b", "accuracy %", 70.0),
        ("method=ffa-lora|task=b", "accuracy %", 72.5),
        ("method=ffa-lora|task=c", "accuracy %", 1.0),  # has no other side
    )
    with Store().work(key("lora", "iid", 0), {"model": {"backbone": "some/model"}}) as work:
        work.finish({"history.jsonl": [], "results.json": {}, "provenance.json": {}})
    noisy = results().assign(accuracy=lambda f: f["accuracy"] + 9 * f["seed"] * (f["method"] == "lora"))
    ran("small", claim("ours", better=OURS, worse=LORA), frame=noisy)
    ran("smoke", claim("ours", better=OURS, worse=LORA), claim("theirs", better=LORA, worse=OURS))
    found = rows()
    at = {name: 1 + n for n, name in enumerate(PROFILES)}
    ours = found["The claim ours"]
    assert len(ours) == 1 + len(PROFILES)
    assert ours[0] == "+2 (2 cells)"
    assert ours[at["smoke"]] == "✓ reproduced +3.25 [+3.25, +3.25] some/model, 3 seeds"
    assert ours[at["small"]].startswith("~ undecided −5.75 [−28.1, +16.6]")
    assert ours[at["paper"]] == "not run"
    theirs = found["The claim theirs"]
    assert theirs[0] == "−2 (2 cells)"
    assert theirs[at["smoke"]].startswith("✗ not reproduced")
    assert theirs[at["small"]] == "not run"


def test_a_verdict_leads_to_its_place_in_the_report(home: Path) -> None:
    fill()
    write_page("figures", "smoke", [ITEM])
    address = re.findall(
        r'href="(smoke/index.html)#([^"]*worse)"', (home / "figures/claims.html").read_text()
    )
    assert [place for place, _ in address] == ["smoke/index.html"]
    assert f'id="{address[0][1]}"' in (home / "figures" / address[0][0]).read_text()
    assert 'href="../claims.html"' in (home / "figures/smoke/index.html").read_text()
    assert 'href="../../claims.html"' in (home / "figures/smoke/ffa-lora/index.html").read_text()


def test_a_profile_of_ones_own_has_its_column_and_no_lesson_has_a_row() -> None:
    ran("night", claim("ours", better=OURS, worse=LORA))
    assert rows()["The claim ours"][1 + len(PROFILES)].startswith("✓ reproduced")


def test_without_published_numbers_or_runs_nothing_is_made_up() -> None:
    ran("smoke", claim("ours", better=OURS, worse=LORA), claim("other", "loss", better=OURS, worse=LORA))
    found = rows()
    assert [found[f"The claim {name}"][0] for name in ("ours", "other")] == ["–", "–"]
    assert found["The claim ours"][1].endswith("3 seeds")


@pytest.mark.parametrize("damage", ["claims.json", "status.json", "results.csv", "failed"])
def test_a_folder_that_cannot_be_read_does_not_stop_the_others(damage: str) -> None:
    folder = ran("small", claim("ours", better=OURS, worse=LORA))
    ran("smoke", claim("ours", better=OURS, worse=LORA))
    if damage == "failed":
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**status, "status": "failed"}))
    else:
        (folder / damage).write_text("a,b\n1\n")
    found = rows()["The claim ours"]
    assert found[1 + PROFILES.index("small")] == "not run"
    assert found[1].startswith("✓ reproduced")


def test_text_cannot_become_markup(home: Path) -> None:
    claims(item_folder(ITEM.id, "smoke"), ("<script>alert(1)</script>", "reproduced"))
    finish(ITEM.id)
    write_page("figures", "smoke", [ITEM])
    assert "<script>alert" not in (home / "figures/claims.html").read_text()
    assert not runs_dir().exists()
