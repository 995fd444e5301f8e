"""A wheel holds what a checkout does, and `fedlora init` lays it where somebody works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedlora_kit import paths
from fedlora_kit.cli import app
from fedlora_kit.cli.init import lay
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.provenance import git_state
from fedlora_kit.experiments.source import source_digest

ROOT = Path(__file__).resolve().parent.parent


def call(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, (result.exception, result.output)
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network: hatchling is here."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_a_wheel_holds_notebooks_data_and_templates_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    carried = [
        *ROOT.glob("notebooks/*.*"),
        *(p for p in ROOT.glob("notebooks/[fl]*/*") if p.suffix in {".py", ".ipynb"}),
        *ROOT.glob("data/reported/*"),
        *(p for p in ROOT.glob("data/backbones/**/*") if p.is_file()),
    ]
    kit = {f"fedlora_kit/_kit/{path.relative_to(ROOT).as_posix()}" for path in carried}
    assert {n for n in names if "/_kit/" in n} == kit
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fedlora_kit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {n for n in names - kit if ".dist-info/" not in n} - {"fedlora_kit/_commit.json"} == package
    assert {"fedlora_kit/py.typed", "fedlora_kit/cli/templates/method.py.j2"} <= package
    assert wheel.stat().st_size < 6e6


def test_the_installed_kit_works_in_a_working_folder_only(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    away = {"FEDLORA_HOME", "FEDLORA_RUNS", "PYTEST_CURRENT_TEST"}
    env = {name: value for name, value in os.environ.items() if name not in away}
    env["PYTHONPATH"] = str(tmp_path / "site")

    work, before = tmp_path / "work", sorted((tmp_path / "site").rglob("*.[!p]*"))
    commands = ("list", "init work", "in", "list", "new notebook mine", "list", "runs", "-v report")
    steps = [
        "os.chdir('work/notebooks')"
        if words == "in"
        else f"try: app({words.split()!r})\nexcept SystemExit as end: print('=>', end.code)"
        for words in commands
    ]
    steps += ["from fedlora_kit.experiments.source import source_digest", "print('source', source_digest())"]
    code = "\n".join(["import os", "from fedlora_kit.cli import app", *steps])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert re.findall("=> (.*)", said) == ["2", "0", "0", "0", "0", "0", "0"], said
    assert "make one with `fedlora init DIR`" in said
    assert said.count("own/mine.ipynb") >= 2
    assert f"at {work}" in said
    assert f"source {source_digest()}" in said  # so are the keys: one store for both
    assert (work / "notebooks" / "own" / "mine.ipynb").is_file()
    assert (work / "figures" / "smoke" / "index.html").is_file()
    assert sorted((tmp_path / "site").rglob("*.[!p]*")) == before  # nothing went into the package
    commit = git_state()
    if commit is not None:
        kept = json.loads((tmp_path / "site" / "fedlora_kit" / "_commit.json").read_text())
        assert kept["commit"] == commit["commit"]


def test_where_the_kit_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    lay(work)
    monkeypatch.chdir(tmp_path)
    assert paths.home() == ROOT
    monkeypatch.setattr(paths, "INSTALLED", tmp_path)
    with pytest.raises(BadValue, match="no working folder") as raised:
        paths.home()
    assert "fedlora init DIR" in raised.value.remedy
    assert "name a folder of your own: --to DIR" in call("new", "method", "a-b", code=2).output
    monkeypatch.chdir(work / "notebooks" / "lessons")
    assert paths.home() == work
    monkeypatch.setenv("FEDLORA_HOME", str(other))
    assert paths.home() == other


def test_what_is_laid(tmp_path: Path) -> None:
    said = call("init", tmp_path / "a" / "b").stdout
    assert "fedlora reproduce start_here" in said
    for name in ("notebooks/start_here.ipynb", "data/reported/reported.csv"):
        assert (tmp_path / "a" / "b" / name).read_bytes() == (ROOT / name).read_bytes()
    assert not list((tmp_path / "a" / "b" / "data" / "runs").iterdir())
    assert not list((tmp_path / "a" / "b" / "figures").iterdir())


def test_what_somebody_has_changed_is_kept(tmp_path: Path) -> None:
    lay(tmp_path)
    first, twin = (tmp_path / "notebooks" / f"start_here.{end}" for end in ("ipynb", "py"))
    old, gone = tmp_path / "data" / "reported" / "reported.csv", tmp_path / "notebooks" / "ffa-lora"
    first.write_text("mine")
    twin_before = twin.read_text()
    marker = json.loads((tmp_path / paths.MARKER).read_text())
    for path, name in ((twin, "notebooks/start_here.py"), (old, "data/reported/reported.csv")):
        path.write_text("older")  # as another version of the kit has laid it
        marker["files"][name] = sha256(b"older").hexdigest()
    (tmp_path / paths.MARKER).write_text(json.dumps(marker))
    (gone / "table1.ipynb").unlink()
    said = call("init", tmp_path).stdout
    assert f"laid 2 files in {tmp_path}" in said
    assert said.count("kept") == 1
    assert "kept notebooks/start_here.ipynb" in said
    assert (first.read_text(), twin.read_text()) == ("mine", "older")
    assert old.read_bytes() == (ROOT / "data" / "reported" / "reported.csv").read_bytes()
    first.unlink()
    assert "laid 2 files" in call("init", tmp_path).stdout
    assert twin.read_text() == twin_before


@pytest.mark.parametrize("damage", ["{", "[]", '{"files": 3}'])
def test_a_damaged_marker_loses_nobodys_work(tmp_path: Path, damage: str) -> None:
    lay(tmp_path)
    (tmp_path / "notebooks" / "start_here.py").write_text("mine")
    (tmp_path / paths.MARKER).write_text(damage)
    assert "kept notebooks/start_here.py" in call("init", tmp_path).stdout
    assert (tmp_path / "notebooks" / "start_here.py").read_text() == "mine"


def test_the_checkout_needs_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "needs none" in call("init", ROOT, code=2).output
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path / "other"))
    assert "FEDLORA_HOME names" in call("init", tmp_path / "work").output
