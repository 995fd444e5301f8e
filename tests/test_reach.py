"""What own code reaches: a key follows everything that decides what the code does, and nothing else."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cells import cell

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_files
from fedlora_kit.experiments.reach import digest
from fedlora_kit.methods import FedIT

NUMBERS = itertools.count()
MINE = '''
"""A method of mine."""
import math
import enum
import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import helper_a
from helper_b import move
from fedlora_kit.methods import FedIT

RATE = 1.0
TABLE = {"a": [1, (2, 3)], "b": {4, 5}}
WEIGHTS = np.arange(3.0)
STEP = torch.tensor([0.5])
UNUSED = 1
LIMIT = 5


class Kind(enum.Enum):
    FAST = 1
    SLOW = 2


@dataclass(frozen=True)
class Setting:
    share: float = 0.5
    names: tuple = ("x",)
    more: list = field(default_factory=list)

    def scaled(self):
        return self.share * LIMIT


CHOSEN = Setting()
KIND = Kind.FAST


def twice(function):
    @functools.wraps(function)
    def call(*given):
        return 2 * function(*given)
    return call


def maker(factor):
    return lambda x: factor * x


triple = maker(3)


@functools.lru_cache
def slow(x):
    return x + 1


@twice
def wrapped(x, by=7):
    return math.sqrt(x) * by


class Base(FedIT):
    shift = 0.25

    def start(self):
        return self.shift


class Mine(Base):
    name = "mine"

    def aggregate(self, global_state, updates):
        # a comment
        x = RATE * TABLE["a"][0] + WEIGHTS[1] + STEP + CHOSEN.scaled() + KIND.value
        return move(x) + helper_a.start(x) + triple(x) + slow(x) + wrapped(x) + self.rest()

    @property
    def half(self):
        return 0.5

    @staticmethod
    def fixed():
        return 11

    @classmethod
    def rest(cls):
        return [13 for _ in range(3)]
'''
#: what counts: (before, after), in the source above
COUNTS = {
    "constant": ("RATE = 1.0", "RATE = 0.1"),
    "deep constant": ("(2, 3)", "(2, 4)"),
    "set": ("{4, 5}", "{4, 6}"),
    "array": ("np.arange(3.0)", "np.arange(3.0)[::-1]"),
    "its dtype": ("np.arange(3.0)", "np.arange(3)"),
    "tensor": ("torch.tensor([0.5])", "torch.tensor([0.25])"),
    "enum": ("FAST = 1", "FAST = 3"),
    "enum's choice": ("KIND = Kind.FAST", "KIND = Kind.SLOW"),
    "dataclass": ("share: float = 0.5", "share: float = 0.75"),
    "instance": ("CHOSEN = Setting()", "CHOSEN = Setting(0.6)"),
    "its method": ("self.share * LIMIT", "self.share + LIMIT"),
    "what that reads": ("LIMIT = 5", "LIMIT = 6"),
    "decorator": ("return 2 * function", "return 3 * function"),
    "closure": ("maker(3)", "maker(4)"),
    "lambda": ("factor * x", "factor + x"),
    "default": ("by=7", "by=8"),
    "cached function": ("return x + 1", "return x + 2"),
    "base class": ("shift = 0.25", "shift = 0.5"),
    "its function": ("return self.shift", "return -self.shift"),
    "own body": ("move(x) + helper_a", "move(x) - helper_a"),
    "property": ("return 0.5", "return 0.6"),
    "static": ("return 11", "return 12"),
    "class method": ("[13 for", "[14 for"),
}
PROSE = {
    "comment": ("# a comment", "# another"),
    "docstring": ("A method of mine.", "A method of nobody."),
    "layout": ("@twice\n", "\n\n@twice  # so\n"),
}
HELPERS = {
    "helper_a.py": "import helper_c\nSTART = 2.0\nOTHER = 1\ndef start(x):\n"
    "    return START * helper_c.tail(x)\n",
    "helper_b.py": "SPEED = 1.5\ndef move(x):\n    from deep.inner import DEPTH\n"
    "    return SPEED * x * DEPTH\n",
    "helper_c.py": "def tail(x):\n    return x / 3\n",
    "deep/__init__.py": "",
    "deep/inner.py": "from .more import DEPTH\n",
    "deep/more.py": "DEPTH = 4\n",
    "stranger.py": "X = 1\n",
}
NAMES = ["mine", "helper_a", "helper_b", "helper_c", "deep", "deep.inner", "deep.more"]


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name in NAMES:
        sys.modules.pop(name, None)


def fresh(folder: Path, source: str = MINE, **helpers: str) -> Any:
    """The module ``mine`` as a new process would import it from ``folder``."""
    texts = {"mine.py": source, **HELPERS, **{f"{name}.py": text for name, text in helpers.items()}}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        stamp = next(NUMBERS) * 10**9  # no two writes within one tick of a clock
        os.utime(folder / name, ns=(stamp, stamp))
    for name in NAMES:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    sys.path[:] = [str(folder), *(p for p in sys.path if "folder-of-mine" not in p)]
    return importlib.import_module("mine")


@pytest.fixture
def folder(tmp_path: Path, forget: None) -> Path:
    return tmp_path / "folder-of-mine"


def in_cells(source: str = MINE, **names: Any) -> str:
    """The digest of Mine where the whole source is one cell, and the helpers are cells before it."""
    for name, text in HELPERS.items():
        if "/" not in name and name != "stranger.py":
            text = text.replace("import helper_c\n", "").replace("helper_c.", "")
            names |= cell(text.replace("    from deep.inner import DEPTH\n", ""), **{"DEPTH": 4, **names})
    source = source.replace("import helper_a\n", "").replace("helper_a.", "")
    return digest(cell(source.replace("from helper_b import move\n", ""), **names)["Mine"])


def one_changed(pair: tuple[str, str]) -> str:
    assert MINE.count(pair[0]) == 1, pair
    return MINE.replace(*pair)


@pytest.mark.parametrize("change", COUNTS.values(), ids=COUNTS)
def test_what_a_method_reaches_changes_its_digest(folder: Path, change: tuple[str, str]) -> None:
    before = digest(fresh(folder).Mine)
    assert digest(fresh(folder, one_changed(change)).Mine) != before
    assert digest(fresh(folder).Mine) == before
    before = in_cells()
    assert in_cells(one_changed(change)) != before
    assert in_cells() == before


@pytest.mark.parametrize("change", PROSE.values(), ids=PROSE)
def test_prose_does_not(folder: Path, change: tuple[str, str]) -> None:
    assert digest(fresh(folder, one_changed(change)).Mine) == digest(fresh(folder).Mine)
    assert in_cells(one_changed(change)) == in_cells()


def test_what_a_cell_does_not_reach_does_not() -> None:
    assert in_cells(MINE.replace("UNUSED = 1", "UNUSED = object()")) == in_cells()
    assert in_cells(MINE + "\n\ndef other():\n    return UNUSED\n") == in_cells()
    assert in_cells(MINE, stranger=open) == in_cells()


@pytest.mark.parametrize("name", [*HELPERS])
def test_helpers_beside_the_file_count_as_far_as_they_are_imported(folder: Path, name: str) -> None:
    before = digest(fresh(folder).Mine)
    changed = {name.removesuffix(".py"): HELPERS[name] + "NEW = 1\n"}
    assert (digest(fresh(folder, **changed).Mine) != before) == (name != "stranger.py")
    only_prose = {name.removesuffix(".py"): HELPERS[name] + "# NEW = 1\n"}
    assert digest(fresh(folder, **only_prose).Mine) == before


def test_values_changed_at_run_time_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fresh(folder)
    before = digest(module.Mine)
    changes: list[tuple[Any, str, Any]] = [
        (module, "RATE", 0.1),
        (module, "move", lambda x: x),
        (module, "CHOSEN", module.Setting(0.6)),
        (module.TABLE, "a", [1, (2, 4)]),
        (module.Base, "shift", 1.0),
        (module.Mine, "fixed", staticmethod(lambda: 12)),
        (module.helper_a, "START", 3.0),
        (module.helper_a.helper_c, "tail", lambda x: x),
        (sys.modules["helper_b"], "SPEED", 2.0),
    ]
    for place, name, value in changes:
        with monkeypatch.context() as patch:
            (patch.setitem if isinstance(place, dict) else patch.setattr)(place, name, value)
            assert digest(module.Mine) != before, name
        assert digest(module.Mine) == before, name
    monkeypatch.setattr(module, "UNUSED", 2)
    monkeypatch.setattr(module.helper_a, "OTHER", 2)
    assert digest(module.Mine) == before


def test_equal_values_count_as_equal() -> None:
    source = "class Mine:\n    def f(self):\n        return X, Y\n"
    shared = (1.5, [2])
    assert digest(cell(source, X=shared, Y=shared)["Mine"]) == digest(
        cell(source, X=(1.5, [2]), Y=(1.5, [2]))["Mine"]
    )
    seen = {
        digest(cell(source, X=x, Y=None)["Mine"])
        for x in (1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 1}, {1: True}, None, -0.0, 0.0, float("nan"))
    }
    assert len(seen) == 14
    assert digest(cell(source, X=float("nan"), Y={"b", "a"})["Mine"]) in {
        digest(cell(source, X=float("nan"), Y={"a", "b"})["Mine"])
    }


def test_paths_count_by_what_lies_there(tmp_path: Path) -> None:
    source = "class Mine:\n    def f(self):\n        return X\n"
    seen = []
    for place, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "rates.csv").write_text(text)
        seen.append(digest(cell(source, X=tmp_path / place / "rates.csv")["Mine"]))
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("X = open('/dev/null')\nclass Mine:\n def f(self): return X", "depends on X, which holds a .*Text"),
        ("import random\nX = random.Random(0)\nclass Mine:\n def f(self): return X", "holds a random.Random"),
        ("X = []\nclass Mine:\n def f(self): X.append(1)", r"Mine.f changes X, .*while it runs"),
        ("X = 0\nclass Mine:\n def f(self):\n  global X\n  X += 1", "changes X"),
        ("X = {}\ndef g():\n X['a'] = 1\nclass Mine:\n def f(self): g()", "g changes X"),
        ("import threading\nclass Mine:\n lock = threading.Lock()", "depends on Mine.lock, which holds"),
        ("class Mine: pass\nexec('def f(self): pass')\nMine.f = f", "source of f cannot be read"),
        ("import pydantic\nclass Mine(pydantic.BaseModel):\n x: int = 3", "is made by ModelMetaclass"),
    ],
)
def test_a_notebook_is_told_what_cannot_stand_in_a_key(source: str, said: str) -> None:
    with pytest.raises(BadValue, match=said) as raised:
        digest(cell(source)["Mine"])
    assert "file" in raised.value.remedy


def test_in_a_file_the_text_speaks_for_such_values(folder: Path) -> None:
    source = (
        "import threading, random\nLOCK = threading.Lock()\nDRAW = random.Random(0)\nSEEN = {}\nTIMES = 0\n"
        "class Mine:\n    def f(self):\n        global TIMES\n        TIMES += 1\n"
        "        with LOCK:\n            SEEN[TIMES] = DRAW.random()\n        return SEEN\n"
    )
    module = fresh(folder, source)
    before = digest(module.Mine)
    module.Mine().f()
    assert digest(module.Mine) == before
    assert digest(fresh(folder, source.replace("Random(0)", "Random(1)")).Mine) != before


def test_a_file_that_was_edited_after_its_import_is_refused(folder: Path) -> None:
    module = fresh(folder)
    digest(module.Mine)
    (folder / "mine.py").write_text(MINE.replace("move(x) + helper_a", "move(x) - helper_a"))
    with pytest.raises(BadValue, match=r"mine.py has changed since .* was imported") as raised:
        digest(module.Mine)
    assert "restart the kernel" in raised.value.remedy


def test_it_is_the_same_in_another_place(folder: Path, tmp_path: Path) -> None:
    source = MINE + "\n\nHERE = Path(__file__).parent\n\ndef _where(self):\n    return HERE, str(HERE)\n"
    source += "\n\nMine.where = _where\n"
    before = digest(fresh(folder, source).Mine)
    other = tmp_path / "elsewhere" / "folder-of-mine"
    assert digest(fresh(other, source).Mine) == before


def test_the_package_speaks_for_itself(tmp_path: Path) -> None:
    assert digest(FedIT) == ""
    source = textwrap.dedent(
        """
        from fedlora_kit.papers.lessons.small import dirichlet
        class Mine:
            def f(self):
                return dirichlet(0.3, 5)
        """
    )
    assert digest(cell(source)["Mine"]) != digest(cell(source.replace("0.3", "0.4"))["Mine"])


def test_files_that_cannot_be_read(folder: Path) -> None:
    folder.mkdir()
    (folder / "broken.py").write_text("def f(:\n")
    before = own_files.closure([folder / "broken.py"])  # it counts by its bytes
    (folder / "broken.py").write_text("def f(:  # so\n")
    assert own_files.closure([folder / "broken.py"]) != before
    with pytest.raises(BadValue, match=r"gone.py cannot be read"):
        own_files.closure([folder / "gone.py"])


def test_imports_in_a_circle_end(folder: Path) -> None:
    folder.mkdir()
    (folder / "one_of_two.py").write_text("import two_of_two\nimport torch, json\n")
    (folder / "two_of_two.py").write_text("import one_of_two\n")
    found = own_files.closure([folder / "one_of_two.py"])
    assert [name for name, _ in found] == ["one_of_two.py", "two_of_two.py"]


@pytest.mark.parametrize("way", ['globals()["K"]', 'eval("K")', "vars()"])
def test_what_a_cell_looks_up_by_a_computed_name_is_refused(way):
    source = f"class Mine:\n    def step(self):\n        return {way}\n"
    with pytest.raises(BadValue, match=r"calls (globals|eval|vars)\(\)"):
        digest(cell(source, K=1)["Mine"])
