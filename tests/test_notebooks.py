"""Every notebook: both forms in step, the contract's parameters, and a smoke run of each.

The smoke runs are shared with everything that looks at their outputs, and cut down by parameters; the whole
of them is what `make reproduce` runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pandas as pd
import pytest
from filelock import FileLock, Timeout
from printed_tables import wrong_cells

from fedlora_kit.batch.order import Order
from fedlora_kit.batch.parameters import read_parameters
from fedlora_kit.batch.pipeline import reproduce
from fedlora_kit.data import get_task
from fedlora_kit.experiments.atomic import write_text
from fedlora_kit.papers.items import ITEMS, find

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SOURCES = sorted(path for path in NOTEBOOKS.rglob("*.py") if path.parent.name != "own")
sys.path.insert(0, str(ROOT / "tools"))
import sync_notebooks  # noqa: E402
from sync_notebooks import paired  # noqa: E402

SHORT = {"rounds": "2", "steps": "2", "rates": "0.1", "eval_limit": "60", "train_limit": "600"}
SHORT_HELLO = {"rounds": "2", "train_limit": "300", "eval_limit": "60"}
FED_HELLO = {"splits": "iid,pat_10", **SHORT_HELLO}
INSTRUCTIONS = {"rounds": "2", "batch_size": "4", "eval_limit": "8"}
FLO_TABLES = {"methods": "lora,local-only,fedlora-optimizer", "rounds": "1", "steps": "2", "eval_limit": "8"}
SHORT_FLO = {"rounds": "1", "steps": "1", "batch_size": "4", "eval_limit": "8"}
#: the smallest run of each notebook that still has everything a reader sees
CUT = {
    "start_here": {"seeds": "2"},
    "lessons/lora_and_fedavg": {"seeds": "2"},
    "lessons/partitions": {"seeds": "2"},
    "lessons/ffa_lora": {"seeds": "2"},
    "lessons/dp_sgd": {"seeds": "2"},
    "lessons/privacy_audit": {"seeds": "2"},
    "lessons/layer_allocation": {"seeds": "2"},
    "lessons/directions_and_magnitudes": {"seeds": "2"},
    "lessons/your_own_method": {"seeds": "2"},
    "lessons/at_scale": {"seeds": "2"},
    "ffa-lora/figure1": {"seeds": "2"},
    "ffa-lora/table1": {
        "seeds": "2",
        "tasks": "entailment,polarity",
        "epsilons": "0,6",
        **SHORT,
    },
    "ffa-lora/table2": {"seeds": "2", "tasks": "entailment", "splits": "iid,severe", **SHORT},
    "ffa-lora/table3": {"seeds": "2", "tasks": "polarity", "ranks": "8,16", **SHORT},
    "ffa-lora/table4": {"seeds": "2", "alphas": "8,16", **SHORT, "rates": "0.1,0.4"},
    "ffa-lora/table5": {"seeds": "2", "ranks": "2,16", "epsilons": "1", **SHORT},
    "ffa-lora/alpha": {"seeds": "2", "alphas": "8,16", **SHORT, "rates": "0.1,0.4"},
    "ffa-lora/init_of_a": {"seeds": "2", **SHORT},
    "ffa-lora/discordance1": {
        "seeds": "2",
        "splits": "iid,severe",
        "local_steps": "1,2",
        "rounds": "2",
        "eval_limit": "60",
        "train_limit": "600",
    },
    "ffa-lora/food101": {
        "seeds": "2",
        "epsilons": "0,6",
        "rounds": "2",
        "steps": "2",
        "rates": "0.3",
        "eval_limit": "60",
    },
    "ffa-lora/gsm8k": {
        "seeds": "2",
        "rounds": "1",
        "steps": "2",
        "batch_size": "4",
        "rates": "0.2",
        "holdout": "8",
        "eval_limit": "8",
        "max_new_tokens": "16",
    },
    "fed-hello/patterns": {"seeds": "2", "draws": "50"},
    "fed-hello/table2": {"seeds": "2", "methods": "exclusive,hetlora,fed-hello", **FED_HELLO},
    "fed-hello/table2_roc631": {"seeds": "2", "methods": "hetlora,fed-hello", **FED_HELLO},
    "fed-hello/curves": {"seeds": "2", "methods": "exclusive,hetlora,fed-hello", **FED_HELLO},
    "fed-hello/strategies": {"seeds": "2", "patterns": "bottleneck,uniform", **SHORT_HELLO},
    "fed-hello/released_vs_described": {
        "seeds": "2",
        "variants": "as_described,unordered_levels,as_released",
        **SHORT_HELLO,
    },
    "fed-hello/proxy_data": {"seeds": "2", **SHORT_HELLO},
    "fed-hello/fim_schedule": {"seeds": "2", **SHORT_HELLO, "rounds": "4", "shares": "0.25,0.5"},
    "fed-hello/domainnet": {
        "seeds": "2",
        "methods": "fedra,fed-hello",
        "splits": "iid,pat_10",
        "rounds": "3",
        "eval_limit": "60",
    },
    "fed-hello/ledgar": {
        "seeds": "2",
        "methods": "fedra,fed-hello",
        "splits": "iid,pat_20",
        "rounds": "6",
        "train_limit": "200",
        "eval_limit": "60",
    },
    "fed-hello/dolly": {"seeds": "2", "methods": "exclusive,hetlora,fed-hello", **INSTRUCTIONS},
    "fed-hello/natural_instructions": {"seeds": "2", "methods": "exclusive,fed-hello", **INSTRUCTIONS},
    "fedlora-optimizer/method": {"seeds": "1", "rounds": "1", "steps": "2", "eval_limit": "8"},
    "fedlora-optimizer/preliminary": {"seeds": "2", "points": "1,2", "batch_size": "4"},
    "fedlora-optimizer/global": {"seeds": "2", "splits": "cat_1", **FLO_TABLES},
    "fedlora-optimizer/local": {"seeds": "2", "splits": "cat_1", **FLO_TABLES},
    "fedlora-optimizer/ablation": {"seeds": "2", **SHORT_FLO},
    "fedlora-optimizer/open_choices": {"seeds": "2", "choices": "axis,personal_start", **SHORT_FLO},
    "fed-hello/resources": {"methods": "exclusive,hetlora,fed-hello"},
}


def ids(path):
    return str(path.relative_to(NOTEBOOKS).with_suffix(""))


def test_every_notebook_has_both_forms_and_an_item():
    forms = {
        p.with_suffix("")
        for p in NOTEBOOKS.rglob("*.ipynb")
        if not {".ipynb_checkpoints", "own"} & set(p.parts)
    }
    assert forms == {p.with_suffix("") for p in SOURCES}
    assert {f"{ids(p)}.ipynb" for p in SOURCES} == {i.notebook for i in ITEMS}
    assert {i.id for i in ITEMS} == set(CUT)


def test_make_notebooks_leaves_the_users_own_alone(tmp_path, monkeypatch, capsys):
    """One may have been edited as .ipynb alone; no locale decides how the others are read."""
    monkeypatch.setattr(sync_notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    for name in ("own/mine", "paper/table"):
        path = tmp_path / "notebooks" / f"{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text("# %% [markdown]\n# ε = 1\n", "utf-8")
        path.with_suffix(".ipynb").write_text("edited by hand: ε", "utf-8")
    assert sync_notebooks.main() == 0
    assert capsys.readouterr().out.splitlines() == ["wrote notebooks/paper/table.ipynb"]
    assert (tmp_path / "notebooks/own/mine.ipynb").read_text("utf-8") == "edited by hand: ε"
    assert "ε = 1" in (tmp_path / "notebooks/paper/table.ipynb").read_text("utf-8")


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_both_forms_are_in_step(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    expected = paired(source)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [
        (c.cell_type, c.source) for c in expected.cells
    ], "run: make notebooks"
    assert nbformat.writes(notebook) == nbformat.writes(expected)
    assert not any(c.get("outputs") for c in notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"
    assert jupytext.reads(jupytext.writes(notebook, "py:percent"), "py:percent").cells


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_the_parameters_of_the_contract(source):
    parameters = read_parameters(source.with_suffix(".ipynb"))
    assert {"profile", "seeds", "device", "output_dir"} <= set(parameters)
    assert parameters["profile"].default == "smoke"
    assert all(p.help for p in parameters.values())


def test_what_notebooks_use_is_there():
    from fedlora_kit import notebook

    for source in SOURCES:
        used = set(re.findall(r"\bkit\.([a-z_]+)", source.read_text("utf-8")))
        assert used <= set(dir(notebook)), source.name


#: what a notebook says, rightly, while another test process's notebook trains a run that both want
WAITING = re.compile(r"run [0-9a-f]{16}: waiting for process \d+, which is working on it")


class Smoke:
    """Runs each notebook once, as `fedlora reproduce` does it, whichever test process comes first to it.

    All share one store of runs. A process that wants a notebook which another one is running runs one that
    nobody has begun in the meantime: so all cores are busy, with one run at a time in each process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.settings = {"FEDLORA_RUNS": str(self.runs), "FEDLORA_JOBS": "1"}

    def __call__(self, item: str) -> tuple[Path, SimpleNamespace]:
        """The folder of an item's outputs, and its status."""
        while not self._record(item).exists():
            if not (self._try(item) or any(self._try(other) for other in CUT)):
                time.sleep(0.5)
        status = json.loads(self._record(item).read_text())
        return self._out(item) / "smoke" / item, SimpleNamespace(**status)

    def _out(self, item: str) -> Path:
        return self.folder / item.replace("/", "-")

    def _record(self, item: str) -> Path:
        return self._out(item) / "status.json"

    def _try(self, item: str) -> bool:
        """Run it, unless it is done or another process is at it."""
        self._out(item).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._out(item) / ".lock", timeout=0):
                if self._record(item).exists():
                    return False
                with pytest.MonkeyPatch.context() as patch:  # each test has set a store of its own
                    for name, value in self.settings.items():
                        patch.setenv(name, value)
                    order = Order(find(item), settings=CUT[item], place=self._out(item))
                    (status,) = reproduce(order).statuses
                said = json.dumps({"status": status.status, "error": status.error})
                write_text(self._record(item), said)
                return True
        except Timeout:
            return False


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id):
    base = tmp_path_factory.getbasetemp()
    return Smoke((base if worker_id == "master" else base.parent) / "smoke")


@pytest.mark.slow
@pytest.mark.parametrize("item", CUT)
def test_a_notebook_runs_and_leaves_what_it_owes(smoke, item):
    folder, status = smoke(item)
    assert status.status == "ok", status.error
    kind = find(item)[0].kind
    owed = {"notebook.ipynb", "notebook.log", "status.json", "claims.json", "deviations.json"}
    owed |= (
        {"figure.svg", "figure.png"}
        if kind in {"figure", "lesson"}
        else {"table.csv", "table.md", "comparison.csv"}
    )
    present = {p.name for p in folder.iterdir()}
    assert owed <= present
    for claim in json.loads((folder / "claims.json").read_text()):
        assert claim["status"] in {"reproduced", "not reproduced", "not testable"}
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    outputs = [o for c in executed.cells if c.cell_type == "code" for o in c.outputs]
    assert outputs
    for cell in executed.cells:
        if (
            cell.cell_type == "code" and "partition_figure(" in cell.source
        ):  # the picture of the split is seen
            assert any("image/png" in o.get("data", {}) for o in cell.outputs)
    said = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    noise = [line for text in said for line in text.splitlines() if not WAITING.fullmatch(line)]
    assert not noise, noise[0]
    assert str(ROOT) not in (folder / "notebook.ipynb").read_text()  # no path of the machine


@pytest.mark.slow
@pytest.mark.parametrize("item", CUT)
def test_a_printed_table_is_its_csv(smoke, item):
    folder, status = smoke(item)
    assert status.status == "ok", status.error
    assert wrong_cells(folder) == []


@pytest.mark.slow
def test_table1_numbers_are_those_of_the_store(smoke):
    folder, status = smoke("ffa-lora/table1")
    assert status.status == "ok", status.error
    results = pd.read_csv(folder / "results.csv")
    from fedlora_kit.experiments.store import Store

    store = Store(smoke.runs)
    parts = {**get_task("entailment").parts, **get_task("polarity").parts}
    assert set(results["task"]) == set(parts)
    for row in results.itertuples():
        entry = store.load(row.key)
        assert entry is not None
        assert row.accuracy == pytest.approx(100 * entry.results["scores"][parts[row.task]]["final"])
        assert entry.spec["seed"] == row.seed
    comparison = pd.read_csv(folder / "comparison.csv")
    cell = "eps=6|method=ffa-lora|task=mnli-matched"
    mine = results[
        (results["eps"].astype(str) == "6")
        & (results["method"] == "ffa-lora")
        & (results["task"] == "entailment-matched")
    ]
    row = comparison[comparison["cell"] == cell].iloc[0]
    assert row["published"] == 78.81
    assert row["reproduced_mean"] == pytest.approx(mine["accuracy"].mean())
    assert row["n_seeds"] == 2
    assert not row["comparable"]
    ledger = pd.read_csv(folder / "privacy.csv")
    assert (ledger["epsilon"] <= 6).all()
    assert (ledger["T"] == 4).all()


@pytest.mark.slow
def test_plain_papermill_runs_a_notebook(tmp_path):
    """By hand, from any folder, as the README says."""
    source = NOTEBOOKS / "ffa-lora" / "figure1.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), "out.ipynb", "-p", "profile", "smoke"]
    command += ["-p", "seeds", "2", "-p", "output_dir", str(tmp_path / "figures")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "figures/smoke/ffa-lora/figure1/figure.svg").exists()
