"""docs/data.md: its Python runs, top to bottom, and its commands and numbers are the program's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.data import load_task, tasks
from fedlora_kit.data.doubts import MOST_CUT, MOST_UNKNOWN, TAKE
from fedlora_kit.data.own import task_from
from fedlora_kit.papers.items import find
from fedlora_kit.papers.lessons.small import digits_run

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the page names."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [f"ticket {i} came,{'ab'[i % 2]},s{i % 4}" for i in range(40)]
    Path("tickets.csv").write_text("\n".join(["text,queue,site", *rows]))
    lines = [
        {"instruction": f"Say {i}.", "input": "", "output": str(i), "kind": "ab"[i % 2]} for i in range(20)
    ]
    Path("asks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for i in range(12):
        place = Path("shapes", ("circle", "square")[i % 2])
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8 + i % 3), (20 * i, 0, 0)).save(place / f"{i}.png")


def test_the_pages_python_runs_from_top_to_bottom(folder):
    space: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, space)
    sizes = {}
    for name in ("tickets", "pairs", "shapes", "asks", "sites"):
        data = load_task(tasks.get_task(name))
        sizes[name] = (len(data.train), [len(part) for part in data.evals.values()])
    assert sizes["tickets"] == sizes["sites"] == (32, [8])
    assert sizes["pairs"] == (3, [1])
    assert sizes["shapes"] == (8, [4])
    assert sizes["asks"] == (16, [4])
    assert sum(map(len, space["clients"])) == 40
    assert digits_run(data={"task": "shapes"}).data.task == "shapes"
    whole = task_from(
        "whole", parquet="shapes.parquet", columns="image", modality="image", held_out=0.25, store_side=8
    )
    assert load_task(whole).train.columns[0].shape == (8, 3, 8, 8)


def test_its_commands_and_numbers_are_those_of_the_program():
    assert "(docs/data.md)" in (ROOT / "README.md").read_text("utf-8")
    options = CliRunner().invoke(app, ["new", "--help"], env={"COLUMNS": "200"}).stdout
    for option in re.findall(r"--(?:csv|jsonl|parquet|images|hub|to)\b", PAGE):
        assert option in options
    assert find("fed-hello/ledgar")
    assert f"above {MOST_UNKNOWN:.0%}".replace("%", " %") in PAGE
    assert f"from {MOST_CUT:.0%} on".replace("%", " %") in PAGE
    assert TAKE in PAGE
