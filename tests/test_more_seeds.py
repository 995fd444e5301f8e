"""`fedlora reproduce ITEM --more-seeds N`: the last results once more, with seeds added to theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from typer.testing import CliRunner

from fedlora_kit.batch.folders import EARLIER
from fedlora_kit.batch.order import Order
from fedlora_kit.batch.status import OK, Status, write_status
from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue
from fedlora_kit.study.item import Item

PARAMETERS = """
profile: str = "smoke"  # size
seeds: int | None = None  # how many, from 0
rounds: int = 2  # rounds
device: str = "auto"  # device
output_dir: str = "figures"  # place
"""
CELL = """
import pandas as pd
from fedlora_kit.reporting.outputs import ItemOutputs
from fedlora_kit.study.claims import Claim, judge_all, mean_difference
out = ItemOutputs("own/mine", profile, output_dir)
count = 3 if seeds is None else seeds
rows = [{"method": m, "seed": s, "key": f"{m}{s}", "accuracy": s % 2 + 0.1 * (m == "a") * (s % 3)}
        for m in "ab" for s in range(count)]
gain = Claim("gain", "a gains", "s", "SEEN",
             lambda r: mean_difference(r, "accuracy", better={"method": "a"}, worse={"method": "b"}))
out.table(pd.DataFrame(rows))
out.claims(judge_all([gain], pd.DataFrame(rows)))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    for name, parameters in (("mine", PARAMETERS), ("other", PARAMETERS)):
        node = nbformat.v4.new_notebook()
        node.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        node.cells.append(nbformat.v4.new_code_cell(CELL))
        (tmp_path / "notebooks" / "own").mkdir(parents=True, exist_ok=True)
        nbformat.write(node, tmp_path / "notebooks" / "own" / f"{name}.ipynb")
    return tmp_path


def results(home: Path, name: str, judged_at: list[int] | None, status: str = OK, **parameters: Any) -> Path:
    """A folder of results as a run leaves it; ``seeds`` None: of a version that wrote none."""
    folder = home / "figures" / "smoke" / "own" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "claims.json").write_text(
        json.dumps([{"id": "c"} | ({} if judged_at is None else {"seeds": judged_at})])
    )
    write_status(
        folder, Status(f"own/{name}", status, "smoke", parameters={"profile": "smoke", **parameters})
    )
    return folder


def order(*names: str, more: int = 2, **settings: Any) -> dict[str, dict[str, Any]]:
    items = [Item(f"own/{name}", "lesson", "", "", "") for name in names]
    made = Order(items, settings=settings, more_seeds=more).checked()
    return {
        item.name: {k: v for k, v in values.items() if k not in ("profile", "output_dir")}
        for item, values in made
    }


def test_each_item_goes_on_from_its_own_seeds_and_settings(home: Path) -> None:
    results(home, "mine", [0, 1, 2], rounds=7, output_dir="elsewhere")
    results(home, "other", [0, 1, 2, 3, 4], seeds=5)
    assert order("mine", "other") == {"mine": {"rounds": 7, "seeds": 5}, "other": {"seeds": 7}}
    assert order("mine", more=1, rounds=3) == {"mine": {"rounds": 3, "seeds": 4}}


def test_after_a_failed_attempt_the_last_good_results_count(home: Path) -> None:
    good = results(home, "mine", [0, 1, 2])
    kept = good.rename(home / "kept")
    results(home, "mine", [], "failed", seeds=9)
    kept.rename(good / EARLIER)
    assert order("mine") == {"mine": {"seeds": 5}}


def test_what_needs_no_seeds_stays_as_it_is_beside_what_does(home: Path) -> None:
    results(home, "mine", [], rounds=4)
    results(home, "other", [0, 1])
    assert order("mine", "other") == {"mine": {"rounds": 4}, "other": {"seeds": 4}}
    with pytest.raises(BadValue, match="no claim of own/mine is judged over seeds"):
        order("mine")


@pytest.mark.parametrize(
    ("seeds", "more", "settings", "said"),
    [
        ([0, 1], 0, {}, "--more-seeds 0.*\n.*1 or more"),
        ([0, 1], -3, {}, "--more-seeds -3"),
        ([0, 1], 2, {"seeds": "9"}, "--more-seeds and --set seeds"),
        ([0, 1], 999, {}, "seeds=1001 cannot be used"),
        (None, 2, {}, "own/mine has no results at profile smoke.*\n.*fedlora reproduce own/mine"),
    ],
)
def test_bad_input(home: Path, seeds: Any, more: int, settings: dict[str, Any], said: str) -> None:
    results(home, "mine", seeds)
    with pytest.raises(BadValue, match=said):
        order("mine", more=more, **settings)


def test_an_item_without_results_is_told_how_to_get_some(home: Path) -> None:
    done = CliRunner().invoke(app, ["reproduce", "own/mine", "--more-seeds", "2"])
    assert done.exit_code == 2
    assert "own/mine has no results at profile smoke" in done.output
    assert "fedlora reproduce own/mine --profile smoke" in done.output


@pytest.mark.slow
def test_added_seeds_are_a_further_look_that_outlives_the_figures(home: Path) -> None:
    def claim() -> dict[str, Any]:
        (record,) = json.loads((home / "figures/smoke/own/mine/claims.json").read_text())
        return record

    for words, look, seeds in (
        ([], 1, 3),
        (["--more-seeds", "3"], 2, 6),
        ([], 1, 3),
        (["-s", "seeds=7"], 3, 7),
    ):
        done = CliRunner().invoke(app, ["reproduce", "own/mine", *words])
        assert done.exit_code == 0, done.output
        assert (claim()["look"], len(claim()["seeds"])) == (look, seeds)
        for path in (home / "figures/smoke/own").rglob("*") if look == 2 else ():
            path.is_file() and path.unlink()
    assert "look 3, 98.75 % interval" in claim()["reason"]
