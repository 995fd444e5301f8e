"""`--with FILE`: what is the user's own, in every process that a command starts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedlora_kit.batch import pipeline
from fedlora_kit.batch.kernel import KERNEL_NAME, private_kernel
from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_code, reach
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
RUN = {
    "model": {"backbone": "kit/text-tiny", "lora": {"rank": 8, "alpha": 8}},
    "data": {"task": "polarity", "train_limit": 40, "eval_limit": 10},
    "split": {"partitioner": "iid", "clients": 2},
    "local": {"lr": 0.1, "steps": 1, "batch_size": 4},
    "rounds": {"rounds": 1},
}
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
    own_code.name_files([])
    assert own_code.files() == [mine]
    assert own_code.modules() == [sys.modules[mine.stem]]
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


@pytest.mark.parametrize("exported", [False, True])
def test_a_command_names_files_for_itself_alone(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    other = tmp_path / f"other_{tmp_path.name}.py"
    other.write_text("")
    before = str(other) if exported else ""
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
    assert named == [[*[other][:exported], mine], [other][:exported]]


def test_a_path_that_would_be_taken_for_two_is_refused(tmp_path: Path, mine: Path) -> None:
    folder = tmp_path / f"a{os.pathsep}b"
    folder.mkdir()
    path = mine.rename(folder / mine.name)
    with pytest.raises(BadValue, match="in its path, which parts paths") as raised:
        own_code.name_files([path])
    assert "move the file" in raised.value.remedy
    assert mine.stem not in sys.modules


def test_every_command_takes_it() -> None:
    import typer

    def leaves(group: Any) -> Iterator[Any]:
        for command in group.commands.values():
            yield from leaves(command) if hasattr(command, "commands") else [command]

    commands = list(leaves(typer.main.get_command(app)))
    assert len(commands) > 15
    for command in commands:
        assert "--with" in {option for one in command.params for option in one.opts}, command.name


def test_a_run_of_it_goes_to_the_training_processes_like_others(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named or only imported; what a cell defines stays here, and so does what another process has not."""
    from fedlora_kit.experiments.own_parts import external, own_modules
    from fedlora_kit.experiments.spec import RunSpec
    from fedlora_kit.running import many

    here: list[str] = []
    train = many.train
    monkeypatch.setattr(
        many, "train", lambda spec, *rest: here.append(spec.method.name) or train(spec, *rest)
    )
    name = mine.stem.replace("_", "-")
    (module,) = own_code.load([mine])
    specs = [RunSpec.parse({**RUN, "method": {"name": name}, "seed": seed}) for seed in (0, 1)]
    assert own_modules(specs[0]) == [mine.stem]
    assert not external(specs[0])
    done = many.run_all(specs, jobs=2, device="cpu")
    assert [run.entry is not None for run in done] == [True, True]
    assert here == []
    module.RATE = 2  # in this process alone: another run, by its key
    assert many.run_all(specs, jobs=2, device="cpu")[0].key != done[0].key
    assert here == [name, name]


def test_a_remote_machine_without_the_file_says_so(mine: Path) -> None:
    from fedlora_kit.engines import ray_worker

    own_code.name_files([mine])
    from fedlora_kit.experiments.spec import RunSpec

    wanted = RunSpec.parse({**RUN, "method": {"name": mine.stem.replace("_", "-")}})
    text = ray_worker.job_text(wanted, wanted.key(), "unused", "cpu", 60)
    mine.rename(mine.with_name("elsewhere.py"))
    reply = ray_worker.read_reply(ray_worker.train(text, "0"))
    assert reply.status == "error"
    assert f"{mine}, which the command names by --with, is not on the machine" in reply.error
