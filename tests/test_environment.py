"""pyproject.toml, the lock file and environment.yml name the same packages."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedlora_kit import __version__
from fedlora_kit.papers.items import PAPERS

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


EXTRAS = PROJECT["optional-dependencies"]


def test_every_range_has_a_floor_and_a_ceiling():
    # an exact pin would replace the PyTorch of a hosted notebook
    needed = [
        *PROJECT["dependencies"],
        *(line for extra in EXTRAS if extra != "dev" for line in EXTRAS[extra]),
    ]
    for line in needed:
        operators = sorted(one.operator for one in Requirement(line).specifier)
        assert operators == ["<", ">="], line
    assert list(EXTRAS) == ["notebooks", "ray", "flower", "tensorboard", "gpu", "dev"]


def test_the_lock_file_pins_every_dependency_within_its_range():
    locked = ("notebooks", "ray", "tensorboard", "dev")
    for line in [*PROJECT["dependencies"], *(line for extra in locked for line in EXTRAS[extra])]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            assert requirement.extras <= {*locked}
            continue
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


def test_what_is_to_be_cited_is_what_the_kit_knows():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format demands
    assert (citation["title"], citation["version"]) == (PROJECT["name"], __version__)
    assert (citation["license"], PROJECT["version"]) == (PROJECT["license"], __version__)
    page = (ROOT / "docs" / "citing.md").read_text()
    plain = page.replace("{", "").replace("}", "")
    assert f"version = {__version__}" in plain
    assert len(citation["references"]) == len(PAPERS) == 3
    for paper in PAPERS:
        (found,) = (one for one in citation["references"] if one["title"] == paper.title)
        (arxiv,) = (one["value"] for one in found["identifiers"])
        assert arxiv.replace(":", " ") in paper.reference
        assert str(found["year"]) in paper.reference
        for said in (
            f"{{{paper.id},",
            paper.title,
            arxiv,
            *(a.get("family-names", "") for a in found["authors"]),
        ):
            assert said in plain or said in page, said
