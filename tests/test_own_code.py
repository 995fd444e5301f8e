"""`fedlora reproduce --with FILE`: a method of the user's own in notebooks that run headlessly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedlora_kit.batch import own_code, pipeline
from fedlora_kit.batch.kernel import KERNEL_NAME, private_kernel
from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import reach
from fedlora_kit.methods.base import METHODS

METHOD = """
from beside_own import RATE, scaled
from fedlora_kit.methods import FedIT, register

NAMES = {{"one", "two", "three", "four"}}  # in another order in another process

@register
class Mine(FedIT):
    name = "{name}"
    title = "Mine"
    source = "test"

    def rank(self, client):
        return scaled(RATE) + len(NAMES)
"""
HELPER = "RATE = 1\n\n\ndef scaled(x):\n    return 2 * x\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(own_code.VARIABLE, "")
    path = tmp_path / f"own_{tmp_path.name}.py"
    name = path.stem.replace("_", "-")
    path.write_text(METHOD.format(name=name))
    (tmp_path / "beside_own.py").write_text(HELPER)
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("beside_own", None)
    METHODS.pop(name, None)
    sys.modules.pop(path.stem, None)


def test_a_file_is_imported_once_and_named_for_others(mine: Path) -> None:
    own_code.name_files([mine, mine])
    assert METHODS[mine.stem.replace("_", "-")].title == "Mine"
    assert own_code.files() == [mine, mine]
    assert [name for name, _ in own_code.contents()] == [mine.name, "beside_own.py"]


def test_what_cannot_be_taken_is_said(tmp_path: Path, mine: Path) -> None:
    for name, text, said in (
        ("not_there.py", None, "no Python file"),
        ("json.py", "x = 1", "a module called 'json' is there already"),
        ("broken_own.py", "1 / 0", "ZeroDivisionError"),
    ):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(BadValue, match=said):
            own_code.load([path])
        assert name == "json.py" or path.stem not in sys.modules


def test_its_content_decides_whether_an_item_runs_again(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedlora_kit.batch.cache import cache_key
    from fedlora_kit.paths import notebooks_dir

    def key() -> str:
        return cache_key(notebooks_dir() / "start_here.ipynb", "smoke", {})

    without = key()
    monkeypatch.setenv(own_code.VARIABLE, str(mine))
    first = key()
    mine.write_text(mine.read_text() + "# prose\n")
    assert key() == first
    helper = mine.with_name("beside_own.py")
    helper.write_text(HELPER.replace("RATE = 1", "RATE = 3"))
    second = key()
    mine.write_text(mine.read_text() + "NEW = 1\n")
    assert len({without, first, second, key()}) == 4


def test_what_a_notebook_of_one_s_own_imports_decides_whether_it_runs_again(tmp_path: Path) -> None:
    from fedlora_kit.batch.cache import cache_key

    code = ["%matplotlib inline\nimport beside_the_notebook", "x = 1", "this is no Python", "import json"]
    cells = [{"cell_type": "code", "source": text, "metadata": {}, "outputs": []} for text in code]
    notebook = tmp_path / "mine.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    keys = []
    for text in ("X = 1\n", "X = 1  # prose\n", "X = 2\n"):
        (tmp_path / "beside_the_notebook.py").write_text(text)
        (tmp_path / "stranger.py").write_text(text)
        keys.append(cache_key(notebook, "smoke", {}))
    assert keys[0] == keys[1] != keys[2]
    (tmp_path / "stranger.py").unlink()
    assert cache_key(notebook, "smoke", {}) == keys[2]


def test_a_kernel_knows_it(mine: Path) -> None:
    from jupyter_client.manager import start_new_kernel

    own_code.name_files([mine])
    said: list[str] = []
    with private_kernel():
        manager, client = start_new_kernel(kernel_name=KERNEL_NAME)
        try:
            reply = client.execute_interactive(
                "import sys; from fedlora_kit.methods.base import METHODS; from fedlora_kit.experiments "
                f"import reach; cls = METHODS['{mine.stem.replace('_', '-')}']; "
                "print(sys.executable, cls.title, 'own_code' in globals(), reach.digest(cls))",
                timeout=120,
                output_hook=lambda message: said.append(message["content"].get("text", "")),
            )
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", said
    here = reach.digest(METHODS[mine.stem.replace("_", "-")])
    assert "".join(said) == f"{sys.executable} Mine False {here}\n"


@pytest.mark.parametrize("before", [None, "", "/there/before.py"])
def test_a_command_names_files_for_itself_alone(
    mine: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv(own_code.VARIABLE)
    else:
        monkeypatch.setenv(own_code.VARIABLE, before)
    named: list[list[Path]] = []

    def failing(*_: object) -> None:
        named.append(own_code.files())
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "reproduce", failing)
    words = ["reproduce", "fed-hello/table2"]
    assert isinstance(CliRunner().invoke(app, [*words, "--with", str(mine)]).exception, ZeroDivisionError)
    assert os.environ.get(own_code.VARIABLE) == before
    CliRunner().invoke(app, words)
    assert named == [[mine], [Path(before)] if before else []]


def test_a_path_that_would_be_taken_for_two_is_refused(tmp_path: Path, mine: Path) -> None:
    folder = tmp_path / f"a{os.pathsep}b"
    folder.mkdir()
    path = mine.rename(folder / mine.name)
    with pytest.raises(BadValue, match="in its path, which parts paths") as raised:
        own_code.name_files([path])
    assert "move the file" in raised.value.remedy
    assert mine.stem not in sys.modules


def test_it_is_for_the_machine_s_own_notebooks(mine: Path) -> None:
    words = ["reproduce", "fed-hello/table2", "--with", str(mine), "--shard", "1/2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--with and --shard" in result.output
