"""`fedlora reproduce --with FILE`: a method of the user's own in notebooks that run headlessly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedlora_kit.batch import own_code
from fedlora_kit.batch.kernel import private_kernel
from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue
from fedlora_kit.methods.base import METHODS

METHOD = """
from fedlora_kit.methods import FedIT, register

@register
class Mine(FedIT):
    name = "{name}"
    title = "Mine"
    source = "test"
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(own_code.VARIABLE, "")
    path = tmp_path / f"own_{tmp_path.name}.py"
    name = path.stem.replace("_", "-")
    path.write_text(METHOD.format(name=name))
    yield path
    METHODS.pop(name, None)
    sys.modules.pop(path.stem, None)


def test_a_file_is_imported_once_and_named_for_others(mine: Path) -> None:
    own_code.name_files([mine, mine])
    assert METHODS[mine.stem.replace("_", "-")].title == "Mine"
    assert own_code.files() == [mine, mine]
    assert list(own_code.contents()) == [mine.name]


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
    mine.write_text(mine.read_text() + "# changed\n")
    assert len({without, first, key()}) == 3


def test_a_kernel_knows_it(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(own_code.VARIABLE, str(mine))
    with private_kernel() as spec:
        assert json.loads((spec / "kernel.json").read_text())["argv"][0] == sys.executable
        start_up = Path(os.environ["IPYTHONDIR"]) / "profile_default" / "startup" / "00-own.py"
        code = f"{start_up.read_text()}\nfrom fedlora_kit.methods import METHODS\nprint('{mine.stem}' in "
        code += "{name.replace('-', '_') for name in METHODS})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_it_is_for_the_machine_s_own_notebooks(mine: Path) -> None:
    words = ["reproduce", "fed-hello/table2", "--with", str(mine), "--shard", "1/2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--with and --shard" in result.output
