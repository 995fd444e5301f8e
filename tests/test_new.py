"""`fedlora new`: what it writes passes its own test as it is, in a user's folder and in a checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from store_tools import child, wait
from typer.testing import CliRunner, Result

from fedlora_kit.batch.parameters import read_parameters
from fedlora_kit.cli import app
from fedlora_kit.cli.scaffold import announced, plan
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_code
from fedlora_kit.papers.items import all_items, find, own_items

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"method": "my-method", "partitioner": "by-region", "notebook": "my_question"}


def call(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, (result.exception, result.output)
    return result


def python(*words: object, root: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(root), "FEDLORA_HOME": str(root), **variables}
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=env, cwd=root
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV, JSON lines of answers, and images in two folders."""
    folder = tmp_path_factory.mktemp("data")
    rows = [f"{i},site {i % 4},request {i} of somebody,{'abc'[i % 3]}" for i in range(30)]
    (folder / "tickets.csv").write_text("\n".join(["id,site,text,queue", *rows]))
    lines = [{"Question": f"Say {i % 5}", "answer": f"It is {i}", "n": i} for i in range(30)]
    (folder / "asks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for i in range(10):
        (folder / "looks" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8 + i % 3), (i, 0, 0)).save(folder / "looks" / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A user's folder with one of each."""
    folder = tmp_path_factory.mktemp("user") / "not" / "there" / "yet"
    call("new", "task", "my-tickets", "--csv", data / "tickets.csv", "--to", folder)
    for kind, name in NAMES.items():
        said = call("new", kind, name, "--to", folder).stdout
        assert "FILL IN" in said
        assert "changed" not in said
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout into which one of each was written."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "fedlora_kit", root / "fedlora_kit", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, root / name)
    new = f"for words in {list(NAMES.items())}: app(['new', *words], standalone_mode=False)"
    done = python("-c", f"from fedlora_kit.cli import app\n{new}", root=root)
    assert done.returncode == 0, done.stderr
    return root


TESTED = ("-q", "-p", "no:cacheprovider")


def test_a_users_files_pass_their_tests(mine: Path, tmp_path: Path) -> None:
    files = [str(mine / name) for name in ("test_my_method.py", "test_by_region.py", "test_my_tickets.py")]

    def tested() -> None:
        with (tmp_path / "said").open("w") as sys.stdout:
            code = pytest.main([*TESTED, "--rootdir", str(mine), *files])
        os._exit(code)

    with child(tested) as pid:
        code = wait(pid)
    said = (tmp_path / "said").read_text()
    assert code == 0, said[-3000:]
    assert re.search(r"\d\d passed", said), said[-3000:]


@pytest.mark.slow
def test_a_users_notebook_passes_its_test(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDLORA_JOBS", "1")
    tests = runpy.run_path(str(mine / "test_my_question.py"))
    tests["test_both_forms_are_in_step"]()
    tests["test_the_parameters_that_every_notebook_has"]()
    tests["test_a_short_run"](tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_users_paper_passes_its_test(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mine / "a-paper"
    assert "fedlora reproduce my-paper --with" in call("new", "paper", "my-paper", "--to", folder).stdout
    assert "FILL IN" in (folder / "paper.py").read_text()
    monkeypatch.setenv("FEDLORA_JOBS", "1")
    tests = runpy.run_path(str(folder / "test_paper.py"))
    with own_code.within():
        own_code.name_files([folder])
        items = find("my-paper")
        tests["test_every_item_has_a_notebook_and_runs"](items)
        tests["test_both_forms_are_in_step"](items)
        tests["test_a_short_run"](tmp_path, monkeypatch, items)


def test_a_checkouts_files_pass_their_tests(checkout: Path) -> None:
    found = "from fedlora_kit.methods import METHODS, MyMethod\n\n\ndef test_it():\n    "
    (checkout / "tests" / "test_found.py").write_text(f"{found}assert METHODS['my-method'] is MyMethod\n")
    files = [checkout / "tests" / name for name in ("test_by_region.py", "test_found.py")]
    done = python("-m", "pytest", *TESTED, *files, root=checkout)
    assert done.returncode == 0, done.stdout[-3000:]
    (checkout / "tests" / "test_found.py").unlink()


def test_what_is_written_into_a_checkout_passes_the_checkouts_checks(checkout: Path) -> None:
    (checkout / "notebooks" / "own").resolve(strict=True)
    for words in (("check",), ("format", "--check")):
        done = python("-m", "ruff", *words, "--no-cache", checkout, root=checkout)
        assert done.returncode == 0, done.stdout


def test_a_checkouts_notebook_is_found(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLORA_HOME", str(checkout))
    (item,) = own_items()
    assert (item.id, item.title, item.paper, item.kind) == ("own/my_question", "My question", "", "lesson")
    assert item.notebook == "own/my_question.ipynb"
    assert find("own/my_question") == [item]
    assert all_items()[-1] == item
    assert "own/my_question" in call("list").stdout
    parameters = read_parameters(checkout / "notebooks" / item.notebook)
    assert {"profile", "seeds", "device", "output_dir", "rounds"} == set(parameters)
    (checkout / "notebooks" / "own" / "Has Blanks.ipynb").write_text("{")
    (checkout / "notebooks" / "own" / "damaged.ipynb").write_text("{")
    assert [(i.id, i.title) for i in own_items()] == [
        ("own/damaged", "damaged"),
        ("own/my_question", "My question"),
    ]


def written(data: Path, folder: Path, *words: object) -> dict[str, str]:
    """The arguments with which a task that `fedlora new` has written is made."""
    said = call("new", "task", "my-data", *words, "--to", folder).stdout
    assert "--set task=my-data" in said
    assert ("--set backbone=" in said) == ("--images" in words)  # the kit's own reads grey images only
    made = ast.parse((folder / "my_data.py").read_text()).body[-1]
    assert isinstance(made, ast.Expr)
    assert isinstance(made.value, ast.Call)
    return {str(one.arg): ast.unparse(one.value) for one in made.value.keywords}


def test_a_tasks_columns_and_classes_are_guessed_from_its_data(data: Path, tmp_path: Path) -> None:
    assert written(data, tmp_path / "a", "--csv", data / "tickets.csv") == {
        "csv": repr(str(data / "tickets.csv")),
        "columns": "'text'",
        "label": "'queue'",
        "labels": "['a', 'b', 'c']",
        "group": "'site'",
        "held_out": "0.2",
    }
    asks = written(data, tmp_path / "b", "--jsonl", data / "asks.jsonl")
    assert (asks["modality"], asks["columns"]) == ("'causal'", "['Question', 'answer']")
    assert "label" not in asks
    looks = written(data, data, "--images", data / "looks")
    assert looks == {
        "images": "HERE / 'looks'",  # below the file's own folder: both can move
        "held_out": "0.2",
        "labels": "['a', 'b']",
        "store_side": "224",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task", "x1"], "none given"),
        (["task", "x1", "--csv", "a.csv", "--hub", "a/b"], "--csv and --hub given"),
        (["task", "x1", "--csv", "a.csv"], "there is no file"),
        (["task", "sst2", "--csv", "a.csv"], "'sst2' is registered already"),
        (["task", "X", "--csv", "a.csv"], "cannot be the name"),
        (["method", "x1", "--csv", "a.csv"], "data for a method"),
    ],
)
def test_a_task_needs_its_data(tmp_path: Path, words: list[str], said: str) -> None:
    assert said in call("new", *words, "--to", tmp_path / "mine", code=2).stderr
    assert not (tmp_path / "mine").exists()
    assert "--to DIR" in call("new", "task", "x1", "--csv", tmp_path / "a.csv", code=2).stderr


@pytest.mark.parametrize("seeds", [-1, 0, 10**20], ids=str)
def test_a_users_notebook_refuses_an_impossible_number_of_seeds(mine: Path, seeds: int) -> None:
    cells = nbformat.read(mine / "my_question.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    space: dict[str, object] = {}
    exec(code[0], space)
    space["seeds"] = seeds
    with pytest.raises(BadValue, match=f"seeds={seeds} cannot be used"):
        exec("\n".join(code[1:]), space)


def test_the_notebook_has_the_sections_of_the_contract(mine: Path) -> None:
    cells = nbformat.read(mine / "my_question.ipynb", as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    order = ["Claim", "Setting", "The idea", "The runs", "The figure and the table", "Paper and reproduction"]
    places = [prose.index(word) for word in [*order, "judged", "Deviations"]]
    assert places == sorted(places)


def test_every_file_says_where_to_fill_in(mine: Path) -> None:
    for path in mine.glob("*.py"):
        assert "FILL IN" in path.read_text(), path.name


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("metod", "x", "did you mean 'method'"),
        ("method", "2x", "cannot be the name"),
        ("method", "My-Method", "cannot be the name"),
        ("method", "my method", "cannot be the name"),
        ("method", "../x", "cannot be the name"),
        ("method", "x-", "cannot be the name"),
        ("method", "", "cannot be the name"),
        ("method", "class", "cannot be the name"),
        ("method", "ffa-lora", "'ffa-lora' is registered already"),
        ("method", "ffa_lora", "'ffa-lora' is registered already"),
        ("method", "method", "class called Method is there already"),
        ("method", "random", "installed already, and the new file would hide it"),
        ("method", "torch", "would hide it"),
        ("partitioner", "iid", "'iid' is registered already"),
        ("partitioner", "partitioner", "class called Partitioner"),
        ("notebook", "json", "would hide it"),
        ("paper", "ffa-lora", "there is a paper 'ffa-lora' already"),
        ("paper", "own", "there is a paper 'own' already"),
        ("paper", "2x", "cannot be the name"),
    ],
)
def test_a_bad_name_is_one_clear_error(tmp_path: Path, kind: str, name: str, said: str) -> None:
    result = call("new", kind, name, "--to", tmp_path / "mine", code=2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "mine").exists()


def test_nothing_is_overwritten(mine: Path, tmp_path: Path) -> None:
    for kind, name in NAMES.items():
        assert "there already" in call("new", kind, name, "--to", mine, code=2).stderr
    for taken in ("later.ipynb", "test_later.py"):
        (tmp_path / taken).write_text("mine")
        assert taken in call("new", "notebook", "later", "--to", tmp_path, code=2).stderr
        assert [path.name for path in tmp_path.iterdir()] == [taken]
        (tmp_path / taken).unlink()


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert "no folder" in call("new", "method", "xyz", "--to", tmp_path / "file", code=2).stderr
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    assert "a Python package" in call("new", "method", "xyz", "--to", tmp_path / "package", code=2).stderr
    assert "name it: --to ~/papers/my_paper" in call("new", "paper", "my-paper", code=2).stderr
    for name in ("2024", "torch"):
        assert "cannot be a package" in call("new", "paper", "xyz", "--to", tmp_path / name, code=2).stderr
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    assert "--to DIR" in call("new", "notebook", "xyz", code=2).stderr


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_plan_or_one_clear_error(name: str) -> None:
    folder = Path("/nowhere/at/all")
    try:
        made = plan("method", name, folder)
    except BadValue:  # any other error propagates
        return
    assert all(path.parent == folder for path in made.files)
    assert all(re.fullmatch(r"(test_)?[a-z0-9_]+\.py", path.name) for path in made.files)


INIT = '''"""A room."""

from fedlora_kit.methods.base import METHODS, register
from fedlora_kit.methods.ditto import Ditto

__all__ = [
    "METHODS",
    "Ditto",
    "register",
]
'''


@pytest.mark.parametrize(("module", "cls"), [("aa", "Aa"), ("cc", "Cc"), ("zz", "Zz"), ("ditto2", "Ditto2")])
def test_an_import_and_a_name_go_to_their_sorted_places(module: str, cls: str) -> None:
    text = announced(INIT, "fedlora_kit.methods", module, cls)
    imports = [line.split()[1] for line in text.splitlines() if line.startswith("from ")]
    assert imports == sorted(imports)
    assert f"fedlora_kit.methods.{module}" in imports
    listed = re.findall(r'^    "(\w+)",', text, re.MULTILINE)
    assert listed == ["METHODS", *sorted(["Ditto", cls]), "register"]
    with pytest.raises(BadValue, match="--to DIR"):
        announced("", "fedlora_kit.methods", module, cls)
