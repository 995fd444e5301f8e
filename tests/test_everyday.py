"""The page for daily use names commands, options and places that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.papers.items import find

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "everyday.md").read_text("utf-8")
BLOCKS = "".join(re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
LINES = [line.partition("#")[0].strip() for line in BLOCKS.splitlines() if line.startswith("fedlora ")]


def test_the_page_shows_commands() -> None:
    assert len(LINES) >= 10
    assert "(docs/everyday.md)" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    if "--install-completion" in words:
        assert words[0] in CliRunner().invoke(app, ["--help"]).stdout
        return
    name = next(word for word in words if not word.startswith("-"))
    given = CliRunner().invoke(app, [*words, "--help"])
    assert given.exit_code == 0
    assert f"fedlora {name} " in given.stdout
    for option in (word for word in words if word.startswith("-") and word != "-vv"):
        assert option in given.stdout
    for word in (word for word in words if "_" in word):
        assert find(word)


def test_places_are_those_of_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fedlora_kit import paths

    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_RUNS")
    for name, place in (("data/runs", paths.runs_dir()), ("notebooks", paths.notebooks_dir())):
        assert place == tmp_path / name
        assert f"`{name}/" in PAGE
    for name in re.findall(r"FEDLORA_[A-Z]+", PAGE):
        assert f'"{name}"' in (ROOT / "fedlora_kit" / "paths.py").read_text("utf-8")
