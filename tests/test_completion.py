"""Shell completion, asked for as the shells do: by environment variables."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedlora_kit.cli import completion, main
from fedlora_kit.experiments.store import Store
from fedlora_kit.methods import METHODS
from fedlora_kit.papers.items import all_items
from fedlora_kit.partition import partitioner_names

ROOT = Path(__file__).resolve().parent.parent
KEYS = ("aa00000000000001", "aa00000000000002", "bb00000000000003")
OWN = """method: str = "lora"
partitioners: list[str] = ["iid"]
deep: bool = True
rounds: int = 3  # such as 3
mode: str | None = None  # way to go: left, right or straight_on; none: the profile's own
device: str = "auto"  # auto | cpu | cuda
"""


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a shell is offered."""

    def asked(**environment: str) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["fedlora"])
            patch.setenv("FEDLORA_HOME", os.environ.get("FEDLORA_HOME", str(ROOT)))
            patch.setenv("_FEDLORA_COMPLETE_NAME", "")
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 0
        return [line for line in capsys.readouterr().out.split("\n") if line]

    return asked


@pytest.fixture
def bash(ask):
    """What Bash is offered for words as it cuts them, the last one under the cursor."""
    return lambda *words: ask(
        _FEDLORA_COMPLETE="complete_bash",
        COMP_WORDS="\n".join(["fedlora", *words]),
        COMP_CWORD=str(len(words)),
    )


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kit whose only notebook is the user's own."""
    import nbformat

    cell = nbformat.v4.new_code_cell(OWN, metadata={"tags": ["parameters"]})
    (tmp_path / "notebooks" / "own").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "own" / "mine.ipynb")
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))


def test_doctests() -> None:
    assert doctest.testmod(completion).failed == 0


def test_commands_and_options(bash) -> None:
    assert bash("re") == ["reproduce", "report", "replay"]
    assert "--profile" in bash("reproduce", "--p")
    assert bash("backbones", "b") == ["build"]


@pytest.mark.parametrize("command", [("reproduce",), ("plan",), ("-v", "plan"), ("fetch", "--to", "x")])
def test_items_with_a_slash(bash, command: tuple[str, ...]) -> None:
    tables = [item.id for item in all_items() if item.id.startswith("ffa-lora/ta")]
    assert bash(*command, "ffa-lora/ta") == tables
    assert bash(*command, "ffa-lora/table1", "ffa-lora/ta") == tables[1:]
    assert set(bash(*command, "")) == {"ffa-lora", "fed-hello", "fedlora-optimizer"} | {
        item.id for item in all_items()
    }


def test_items_of_a_paper_that_is_named_for_all_commands(bash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLORA_WITH", str(ROOT / "examples" / "rolora"))
    assert bash("reproduce", "rol") == ["rolora", "rolora/table1"]
    monkeypatch.setenv("FEDLORA_WITH", "/nowhere/at/all.py")
    assert bash("reproduce", "ffa-lora/table5") == ["ffa-lora/table5"]


def test_profiles_engines_devices(bash) -> None:
    assert bash("reproduce", "-p", "") == ["smoke", "laptop", "small", "paper"]
    assert bash("report", "--profile", "sm") == ["smoke", "small"]
    assert bash("reproduce", "--profile", "=", "sm") == ["smoke", "small"]
    assert bash("reproduce", "--engine", "") == ["local", "ray"]
    assert bash("plan", "--device", "c") == ["cpu", "cuda"]


def test_settings_are_those_that_all_items_on_the_line_declare(bash) -> None:
    one, two = bash("reproduce", "ffa-lora/table1", "--set", ""), bash("plan", "fed-hello", "-s", "")
    assert {"rounds=", "methods=", "epsilons="} <= set(one)
    assert "device=" in two
    assert "epsilons=" not in two
    both = bash("reproduce", "ffa-lora/table1", "fed-hello", "--set", "")
    assert set(both) == set(one) & set(two)
    assert "profile=" not in one
    assert bash("reproduce", "ffa-lora/table1", "--set", "roun") == ["rounds=", "rounds=none"]
    assert bash("reproduce", "ffa-lora/tabel1", "--set", "") == []


def test_the_methods_read_from_the_files_are_those_that_are_registered() -> None:
    kits = {name for name, cls in METHODS.items() if cls.__module__.startswith("fedlora_kit.methods.")}
    assert completion.method_names() == sorted(kits)


def test_values_of_settings(bash, own: None) -> None:
    def values(name: str, *typed: str) -> list[str]:
        return bash("reproduce", "own/mine", "--set", name, "=", *typed)

    assert values("method") == completion.method_names()
    assert values("method", "fed-") == [n for n in completion.method_names() if n.startswith("fed-")]
    assert values("partitioners") == list(partitioner_names())
    assert values("partitioners", "iid,di") == ["iid,dirichlet"]
    assert "iid,iid" not in values("partitioners", "iid,")
    assert values("deep") == ["true", "false"]
    assert values("mode") == ["left", "right", "straight_on"]
    assert values("device", "c") == ["cpu", "cuda"]
    assert values("rounds") == values("nothing") == []
    # behind a setting that is whole the next word is an item again, or another setting
    assert bash("reproduce", "--set", "rounds", "=", "3", "own/") == ["own/mine"]
    assert bash("reproduce", "own/mine", "--set", "rounds", "=", "3", "--set", "de") == ["deep=", "device="]


def test_zsh_and_fish_ask_for_the_whole_word(ask, own: None) -> None:
    line = "fedlora reproduce own/mine --set method=fed-"
    assert any("method=fed-hello" in one for one in ask(
        _FEDLORA_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line))  # fmt: skip
    fish = ask(
        _FEDLORA_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS=line, _TYPER_COMPLETE_FISH_ACTION="get-args"
    )
    assert fish == ["method=fed-hello"]


def test_keys_of_runs(bash) -> None:
    for key in KEYS:
        with Store().work(key, {}) as work:
            work.finish({"results.json": {}, "history.jsonl": [], "provenance.json": {}})
    assert bash("show", "aa") == list(KEYS[:2])
    assert bash("compare", KEYS[0], "b") == [KEYS[2]]
    assert bash("tensorboard", "aa") == list(KEYS[:2])
    assert bash("tensorboard", "start") == ["start_here"]
    assert set(KEYS) < set(bash("tensorboard", ""))


@pytest.mark.parametrize(
    ("words", "at", "expected", "name"),
    [
        (["f", "x", "=", "3"], 3, ["f", "3"], "x"),
        (["f", "x", "="], 2, ["f", ""], "x"),
        (["f", "x", "=", ""], 3, ["f", "x=", ""], None),
        (["f", "x", "=", "3", "y"], 4, ["f", "x=3", "y"], None),
        (["f", "--p", "=", "s"], 3, ["f", "--p=s"], None),
        (["f", "a b", "y"], 2, ["f", "a b", "y"], None),
    ],
)
def test_words_that_bash_cut_are_put_together(
    words: list[str], at: int, expected: list[str], name: str | None
) -> None:
    environment = {
        "_FEDLORA_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(at),
    }
    completion.whole_words(environment)
    assert environment["COMP_WORDS"].split("\n")[: int(environment["COMP_CWORD"]) + 1] == expected
    assert environment.get("_FEDLORA_COMPLETE_NAME") == name
    other = {"_FEDLORA_COMPLETE": "complete_zsh", "COMP_WORDS": "a\n=", "COMP_CWORD": "1"}
    completion.whole_words(before := dict(other))
    assert before == other


def test_a_key_press_imports_nothing_heavy() -> None:
    """What the shell starts, once for each kind of completion, in a process without the test's imports."""
    heavy = ["torch", "transformers", "peft", "opacus", "matplotlib", "papermill", "pandas", "scipy"]
    code = (
        "import os, sys, json\nfrom fedlora_kit.cli import main\nsys.argv = ['fedlora']\n"
        "for words in json.loads(os.environ['WORDS']):\n"
        "    os.environ.update(COMP_WORDS='\\n'.join(words), COMP_CWORD=str(len(words) - 1))\n"
        "    os.environ.pop('_FEDLORA_COMPLETE_NAME', None)\n"
        "    try: main()\n    except SystemExit as end: assert end.code == 0\n"
        f"print('heavy:', [name for name in {heavy} if name in sys.modules])"
    )
    words = [
        ["fedlora", "reproduce", "ffa-lora/"],
        ["fedlora", "reproduce", "ffa-lora/table1", "--set", "methods", "="],
        ["fedlora", "plan", "--set", ""],
        ["fedlora", "tensorboard", ""],
        ["fedlora", "show", "a"],
    ]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FEDLORA_HOME": str(ROOT),
        "_FEDLORA_COMPLETE": "complete_bash",
        "WORDS": json.dumps(words),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout.endswith("heavy: []\n"), done.stderr
    assert "ffa-lora/table1\n" in done.stdout
    assert "fedlora-optimizer\n" in done.stdout
