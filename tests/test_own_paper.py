"""Papers of the user's own: full citizens of every command by `--with`; RoLoRA in examples/ is one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from printed_tables import wrong_cells
from typer.testing import CliRunner, Result

from fedlora_kit.batch.pair import paired
from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments import own_code
from fedlora_kit.papers.items import all_items, find
from fedlora_kit.papers.published import published
from fedlora_kit.papers.runs_of import planned_runs

ROLORA = Path(__file__).resolve().parent.parent / "examples" / "rolora"
CUT = {"rounds": "2", "steps": "1", "train_limit": "60", "eval_limit": "20", "device": "cpu"}


def sets(**more: str) -> list[str]:
    return [word for pair in {**CUT, **more}.items() for word in ("--set", "=".join(pair))]


SHORT = sets(seeds="2", clients="2,3")


def call(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, (result.exception, result.output)
    return result


@pytest.fixture
def named() -> Iterator[None]:
    with own_code.within():
        own_code.name_files([ROLORA])
        yield


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fedlora reproduce` makes of it, cut down."""
    top = tmp_path_factory.mktemp("rolora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDLORA_RUNS", str(top / "runs"))
        patch.setenv("FEDLORA_JOBS", "1")
        said = call("reproduce", "rolora/table1", "--with", ROLORA, "--output", top, *SHORT).output
    assert "rolora/table1  ok" in said
    return top / "smoke"


@pytest.mark.slow
def test_its_notebook_runs_and_leaves_what_every_table_owes(figures: Path) -> None:
    folder = figures / "rolora" / "table1"
    comparison = pd.read_csv(folder / "comparison.csv").set_index("cell")
    assert comparison.loc["clients=3|method=lora|task=sst2", "published"] == 95.68
    results = pd.read_csv(folder / "results.csv")
    assert set(results["method"]) == {"lora", "ffa-lora", "rolora"}
    assert len(results) == 12
    claims = {one["id"]: one for one in json.loads((folder / "claims.json").read_text("utf-8"))}
    assert claims["half_sent"]["status"] == "reproduced"
    assert {"above_lora_many", "above_ffa_many", "smaller_drop"} < set(claims)
    assert wrong_cells(folder) == []
    assert "RoLoRA" in (folder / "table.tex").read_text("utf-8")
    executed = (folder / "notebook.ipynb").read_text("utf-8")
    assert str(ROLORA) not in executed
    assert '"input_path": "notebooks/rolora/table1.ipynb"' in executed


@pytest.mark.slow
def test_the_report_knows_it_while_it_is_named(figures: Path) -> None:
    title = "Robust Federated Finetuning of Foundation Models"
    assert title in (figures / "index.html").read_text("utf-8")
    assert (figures / "rolora" / "index.html").is_file()
    call("report", "--output", figures.parent)
    assert title not in (figures / "index.html").read_text("utf-8")
    call("report", "--with", ROLORA, "--output", figures.parent)
    assert title in (figures / "index.html").read_text("utf-8")


def test_every_command_knows_it_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = ("--with", ROLORA)
    assert "rolora/table1" in call("list", *with_it).output
    assert "rolora/table1" not in call("list").output
    told = json.loads(call("plan", "rolora", *with_it, *SHORT, "--tflops", "0.01", "--json").output)
    assert [(one["item"], one["totals"]["runs"]) for one in told["items"]] == [("rolora/table1", 12)]
    assert "nothing is needed" in call("fetch", "rolora", "-p", "smoke", "--to", tmp_path, *with_it).output
    monkeypatch.setenv(own_code.VARIABLE, str(ROLORA))  # named for all commands
    one = sets(seeds="1", clients="2", methods="rolora")
    shard = call("reproduce", "rolora/table1", "--shard", "1/1", *one).output
    assert "1 finished, 0 failed" in shard


def test_its_notebook_is_in_step(named: None) -> None:
    (item,) = find("rolora")
    assert (item.notebook, item.path) == ("rolora/table1.ipynb", ROLORA / "notebooks" / "table1.ipynb")
    written = item.path.read_text("utf-8")
    assert written == nbformat.writes(paired(item.path.with_suffix(".py"))) + "\n", "run: make notebooks"


def test_its_numbers_come_from_its_own_csv(named: None) -> None:
    frame = published("rolora", "table1")
    assert len(frame) == 8
    assert set(frame["label"]) == {"SECOND"}
    assert "rolora" not in set(frame["cell"].str.extract("method=([a-z-]+)")[0])  # none of them is known
    with pytest.raises(UnknownName, match="did you mean 'rolora'"):
        published("roloar", "table1")


# --- papers that cannot be used ---------------------------------------------------------------------------

HEAD = "from fedlora_kit.study.item import Item, Paper\n"
GOOD = 'PAPER = Paper("mine", "Mine", "here")\nITEMS = (Item("mine/one", "table", "One", "", "UNKNOWN"),)\n'


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / f"paper_of_{tmp_path.name}"
    place.mkdir()
    before = list(sys.path)
    yield place
    sys.path[:] = before
    for name in [name for name in sys.modules if name.split(".")[0] == place.name]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no PAPER with an id of its own"),
        (GOOD.split("\n")[0], "has no ITEMS: a paper without a table or figure is nothing to reproduce"),
        (GOOD.replace("(Item(", "[] and (Item("), "has no ITEMS"),
        (GOOD.replace('Item("mine/one"', 'Item("ffa-lora/one"'), "has the item Item(id='ffa-lora/one'"),
        (GOOD.replace('Item("mine/one"', 'Item("mine/../one"'), "has the item Item(id='mine/../one'"),
        (GOOD.replace('"table"', '"tabel"'), "kind one of table, figure, lesson"),
        (GOOD.replace('UNKNOWN"),)', 'UNKNOWN"),) * 2'), "has the item mine/one twice"),
        (GOOD.replace("mine", "ffa-lora"), "there is a paper 'ffa-lora' already"),
        (GOOD.replace("mine", "own"), "has no PAPER with an id of its own"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_paper_that_cannot_be_used_is_one_clear_error(folder: Path, text: str, said: str) -> None:
    (folder / "paper.py").write_text(HEAD + text)
    result = call("list", "--with", folder, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_folder_without_a_paper_and_a_paper_without_runs(folder: Path) -> None:
    assert f"{folder} has no paper.py" in call("list", "--with", folder, code=2).stderr
    (folder / "paper.py").write_text(HEAD + GOOD)
    (folder / "one.py").write_text("")
    with own_code.within():
        own_code.name_files([folder])
        assert all_items()[-1].id == "mine/one"
        with pytest.raises(BadValue, match=r"one.py names no runs of mine/one"):
            planned_runs("mine/one", "smoke")
        (folder / "reported.csv").write_text(
            "paper,item,cell,metric,value,std,label,source\nmine,two,a=1,accuracy %,1,,SEEN,x\n"
        )
        with pytest.raises(BadValue, match="has a number of mine/two, which is no item"):
            published("mine", "one")


def test_one_file_may_be_a_whole_paper(folder: Path) -> None:
    runs = "from fedlora_kit.study.planned import Runs\ndef runs(profile):\n    return Runs(note=profile)\n"
    file = folder / f"{folder.name}_alone.py"
    file.write_text(HEAD + GOOD + runs)
    with own_code.within():
        own_code.name_files([file])
        (item,) = find("mine")
        assert item.path == folder / "notebooks" / "one.ipynb"
        assert item.notebook is None
        assert planned_runs("mine/one", "smoke").note == "smoke"
    del sys.modules[file.stem]
