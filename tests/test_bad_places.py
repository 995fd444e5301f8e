"""Paths that cannot be folders: every command says so in one error that names the path and what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedlora_kit import disk
from fedlora_kit.cli import app
from fedlora_kit.cli.doctor import Check
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.store import Store

LONG = "n" * 300
#: what is named -> what the error calls it
PLACES = {
    "file": "file",
    "below a file": "file",
    "too long": LONG[:30],
    "a device": "/dev/null",
    "below a device": "/dev/null",
    "a link to itself": "loop",
    "nobody's home": "~nobody-of-that-name",
}
#: commands that write into a folder that an option names, up to the option
OPTIONS = {
    "init": ["init"],
    "reproduce": ["reproduce", "start_here", "--output"],
    "report": ["report", "-o"],
    "new method": ["new", "method", "a-b", "--to"],
    "new notebook": ["new", "notebook", "a-b", "--to"],
    "tensorboard's events": ["tensorboard", "--logdir"],
    "tensorboard's results": ["tensorboard", "-o"],
    "fetch": ["fetch", "start_here", "--to"],
    "federate": ["federate", "--spec", "spec.json", "--app"],
}
#: commands that use a folder that a variable names
VARIABLES = {
    "FEDLORA_RUNS": [
        ["runs"],
        ["show", "0123"],
        ["compare", "0123", "4567"],
        ["plan", "start_here"],
        ["reproduce", "start_here"],
        ["tensorboard"],
        ["doctor"],
    ],
    "FEDLORA_HOME": [["list"], ["report"], ["reproduce", "start_here"], ["plan", "start_here"], ["doctor"]],
    "FEDLORA_HUB": [["plan", "ffa-lora/table1", "--profile", "paper"], ["doctor"]],
}


def place(kind: str, folder: Path) -> str:
    """A path of that kind."""
    (folder / "file").write_text("")
    (folder / "loop").symlink_to(folder / "loop")
    return {
        "file": str(folder / "file"),
        "below a file": str(folder / "file" / "sub"),
        "too long": str(folder / LONG),
        "a device": "/dev/null",
        "below a device": "/dev/null/x",
        "a link to itself": str(folder / "loop" / "x"),
        "nobody's home": "~nobody-of-that-name/x",
        "empty": "",
        "where nothing can be made": "/proc/x",
    }[kind]


def refused(words: list[str], named: str) -> str:
    """What a command says that ends with one clear error and nothing else."""
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert named in re.sub(r"\s", "", result.output), result.output
    if words == ["doctor"]:
        assert "repair the installation" not in result.output
    else:
        assert result.exit_code in (1, 2)
        assert result.output.count("error: ") == 1
        assert "\n  -> " in result.output
    return result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEDLORA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("fedlora_kit.cli.doctor.kernel", lambda: Check("ok", ""))
    return tmp_path


@pytest.mark.parametrize("kind", ["file", "empty"])
@pytest.mark.parametrize("words", OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_names_no_folder(folder: Path, words: list[str], kind: str) -> None:
    said = refused([*words, place(kind, folder)], PLACES.get(kind, "isempty"))
    assert words[-1].lstrip("-")[0] in said


@pytest.mark.parametrize("name", ["init", "reproduce", "report", "new method", "new notebook"])
def test_where_nothing_can_be_made(folder: Path, name: str) -> None:
    refused([*OPTIONS[name], "/proc/x"], "/proc/x")


@pytest.mark.parametrize("kind", [*PLACES, "empty"])
def test_every_kind_of_bad_place(folder: Path, kind: str) -> None:
    with pytest.raises(BadValue, match="--to is") as raised:
        disk.folder(place(kind, folder), "--to")
    assert PLACES.get(kind, "empty") in raised.value.problem
    assert "--to" in raised.value.remedy
    assert len(raised.value.problem) < 400


@pytest.mark.parametrize(
    ("variable", "words"),
    [(v, words) for v, commands in VARIABLES.items() for words in commands],
    ids=lambda part: part if isinstance(part, str) else part[0],
)
def test_a_variable_that_names_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, words: list[str]
) -> None:
    if variable == "FEDLORA_HOME":
        monkeypatch.delenv("FEDLORA_RUNS")  # the store lies below it
    monkeypatch.setenv(variable, place("below a file", folder))
    assert variable in refused(words, "file")


@pytest.mark.parametrize("words", [*OPTIONS.values()], ids=OPTIONS)
def test_a_working_folder_that_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    refused([*words, "below"], "theworkingfolderhasbeendeleted")


def test_the_store_is_clear_in_python_too(folder: Path) -> None:
    with pytest.raises(BadValue, match=r"the root of the store is .*file"):
        Store(Path(place("file", folder)))


def test_folders_that_can_be_made_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "home"))
    for text, path in {
        "a": folder / "a",
        "./a/b": folder / "a" / "b",
        ".": folder,
        "~/c": folder / "home" / "c",
        str(folder / "d" / "e"): folder / "d" / "e",
    }.items():
        assert disk.folder(text, "--to") == path.resolve()
    with pytest.raises(BadValue, match="--to is empty"):
        disk.folder("", "--to")


def test_other_faults_are_left_as_they_are(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.disk_guard(folder / "there"):
        (folder / "missing").read_text()
    with pytest.raises(ZeroDivisionError), disk.disk_guard(folder):
        1 / 0  # noqa: B018
    with pytest.raises(FedloraError, match="cannot write /proc/x/y"), disk.disk_guard(Path("/proc/x/y")):
        os.makedirs("/proc/x")
