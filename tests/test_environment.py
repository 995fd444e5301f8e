"""pyproject.toml, the lock file and environment.yml name the same packages."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
}
CARD = [
    "torch",
    "transformers",
    "peft",
    "opacus",
    "datasets",
    "matplotlib",
    "seaborn",
    "papermill",
    "jupytext",
]


def test_the_lock_file_pins_every_dependency_within_its_range():
    optional = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *optional["dev"], *optional["ray"], *optional["tensorboard"]]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        assert name in LOCK, f"{name} is not in requirements.lock: make lock"
        assert requirement.specifier.contains(LOCK[name]), f"{name}=={LOCK[name]} is outside {line}"


def test_the_lock_file_holds_nothing_but_pins():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!-]+", line) for line in lines)
    assert LOCK["torch"] == "2.13.0"


def test_environment_yml_is_in_step():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "fedlora-kit"
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip[-2:] == ["-r requirements.lock", "--editable ."]
    named = dict(line.split("==") for line in pip[:-2])
    assert list(named) == CARD
    assert named == {name: LOCK[name] for name in CARD}
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert python.removeprefix("python") == PROJECT["requires-python"]


def test_the_newcomers_commands_are_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for command in ("make reproduce", "make test", "fedlora list", "fedlora doctor", "start_here.ipynb"):
        assert command in readme
    assert len(readme.splitlines()) <= 200
