"""The command line, as a newcomer meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from cli_tools import LARGE_DELTA
from typer.testing import CliRunner, Result

from fedlora_kit import __version__
from fedlora_kit.cli import app, doctor
from fedlora_kit.errors import FedloraError

PARAMETERS = 'profile: str = "smoke"\nrounds: int = 1  # rounds\noutput_dir: str = "figures"\n'
MAIN = "from fedlora_kit.cli import main; main()"
ROOT = Path(__file__).resolve().parent.parent


def notebook(home: Path, item: str, *cells: str) -> None:
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    node.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path = home / "notebooks" / f"{item}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def python(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("list",),
        ("reproduce",),
        ("report",),
        ("noise",),
        ("runs",),
        ("show",),
        ("compare",),
        ("tensorboard",),
        ("new",),
        ("doctor",),
        ("backbones",),
        ("backbones", "build"),
        ("replay",),
        ("replay", "fed-hello"),
    ],
)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    result = call(*words, "--help")
    assert result.exit_code == 0
    assert len(result.stdout) > 150


def test_help_and_list_import_nothing_heavy() -> None:
    heavy = "('torch', 'transformers', 'peft', 'opacus', 'matplotlib', 'papermill', 'pandas', 'scipy')"
    script = (
        "import sys; from typer.testing import CliRunner; from fedlora_kit.cli import app\n"
        "for words in (['--help'], ['list'], ['list', '--json'], ['--version']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert python("-c", script).stdout.strip() == "[]"


def test_version() -> None:
    assert __version__ in call("--version").stdout


def test_list_shows_every_item_and_what_has_a_notebook(home: Path) -> None:
    notebook(home, "start_here")
    records = {record["id"]: record for record in json.loads(call("list", "--json").stdout)}
    assert set(records["start_here"]) == {"id", "paper", "kind", "title", "notebook", "foundation"}
    assert records["start_here"]["notebook"] == "start_here.ipynb"
    assert records["ffa-lora/table1"]["notebook"] is None
    assert records["ffa-lora/table1"]["paper"] == "ffa-lora"
    table = call("list").stdout
    assert all(identity in table for identity in records)
    assert "planned" in table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reproduce", "ffa-lora/tabel1"), "did you mean 'ffa-lora/table1'"),
        (("reproduce", "--profile", "smok"), "did you mean 'smoke'"),
        (("reproduce", "ffa-lora/table1"), "no notebook yet for ffa-lora/table1"),
        (("reproduce", "ffa-lora"), "no notebook to run"),
        (("reproduce", "start_here", "--set", "round=2"), "did you mean 'rounds'"),
        (("reproduce", "start_here", "--set", "rounds=two"), "whole number"),
        (("reproduce", "start_here", "--set", "rounds"), "key=value"),
        (("reproduce", "start_here", "--set", "profile=paper"), "use --profile"),
        (("reproduce", "start_here", "--jobs", "0"), "jobs=0"),
        (("reproduce", "start_here", "--jobs", "many"), "'--jobs'"),
        (("backbones", "build", "kit/txt-tiny"), "kit/text-tiny"),
        (("backbones", "build", "FacebookAI/roberta-base"), "not pre-trained by the kit"),
        (("nothing",), "nothing"),
    ],
)
def test_bad_input_is_one_clear_error(home: Path, words: tuple[str, ...], said: str) -> None:
    notebook(home, "start_here", "raise SystemError('must not run')")
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (home / "figures").exists()


NOISE = ("noise", "--delta", "1e-5", "--batch", "200", "--examples", "22450", "--steps", "10000")


def test_noise_gives_the_papers_figure_and_the_budget_back() -> None:
    found = json.loads(call(*NOISE, "--epsilon", "6", "--json").stdout)
    assert round(found["noise_multiplier"], 2) == 0.99  # FFA-LoRA, section 5, SST-2
    assert found["sample_rate"] == pytest.approx(200 / 22450)
    assert 5.99 < found["epsilon_spent"] <= 6
    assert found["accountant"] == "rdp"
    assert found["library"] == f"fedlora-kit {metadata.version('fedlora-kit')}"
    assert found["warnings"] == []
    text = call(*NOISE, "--epsilon", "6").stdout
    assert "0.989" in text
    assert "fedlora-kit" in text
    assert "opacus" in call(*NOISE, "--epsilon", "6", "--accountant", "prv").stdout


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epsilon", "0", "epsilon"),
        ("--epsilon", "nan", "epsilon"),
        ("--epsilon", "0.001", "0.0023 or more"),
        ("--delta", "0", "delta"),
        ("--delta", "1", "delta"),
        ("--batch", "22451", "larger than --examples"),
        ("--batch", "0", "--batch 0"),
        ("--steps", "0", "--steps 0"),
        ("--examples", "-1", "--examples -1"),
        ("--accountant", "gdp", "rdp, prv"),
    ],
)
def test_noise_refuses_impossible_budgets(option: str, value: str, said: str) -> None:
    result = call(*NOISE, "--epsilon", "6", option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_large_delta_is_a_warning_that_names_the_rule() -> None:
    result = call(*LARGE_DELTA)
    assert result.exit_code == 0
    assert "delta < 1/n" in result.stderr
    assert "warning" not in result.stdout
    assert len(json.loads(call(*LARGE_DELTA, "--json").stdout)["warnings"]) == 1


def test_runs_lists_finished_and_failed_runs() -> None:
    assert json.loads(call("runs", "--json").stdout) == []
    assert "0 finished" in call("runs").stdout
    from fedlora_kit.experiments.store import Store

    store = Store()
    spec = {
        "method": {"name": "ffa-lora"},
        "data": {"task": "kit/polarity"},
        "model": {"backbone": "kit/text-tiny"},
        "privacy": {"epsilon": 6.0},
        "seed": 2,
    }
    with store.work("0" * 16, spec) as work:
        work.finish({"results.json": {"accuracy": float("nan")}, "history.jsonl": [], "provenance.json": {}})
    with store.work("f" * 16, {**spec, "privacy": None}) as work:
        work.fail({"error": "loss became NaN", "round": 3, "client": 1})
    done, failed = json.loads(call("runs", "--json").stdout)
    assert (done["key"], done["status"], done["spec"]["seed"]) == ("0" * 16, "finished", 2)
    assert done["results"] == {"accuracy": None}  # NaN is no JSON
    assert (failed["key"], failed["status"]) == ("f" * 16, "failed")
    assert failed["failure"]["round"] == 3
    table = call("runs").stdout
    assert "ffa-lora" in table
    assert "1 finished, 1 not" in table


def test_reproduce_writes_results_summary_and_page(home: Path) -> None:
    notebook(home, "start_here", "print(rounds)")
    notebook(home, "ffa-lora/table1", "raise ValueError('seven')")
    result = call("reproduce", "--set", "rounds=4", "--output", "out", "--jobs", "2")
    assert result.exit_code == 1
    out = home / "out" / "smoke"
    assert json.loads((out / "start_here" / "status.json").read_text())["parameters"]["rounds"] == 4
    assert "4\n" in (out / "start_here" / "notebook.log").read_text()
    assert "start_here: ok after" in result.stdout
    assert "ffa-lora/table1 failed: ValueError: seven" in result.stderr
    assert f"report: {out / 'index.html'}" in result.stdout
    assert "ValueError: seven" in (out / "index.html").read_text()
    again = call("reproduce", "start_here", "--set", "rounds=4", "--output", "out")
    assert again.exit_code == 0
    assert "unchanged" in again.stdout
    assert "Nothing has changed" in again.stdout


def test_ctrl_c_stops_the_kernel_and_keeps_what_was_there(home: Path) -> None:
    notebook(home, "start_here", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    scratch = home / "scratch" / ("x" * 60)  # too long a path for a socket
    scratch.mkdir(parents=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    words = [sys.executable, "-c", MAIN, "reproduce", "start_here"]
    process = subprocess.Popen(
        words,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    pid = home / "notebooks" / "pid"
    assert _within(90, lambda: pid.is_file() and pid.read_text() != "")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=40)
    assert process.returncode == 130, (stdout, stderr)
    assert "stopped" in stderr
    assert "Traceback" not in stderr
    assert _within(10, lambda: not Path(f"/proc/{pid.read_text()}").exists())
    assert not (home / "figures" / "smoke" / "start_here").exists()
    assert not list((home / "figures" / "smoke" / ".staging").glob("*"))
    assert not list(scratch.glob("fedlora-kernel-*"))  # the worker went its own way out


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_doctor_gives_a_verdict_for_each_check(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    checks = {record["check"]: record for record in json.loads(call("doctor", "--json").stdout)}
    asked = ["python", "packages", "folder", "kernel", "device", "mirror", "hub", "disk", "store"]
    assert list(checks) == asked
    assert checks["kernel"]["verdict"] == "ok"
    assert sys.executable in checks["kernel"]["found"]

    def broken() -> doctor.Check:
        raise FedloraError("it is broken", "mend it")

    monkeypatch.setattr(doctor, "kernel", broken)
    broken.__name__ = "kernel"
    monkeypatch.setenv("FEDLORA_HUB", str(home / "nowhere"))
    result = call("doctor")
    assert result.exit_code == 1
    assert "it is broken" in result.stdout
    assert "-> mend it" in result.stdout
    assert "there is no such folder" in result.stdout


def test_doctor_compares_versions_with_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_required", lambda: ["torch==2.13.0", "numpy>=2", 'x>=1; extra == "dev"'])
    versions = {"torch": "2.13.0+cpu", "numpy": "2.4"}
    assert doctor.packages(versions.__getitem__).verdict == "ok"
    assert doctor.packages({**versions, "numpy": "1.26"}.__getitem__).verdict == "warn"

    check = doctor.packages({}.get)
    assert check.verdict == "fail"
    assert "torch==2.13.0" in check.found


def test_doctor_judges_disk_and_mirror(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for free, verdict in ((2**40, "ok"), (2 * 2**30, "warn"), (2**20, "fail")):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        assert doctor.disk().verdict == verdict
    monkeypatch.setenv("FEDLORA_HUB", str(home))
    assert doctor.mirror().verdict == "fail"
    (home / "models" / "a").mkdir(parents=True)
    (home / "models" / "a" / "config.json").write_text("{}")
    assert doctor.mirror().verdict == "ok"


def test_backbones_are_listed_with_their_place() -> None:
    records = {record["name"]: record for record in json.loads(call("backbones", "list", "--json").stdout)}
    assert records["kit/text-tiny"]["place"] == "missing"
    assert "fedlora backbones build kit/text-tiny" in records["kit/text-tiny"]["note"]
    assert records["FacebookAI/roberta-base"]["place"] == "hub"


def test_report_is_written_again_without_running_anything(home: Path) -> None:
    notebook(home, "start_here", "raise SystemExit('this must not run')")
    result = call("report")
    assert result.exit_code == 0
    assert result.stdout == f"report: {home / 'figures/smoke/index.html'}\n"
    assert (home / "figures/smoke/index.html").stat().st_size > 10_000
    assert call("report", "--profile", "small", "--output", "elsewhere").exit_code == 0
    assert (home / "elsewhere/small/index.html").is_file()
    wrong = call("report", "--profile", "smok")
    assert wrong.exit_code == 2
    assert "smoke" in wrong.stderr
