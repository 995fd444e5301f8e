"""The digests of the source, and a run's provenance."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedlora_kit.errors import UnknownName
from fedlora_kit.experiments import provenance
from fedlora_kit.experiments.source import PACKAGE, RUN_ROOMS, package_digest, source_digest

ROOMS = ("randomness", "methods", "experiments/spec")
CODE = '''"""Module text."""
import math


class Method:
    """What it does."""

    rank: int = 8

    def step(self, x: float = 0.5, *, y=None) -> float:
        """Docs."""
        # why
        return math.sqrt(x) + 1 if "text" else f"{x:.3f}"


class Empty(Exception):
    """Only words."""
'''


@pytest.fixture
def package(tmp_path):
    for name in ("randomness.py", "methods/fedit.py", "methods/deep/x.py", "experiments/spec.py", "cli.py"):
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CODE)
    return tmp_path / "pkg"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# because it is so"),
        ('"""Docs."""', '"""Better words,\n\n        and more of them."""'),
        ('"""Module text."""\n', ""),
        ('    """What it does."""\n', ""),
        ("Only words.", "Other words."),
        ("import math\n\n\n", "import math  # roots\n"),
        ("x: float = 0.5, *, y=None", "x: float = 0.5,\n        *,\n        y=None,\n    "),
        ('"text"', "'text'"),
        ("\n", "\r\n"),
    ],
)
def test_prose_and_layout_do_not_change_the_digest(package, old, new):
    before = source_digest(ROOMS, package)
    assert old in CODE
    for name in ("randomness.py", "methods/fedit.py", "experiments/spec.py"):
        (package / name).write_bytes(CODE.replace(old, new).encode())
    assert source_digest(ROOMS, package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("8", "9"),
        ("8", "8.0"),
        ("0.5", "-0.5"),
        ('"text"', 'b"text"'),
        ('"text"', '"Text"'),
        ("None", "0"),
        ("*, y", "y"),
        ("+ 1", "- 1"),
        (":.3f", ":.2f"),
        ("x: float", "z: float"),
        ("    rank: int = 8\n", ""),
        ("(Exception)", "(ValueError)"),
        ("        # why\n", '        "a string that is no docstring"\n'),
    ],
)
@pytest.mark.parametrize("name", ["randomness.py", "methods/deep/x.py", "experiments/spec.py"])
def test_code_changes_the_digest(package, name, old, new):
    before = source_digest(ROOMS, package)
    assert old in CODE
    (package / name).write_text(CODE.replace(old, new, 1))
    assert source_digest(ROOMS, package) != before


def test_only_the_rooms_named_count(package):
    before = source_digest(ROOMS, package), source_digest(("cli",), package)
    (package / "cli.py").write_text("pass")
    assert source_digest(ROOMS, package) == before[0]
    assert source_digest(("cli",), package) != before[1]
    assert source_digest(ROOMS[::-1], package) == before[0]


def test_files_added_renamed_or_moved_count(package):
    seen = {source_digest(ROOMS, package)}
    os.rename(package / "methods" / "fedit.py", package / "methods" / "other.py")
    seen.add(source_digest(ROOMS, package))
    (package / "methods" / "__init__.py").write_text("")
    seen.add(source_digest(ROOMS, package))
    (package / "methods" / "__pycache__").mkdir()
    (package / "methods" / "__pycache__" / "junk.py").write_text("1")
    seen.add(source_digest(ROOMS, package))
    assert len(seen) == 3


def test_a_room_that_is_gone_is_an_error_not_a_blank(package):
    (package / "experiments" / "spec.py").unlink()
    with pytest.raises(UnknownName, match="experiments/spec"):
        source_digest(ROOMS, package)
    with pytest.raises(UnknownName, match="did you mean 'methods'"):
        source_digest(("method",), package)


def test_known_digest(tmp_path):
    """The spelling of the tree is a contract: if it changes, every stored run is trained again."""
    (tmp_path / "x.py").write_text(
        "def f(a, *b, c=1, **d) -> None:\n    return [a, *b, {**d}, c, None, ...][1:]\n"
    )
    assert (
        source_digest(("x",), tmp_path) == "70caac5d91f9097679eaf12bfc59b2e23cf9295af57d8ac7b02cb95ff35b8d19"
    )


def test_package_digest_sees_prose_and_templates(package):
    seen = {package_digest(package)}
    for name, text in (
        ("cli.py", CODE.replace("# why", "# so")),
        ("reporting/page.html.j2", "<p>"),
        ("reporting/page.html.j2", "<b>"),
    ):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)
        seen.add(package_digest(package))
    assert len(seen) == 4
    (package / "cli.pyc").write_bytes(b"\0")
    (package / "cli.py").write_bytes((package / "cli.py").read_bytes().replace(b"\n", b"\r\n"))
    assert package_digest(package) in seen


def test_this_package_has_digests():
    assert re.fullmatch("[0-9a-f]{64}", package_digest())
    assert source_digest(("experiments/store",)) != source_digest(("experiments/atomic",))


# --- provenance -----------------------------------------------------------------------------------------


def test_what_is_collected():
    record = provenance.collect("cpu", 12.5, seeds=[0, 1], data={"revision": "abc"})
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["versions"].keys() >= {"python", "torch", "transformers", "peft", "opacus"}
    assert record["versions"]["python"].startswith("3.")
    assert record["device"]["type"] == "cpu"
    assert record["device"]["name"]
    assert record["wall_seconds"] == 12.5
    assert record["peak_memory_bytes"]["process"] > 50_000_000  # torch alone needs more: the unit is bytes
    assert record["peak_memory_bytes"]["process"] < 10**12
    assert record["peak_memory_bytes"]["cuda"] is None
    assert record["torch_threads"] >= 1
    assert (record["seeds"], record["data"]) == ([0, 1], {"revision": "abc"})


def test_the_start_is_worked_out_from_the_seconds():
    record = provenance.collect("cpu", 3600)
    age = datetime.now(UTC) - datetime.fromisoformat(record["started_utc"])
    assert 3599 <= age.total_seconds() < 3660


def test_nothing_private(tmp_path):
    record = provenance.collect(
        "cpu", 1, model={"path": tmp_path / "backbone", "at": [f"{tmp_path}/x.bin", "a/b"]}
    )
    assert record["model"] == {"path": "backbone", "at": ["x.bin", "a/b"]}
    texts: list[str] = []

    def gather(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            [gather(item) for item in value]
        elif isinstance(value, str):
            texts.append(value)

    gather(record)
    assert texts
    assert not [text for text in texts if text.startswith("/") or str(Path.home()) in text]
    assert socket.gethostname() not in texts
    assert getpass.getuser() not in texts


def test_git_state(tmp_path, monkeypatch):
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "README").write_text("one")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert provenance.git_state(package) is None  # no repository
    git("init", "-q")
    assert provenance.git_state(package) is None  # no commit that holds it
    git("add", "README")
    git("commit", "-qm", "readme")
    assert provenance.git_state(package) is None  # somebody else's repository
    git("add", "pkg")
    git("commit", "-qm", "package")
    clean = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert provenance.git_state(package) == clean
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as inside a hook
    assert provenance.git_state(package) == clean
    monkeypatch.delenv("GIT_DIR")
    (tmp_path / "notes.txt").write_text("not part of it")
    assert provenance.git_state(package) == clean
    (package / "new.py").write_text("x = 1")
    assert provenance.git_state(package)["dirty"] is True
    (package / "new.py").unlink()
    (tmp_path / "README").write_text("two")
    assert provenance.git_state(package)["dirty"] is True


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state() is None
    built = {"commit": "c" * 40, "dirty": True}  # as a wheel says it
    (tmp_path / "_commit.json").write_text(json.dumps(built))
    assert provenance.git_state(tmp_path) == built


def test_the_rooms_of_a_run_import_nothing_that_decides_numbers_from_elsewhere():
    """What else they import finds files, asks the Hub or the devices, or says errors."""
    harmless = {"errors", "paths", "disk", "devices", "mirror", "hub", "hub_errors", "experiments"}
    tops = {room.partition("/")[0] for room in RUN_ROOMS}
    for room in RUN_ROOMS:
        files = (
            [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").is_file() else (PACKAGE / room).rglob("*.py")
        )
        for file in files:
            named = set(
                re.findall(r"(?:from|import) fedlora_kit(?:\.(\w+)| import (\w+))", file.read_text("utf-8"))
            )
            rooms = {a or b for a, b in named}
            assert rooms <= tops | harmless, f"{file.name}: {rooms - tops - harmless}"
