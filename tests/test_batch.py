"""The batch runner: strict parameters, honest statuses, outputs that appear whole, a watchful cache."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlora_kit.batch import cache, kernel, pool
from fedlora_kit.batch.folders import Staging, exclusive
from fedlora_kit.batch.order import Order, values_for
from fedlora_kit.batch.parameters import Parameter, coerce, parse_settings, read_parameters, resolve
from fedlora_kit.batch.pipeline import reproduce
from fedlora_kit.batch.progress import LiveTable, PlainLines, Running
from fedlora_kit.batch.runner import run_notebook
from fedlora_kit.batch.status import Status, digests, read_status, write_status
from fedlora_kit.batch.summary import summary_text
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.numerals import clock
from fedlora_kit.study import item as study

GIB = 2**30
PARAMETERS = '''
"""Parameters."""
profile: str = "smoke"  # size of the run
rounds: int | None = None  # rounds; None = the profile's own
output_dir: str = "figures"  # top of all outputs
'''
TABLE = """
import pandas as pd
from fedlora_kit.reporting.outputs import ItemOutputs
outputs = ItemOutputs({id!r}, profile, output_dir)
outputs.table(pd.DataFrame({{"rounds": [rounds or 0, 2]}}))
"""


def Item(id: str, kind: study.Kind = "table") -> study.Item:
    return study.Item(id, kind, "", "", "")


def write_notebook(home: Path, item: str, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    node = nbformat.v4.new_notebook()
    if parameters is not None:
        node.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    node.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path = home / "notebooks" / f"{item}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.delenv("FEDLORA_HUB", raising=False)
    monkeypatch.delenv("FEDLORA_JOBS", raising=False)
    return tmp_path


class Recorder(PlainLines):
    def __init__(self) -> None:
        self.lines: list[str] = []
        super().__init__(self.lines.append)


# --- parameters ---


def test_parameters_are_read_with_type_default_and_help(home: Path) -> None:
    path = write_notebook(
        home,
        "x",
        parameters=PARAMETERS
        + 'seeds: list[int] = [\n    0,  # first\n    1,\n]  # a = b\nname = "a#b"  # odd\n'
        + "lr: Optional[float] = 1e-3\n",
    )
    found = read_parameters(path)
    assert list(found) == ["profile", "rounds", "output_dir", "seeds", "name", "lr"]
    assert found["rounds"] == Parameter("rounds", "int | None", None, "rounds; None = the profile's own")
    assert found["seeds"] == Parameter("seeds", "list[int]", [0, 1], "a = b")
    assert found["name"] == Parameter("name", "str", "a#b", "odd")
    assert found["lr"].type == "float | None"


def test_parameters_agree_with_papermill_where_it_can_read_them(home: Path) -> None:
    import papermill

    source = 'profile: str = "smoke"  # size\nseeds: list[int] = [0, 1]  # seeds\nlr: float = 0.5\n'
    path = write_notebook(home, "x", parameters=source)
    node = nbformat.read(path, as_version=4)
    node.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(node, path)  # papermill cannot look into a notebook without it; the runner adds it
    ours, theirs = read_parameters(path), papermill.inspect_notebook(path)
    assert {n: (p.type, p.help) for n, p in ours.items()} == {
        n: (p["inferred_type_name"], p["help"]) for n, p in theirs.items()
    }


@pytest.mark.parametrize(
    "source",
    [
        "x = f()",
        "import os",
        "x: dict = {}",
        "x = None",
        "x: int",
        "a = b = 1",
        "x = [1, 'a']",
        "x: int = (",
        "x = []",
    ],
)
def test_a_parameters_cell_that_is_not_plain_data_is_refused(home: Path, source: str) -> None:
    with pytest.raises(BadValue, match="x.ipynb"):
        read_parameters(write_notebook(home, "x", parameters=source))


def test_a_notebook_without_parameters_or_damaged_or_missing_is_refused(home: Path) -> None:
    with pytest.raises(BadValue, match="no cell tagged 'parameters'"):
        read_parameters(write_notebook(home, "x", "1", parameters=None))
    (home / "broken.ipynb").write_text("{")
    with pytest.raises(BadValue, match="damaged"):
        read_parameters(home / "broken.ipynb")
    with pytest.raises(BadValue, match="missing"):
        read_parameters(home / "none.ipynb")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("int", " 3 ", 3),
        ("int", "-3", -3),
        ("int | None", "none", None),
        ("int | None", None, None),
        ("float", "1e-3", 1e-3),
        ("float", "3", 3.0),
        ("float", 3, 3.0),
        ("float", "inf", float("inf")),
        ("str", "a=b, c", "a=b, c"),
        ("str", "none", "none"),
        ("str | None", "None", None),
        ("bool", "yes", True),
        ("bool", "False", False),
        ("bool", True, True),
        ("list[int]", "0, 1,2", [0, 1, 2]),
        ("list[int]", "[4]", [4]),
        ("list[float]", "1,0.5", [1.0, 0.5]),
        ("list[str]", "sst2,qnli", ["sst2", "qnli"]),
        ("list[str] | None", "none", None),
        ("list[int]", (1, 2), [1, 2]),
    ],
)
def test_values_become_the_declared_type(kind: str, value: Any, expected: Any) -> None:
    found = coerce("x", value, Parameter("x", kind, None, ""))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "3.0"),
        ("int", "1e3"),
        ("int", "three"),
        ("int", ""),
        ("int", "__import__('os')"),
        ("int", True),
        ("int", 3.0),
        ("int", "none"),
        ("float", "nan"),
        ("float", "1,5"),
        ("float", False),
        ("bool", "2"),
        ("bool", 1),
        ("str", 3),
        ("list[int]", "1,,2"),
        ("list[int]", ""),
        ("list[int]", "1,a"),
        ("list[int]", 3),
        ("list[int]", [1.5]),
    ],
)
def test_wrong_types_are_refused_by_name(kind: str, value: Any) -> None:
    with pytest.raises(BadValue) as error:
        coerce("rounds", value, Parameter("rounds", kind, None, "how many"), "notebook a/b")
    assert "'rounds'" in error.value.problem
    assert "a/b" in error.value.problem
    assert "how many" in error.value.remedy


@given(st.lists(st.integers(), min_size=1), st.lists(st.floats(allow_nan=False), min_size=1))
def test_lists_survive_the_way_over_text(whole: list[int], real: list[float]) -> None:
    assert coerce("x", ",".join(map(str, whole)), Parameter("x", "list[int]", [], "")) == whole
    assert coerce("x", ",".join(map(repr, real)), Parameter("x", "list[float]", [], "")) == real


def test_unknown_parameters_name_the_notebook_and_the_allowed_ones(home: Path) -> None:
    write_notebook(home, "paper/x")
    with pytest.raises(UnknownName) as error:
        resolve(Item("paper/x"), {"round": "3"})
    assert "paper/x" in error.value.problem
    assert "'rounds'" in error.value.remedy
    with pytest.raises(BadValue, match="--profile"):
        values_for(Item("x"), "smoke", {"profile": "paper"})


@pytest.mark.parametrize("pairs", [["rounds"], ["=3"], ["a b=1"], ["a=1", "a=2"]])
def test_settings_that_are_no_pairs_are_refused(pairs: list[str]) -> None:
    with pytest.raises(BadValue):
        parse_settings(pairs)
    assert parse_settings(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_no_path_of_this_machine_enters_the_notebook(home: Path) -> None:
    write_notebook(home, "x")
    assert values_for(Item("x"), "smoke", {}, home / "figures")["output_dir"] == "figures"
    assert values_for(Item("x"), "smoke", {})["output_dir"] == "figures"


# --- one batch, looked at from many sides ---


@dataclass
class Batch:
    home: Path
    statuses: dict[str, Status]
    lines: list[str]

    def folder(self, item: str) -> Path:
        return self.home / "figures" / "smoke" / item

    def notebook(self, item: str) -> Any:
        return nbformat.read(self.folder(item) / "notebook.ipynb", as_version=4)

    def log(self, item: str) -> str:
        return (self.folder(item) / "notebook.log").read_text()


ITEMS = [*(Item(f"p/{name}") for name in ("ok", "bad", "killed", "orphan")), Item("p/planned")]
QUICK = [Item("p/nothing"), *(Item(name, "lesson") for name in ("lesson", "own/copy", "own/silent"))]
SLOW = [Item("p/slow")]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    home = tmp_path_factory.mktemp("home {with} braces")  # papermill formats paths: braces must survive
    foreign = home / "foreign" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    where = (
        "import os, sys\nprint('cwd', os.getcwd())\nprint('python', sys.executable)\n"
        "print('jobs', os.environ['FEDLORA_JOBS'])\nprint('threads', os.environ.get('OMP_NUM_THREADS'))\n"
        "print('to stderr', file=sys.stderr)"
    )
    write_notebook(home, "p/ok", TABLE.format(id="p/ok"), where)
    write_notebook(home, "p/bad", TABLE.format(id="p/bad"), "raise ValueError('seven')", "print('never')")
    write_notebook(
        home, "p/killed", "print('before')", "import os\nos.kill(os.getpid(), 9)", "print('never')"
    )
    write_notebook(home, "p/slow", "1 + 1", "import time\ntime.sleep(60)", "print('never')")
    write_notebook(home, "p/nothing", "1 + 1")
    write_notebook(home, "p/orphan", "import os\nos.kill(os.getppid(), 9)", "import time\ntime.sleep(60)")
    write_notebook(home, "lesson", "print('no table needed')")
    write_notebook(home, "own/copy", TABLE.format(id="own/question"))
    write_notebook(home, "own/silent", "1 + 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDLORA_HOME", str(home))
        patch.setenv("JUPYTER_PATH", str(home / "foreign"))
        for name in ("FEDLORA_HUB", "FEDLORA_JOBS", "OMP_NUM_THREADS"):
            patch.delenv(name, raising=False)
        patch.setattr(pool, "cores", lambda: 7)
        recorder = Recorder()
        settings = {"rounds": "5"}
        statuses = reproduce(Order(ITEMS, jobs=2, settings=settings), recorder).statuses
        assert [status.item for status in statuses] == [item.id for item in ITEMS]
        statuses += reproduce(Order(QUICK, jobs=2, settings=settings)).statuses
        statuses += reproduce(Order(SLOW, settings=settings, timeout=1)).statuses
        yield Batch(home, {status.item: status for status in statuses}, recorder.lines)


@pytest.fixture
def own_batch(batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A copy to change: the tests' order, and who else runs some of them, must not matter."""
    home = tmp_path / "home"
    shutil.copytree(batch.home, home)
    monkeypatch.setenv("FEDLORA_HOME", str(home))
    return Batch(home, batch.statuses, batch.lines)


def test_one_failure_does_not_stop_the_rest(batch: Batch) -> None:
    assert {item: status.status for item, status in batch.statuses.items()} == {
        "p/ok": "ok",
        "p/bad": "failed",
        "p/killed": "failed",
        "p/slow": "failed",
        "p/nothing": "failed",
        "p/orphan": "failed",
        "p/planned": "planned",
        "lesson": "ok",
        "own/copy": "ok",
        "own/silent": "failed",
    }


def test_a_success_leaves_outputs_log_and_status(batch: Batch) -> None:
    status = read_status(batch.folder("p/ok"))
    assert status == batch.statuses["p/ok"]
    assert (batch.folder("p/ok") / "table.csv").read_text() == "rounds\n5\n2\n"
    assert set(status.files) == {"notebook.ipynb", "notebook.log", "table.csv", "table.md", "table.tex"}
    assert status.parameters == {"rounds": 5, "profile": "smoke", "output_dir": "figures"}
    assert status.seconds > 0
    assert set(status.versions) >= {"python", "torch", "peft", "opacus", "transformers"}


def test_a_copied_notebook_keeps_its_results_under_its_own_name(batch: Batch) -> None:
    assert "ItemOutputs('own/question'" in (batch.home / "notebooks/own/copy.ipynb").read_text()
    assert (batch.folder("own/copy") / "table.csv").is_file()
    assert not batch.folder("own/question").exists()


def test_the_notebook_runs_in_its_folder_with_its_share_of_the_cores(batch: Batch) -> None:
    log = batch.log("p/ok")
    assert f"cwd {batch.home / 'notebooks' / 'p'}\n" in log
    assert "jobs 3\n" in log
    assert "threads 3\n" in log
    assert "to stderr\n" in log


def test_a_foreign_kernel_of_the_same_name_does_not_win(batch: Batch) -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/bin/false"  # it would, without our own
    with kernel.private_kernel():
        assert KernelSpecManager().get_kernel_spec("python3").argv[0] == sys.executable
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/bin/false"
    assert f"python {sys.executable}\n" in batch.log("p/ok")
    assert batch.notebook("p/ok").metadata["kernelspec"]["name"] == "python3"


def test_the_saved_notebook_names_no_scratch_folder(batch: Batch) -> None:
    for item in ("p/ok", "p/bad", "p/killed"):
        text = (batch.folder(item) / "notebook.ipynb").read_text()
        assert ".staging" not in text
        nbformat.validate(batch.notebook(item))
    about = batch.notebook("p/ok").metadata["papermill"]
    assert about["input_path"] == "notebooks/p/ok.ipynb"
    assert about["output_path"] == "smoke/p/ok/notebook.ipynb"


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("p/bad", "ValueError: seven (cell 4)"),
        ("p/killed", "kernel died"),
        ("p/slow", "longer than 1 s"),
        ("p/nothing", "wrote no table.csv"),
        ("own/silent", "wrote no result: write what it finds with ItemOutputs"),
    ],
)
def test_a_failure_keeps_notebook_log_and_reason_and_no_results(batch: Batch, item: str, reason: str) -> None:
    status = read_status(batch.folder(item))
    assert status == batch.statuses[item]
    assert reason in status.error
    assert {path.name for path in batch.folder(item).iterdir()} == {
        "notebook.ipynb",
        "notebook.log",
        "status.json",
    }
    assert f"failed: {status.error}" in batch.log(item)


def test_the_log_holds_the_traceback_without_colours(batch: Batch) -> None:
    assert "raise ValueError('seven')" in batch.log("p/bad")
    assert "\x1b" not in batch.log("p/bad")
    assert "before\n" in batch.log("p/killed")


@pytest.mark.parametrize("item", ["p/bad", "p/killed", "p/slow"])
def test_cells_that_never_ran_are_not_marked_as_completed(batch: Batch, item: str) -> None:
    node = batch.notebook(item)
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert [cell.metadata["papermill"]["status"] for cell in code] == [
        *["completed"] * (len(code) - 2),
        "failed",
        "pending",
    ]
    assert node.cells[0].cell_type == "markdown"
    assert node.metadata["papermill"]["exception"] is True


def test_a_notebook_whose_process_dies_is_recorded_by_the_parent(batch: Batch) -> None:
    status = batch.statuses["p/orphan"]
    assert "killed by signal 9" in status.error
    assert read_status(batch.folder("p/orphan")) == status
    assert "killed by signal 9" in batch.log("p/orphan")
    assert not list((batch.home / "figures" / "smoke" / ".staging").glob("*"))


def test_progress_has_a_line_for_each_start_and_end(batch: Batch) -> None:
    for item in ("p/ok", "p/bad"):
        assert sum(f"{item}: running" in line for line in batch.lines) == 1
        assert sum(f"{item}: {batch.statuses[item].status} after 0:" in line for line in batch.lines) == 1
    assert batch.lines[-1].startswith("[4/4]")


def test_summary_has_a_line_for_each_item(own_batch: Batch) -> None:
    (own_batch.folder("p/ok") / "claims.json").write_text(
        json.dumps(
            [
                {"id": str(i), "text": "t", "status": s, "reason": "", "source": "", "foundation": ""}
                for i, s in enumerate(["reproduced", "reproduced", "not testable"])
            ]
        )
    )
    text = summary_text(list(own_batch.statuses.values()), "figures")
    lines = {line.split()[0]: line.split()[3:] for line in text.splitlines()}
    assert lines["p/ok"] == ["2", "0", "0", "1"]
    assert lines["p/bad"] == []
    assert text.count("\n") == len(ITEMS + QUICK + SLOW) + 1
    assert "p/planned" in text


# --- what runs again ---


def _run(**options: Any) -> Status:
    options = {"settings": {"rounds": 5}, **options}
    return reproduce(Order([Item("p/ok")], **options)).statuses[0]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("FEDLORA_JOBS", "3")  # what the notebook prints
    ran, start = list[str](), pool._start
    monkeypatch.setattr(pool, "_start", lambda item, *given: ran.append(item.id) or start(item, *given))
    return ran


def test_what_is_current_is_not_run_again_and_what_is_not_is(own_batch: Batch, started: list[str]) -> None:
    table = own_batch.folder("p/ok") / "table.csv"
    same = _run()
    assert (same.status, same.good, started) == ("unchanged", True, [])
    assert read_status(own_batch.folder("p/ok")).status == "ok"

    table.write_text("rounds\n6\n")  # tampered with
    assert (_run().status, len(started)) == ("ok", 1)
    assert table.read_text() == "rounds\n5\n2\n"
    assert _run().status == "unchanged"

    assert (_run(settings={"rounds": 6}).status, len(started)) == ("ok", 2)
    assert table.read_text() == "rounds\n6\n2\n"

    source = TABLE.format(id="p/ok") + "if rounds == 13: raise RuntimeError('unlucky')"
    write_notebook(own_batch.home, "p/ok", source)  # the notebook changed, and fails
    failed = _run(settings={"rounds": 13})
    assert (failed.status, len(started)) == ("failed", 3)
    assert not table.exists()
    assert (table.parent / "earlier" / "table.csv").read_text() == "rounds\n6\n2\n"
    again = _run(settings={"rounds": 13})  # a failure is never "unchanged"
    assert (again.status, len(started)) == ("failed", 4)
    assert (table.parent / "earlier" / "table.csv").is_file()  # the last success outlives a second failure

    assert _run().status == "ok"
    assert not (table.parent / "earlier").exists()


def test_the_key_follows_all_that_decides_the_outputs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_notebook(home, "x", "1")
    reported = home / "data" / "reported" / "reported.csv"
    reported.parent.mkdir(parents=True)
    reported.write_text("a")
    keys = [cache.cache_key(path, "smoke", {"rounds": 1})]
    assert cache.cache_key(path, "smoke", {"rounds": 1, "output_dir": "elsewhere"}) == keys[0]
    keys.append(cache.cache_key(path, "small", {"rounds": 1}))
    keys.append(cache.cache_key(path, "smoke", {"rounds": 2}))
    write_notebook(home, "x", "2")
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    reported.write_text("b")
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    weights = home / "data" / "backbones" / "tiny" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"w")
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    hub = home / "hub"
    hub.mkdir()
    monkeypatch.setenv("FEDLORA_HUB", str(hub))
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    (hub / "train.parquet").write_bytes(b"1")
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    os.utime(hub / "train.parquet", (1, 1))
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    monkeypatch.setattr(cache, "versions", lambda: {"torch": "0"})
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    monkeypatch.setattr("fedlora_kit.experiments.source.package_digest", lambda: "other")
    keys.append(cache.cache_key(path, "smoke", {"rounds": 1}))
    assert len(set(keys)) == len(keys)


def _finished(folder: Path, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text("a\n1\n")
    status = Status("x", "ok", "smoke", cache_key="k", files=digests(folder))
    write_status(folder, replace(status, **changes))


def test_a_status_survives_the_way_over_the_disk(tmp_path: Path) -> None:
    status = Status("x", "ok", parameters={"eps": [6.0, float("inf")], "rounds": None}, seconds=1.5)
    write_status(tmp_path, status)
    assert read_status(tmp_path) == status


def test_only_intact_outputs_of_an_ok_run_are_unchanged(tmp_path: Path) -> None:
    _finished(tmp_path)
    assert cache.unchanged(tmp_path, "k") is not None
    assert cache.unchanged(tmp_path, "other") is None
    assert cache.unchanged(tmp_path / "none", "k") is None
    _finished(tmp_path, status="failed")
    assert cache.unchanged(tmp_path, "k") is None
    _finished(tmp_path, files={"../x": "0"})
    assert cache.unchanged(tmp_path, "k") is None
    _finished(tmp_path, files={})
    assert cache.unchanged(tmp_path, "k") is None
    _finished(tmp_path)
    (tmp_path / "table.csv").unlink()
    assert cache.unchanged(tmp_path, "k") is None
    (tmp_path / "status.json").write_text("{")
    assert cache.unchanged(tmp_path, "k") is None


# --- nothing runs on bad input ---


def test_bad_input_is_refused_before_anything_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_start", lambda *a: pytest.fail("started"))
    write_notebook(home, "x")
    write_notebook(home, "y", parameters=PARAMETERS + "only_here: int = 1\n")
    items = [Item("x"), Item("y")]
    with pytest.raises(UnknownName, match="profile"):
        Order(items, "huge")
    with pytest.raises(BadValue, match="jobs=0"):
        Order(items, jobs=0)
    with pytest.raises(BadValue, match="timeout"):
        Order(items, timeout=0)
    with pytest.raises(BadValue, match="twice"):
        Order([*items, Item("x")])
    with pytest.raises(UnknownName, match="notebook x"):
        reproduce(Order(items, settings={"only_here": "1"}))
    with pytest.raises(BadValue, match="'rounds' of notebook x"):
        reproduce(Order(items, settings={"rounds": "many"}))
    with pytest.raises(BadValue, match="planned"):
        run_notebook(Item("z"), Status("z", "failed", "smoke"))
    with pytest.raises(BadValue, match="plain name"):
        Staging("../x", "smoke", "figures", "r")


def test_two_batches_cannot_write_to_one_folder(home: Path) -> None:
    write_notebook(home, "x")
    with exclusive("smoke", "figures"), pytest.raises(FedloraError, match="another fedlora reproduce"):
        reproduce(Order([Item("x")]))


def test_no_disk_space_is_one_clear_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(home, "x")
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(FedloraError, match="no disk space: 1.0 MB"):
        reproduce(Order([Item("x")]))


# --- folders ---


def test_a_swap_cut_in_half_is_undone(home: Path) -> None:
    base = home / "figures" / "smoke"
    _finished(base / ".staging" / "run" / "old" / "p" / "x")
    _finished(base / ".staging" / "run" / "old" / "p" / "x" / "earlier")
    _finished(base / ".staging" / "other" / "old" / "y")
    _finished(base / "y", error="the newer one")
    with exclusive("smoke", "figures"):
        pass
    assert (base / "p" / "x" / "table.csv").is_file()
    assert (base / "p" / "x" / "earlier" / "table.csv").is_file()
    assert not (base / "earlier").exists()
    assert read_status(base / "y").error == "the newer one"
    assert not (base / ".staging").exists()


def test_outputs_take_their_place_whole(home: Path) -> None:
    staging = Staging("p/x", "smoke", "figures", "r")
    staging.open()
    _finished(staging.final, error="old")
    (staging.folder / "table.csv").write_text("new")
    placed = staging.succeed(Status("p/x", "ok", "smoke"))
    assert read_status(staging.final) == placed
    assert (staging.final / "table.csv").read_text() == "new"
    assert not staging.root.exists()


# --- progress ---


def test_clock_and_estimates() -> None:
    assert [clock(s) for s in (0, 59.6, 3600, 3725, None)] == ["0:00", "1:00", "1:00:00", "1:02:05", "?"]
    now = time.monotonic()
    assert Running("x", now - 10, expected=30.0).remaining() == pytest.approx(20, abs=0.5)
    assert Running("x", now - 40, expected=30.0).remaining() == 0
    assert Running("x", now - 10, done=0.25).remaining() == pytest.approx(30, abs=0.5)
    assert Running("x", now).remaining() is None


def test_plain_lines_repeat_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    recorder.begin(1)
    running = Running("x", time.monotonic(), expected=60)
    recorder.start(running)
    recorder.tick([running], 0)
    assert recorder.lines == ["[0/1] x: running, last time 1:00"]
    later = time.monotonic() + 31
    monkeypatch.setattr("time.monotonic", lambda: later)
    recorder.tick([running], 0)
    recorder.tick([running], 0)
    assert recorder.lines[1:] == ["[0/1] x: 0:31 elapsed, about 0:29 to go, 0% of its cells done"]
    recorder.end(Status("x", "failed", error="a\nb", seconds=31))
    assert recorder.lines[-1] == "[1/1] x: failed after 0:31: a"


def test_the_live_table_names_every_item() -> None:
    from rich.console import Console

    out = io.StringIO()
    table = LiveTable(Console(file=out, force_terminal=True, width=120))
    table.begin(2)
    running = Running("p/[one]", time.monotonic() - 65)
    table.start(running)
    table.tick([running], 1)
    table.end(Status("p/[one]", "ok", seconds=65))
    table.end(Status("p/two", "unchanged"))
    table.close()
    assert "p/[one]" in out.getvalue()
    assert "ok after 1:05" in out.getvalue()
    assert "unchanged" in out.getvalue()


def test_the_kernel_check_really_starts_one() -> None:
    assert kernel.start_and_ask() == sys.executable


@pytest.mark.parametrize(
    ("files", "fit"),
    [
        ({}, 4),
        ({"memory.max": "max\n", "memory.current": "9\n"}, 4),
        ({"memory.max": f"{6 * GIB}\n", "memory.current": f"{3 * GIB}\n"}, 2),
        ({"memory.max": f"{5 * GIB}", "memory.current": f"{5 * GIB}", "memory.stat": "anon 1"}, 1),
        (
            {
                "memory.max": f"{5 * GIB}",
                "memory.current": f"{5 * GIB}",
                "memory.stat": f"anon 1\ninactive_file {3 * GIB}\n",
            },
            2,
        ),
        ({"memory/memory.limit_in_bytes": f"{3 * GIB}", "memory/memory.usage_in_bytes": f"{3 * GIB}"}, 1),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "9"}, 4),
    ],
)
def test_as_many_notebooks_as_fit_into_the_containers_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], fit: int
) -> None:
    monkeypatch.setattr(pool, "_CGROUPS", tmp_path)
    monkeypatch.setattr(pool, "cores", lambda: 8)
    host = tmp_path / "meminfo"
    host.write_text(f"MemTotal: 1\nMemAvailable: {64 * 2**20} kB\n")
    monkeypatch.setattr(pool, "_MEMINFO", host)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert pool._fitting(9) == fit
