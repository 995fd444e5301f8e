"""The runs of an item are those that its notebook asks for: run with a stand-in that records them."""

import ast
import importlib
import math
import re
from functools import partial
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import pytest

from fedlora_kit.batch.parameters import read_parameters
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments import run as one_run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.fed_hello import patterns
from fedlora_kit.papers.ffa_lora import alpha, figure1
from fedlora_kit.papers.items import ITEMS, find
from fedlora_kit.papers.lessons import at_scale
from fedlora_kit.papers.runs_of import planned_runs, runs_of
from fedlora_kit.running import many
from fedlora_kit.running.many import Finished

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
RUNS = [item.id for item in ITEMS]
ASKS = re.compile(r"\b(run_cells|run_all|run)\(")


class Nothing:
    """Stands for whatever a notebook reads from a run."""

    def __getitem__(self, _):
        return self

    def __getattr__(self, _):
        return self

    def __rmul__(self, _):
        return math.nan

    def __iter__(self):
        return iter(())


def notebook(item, suffix):
    return NOTEBOOKS / Path(find(item)[0].notebook).with_suffix(suffix)


def asked_by_notebook(item, folder, monkeypatch, **parameters):
    """Descriptions of the runs that the notebook asks for, where every run fails at once."""
    asked = []

    def run_all(specs, **_):
        asked.extend(spec.canonical() for spec in specs)
        return [Finished(spec, "0" * 16, None, {"error": "not trained"}) for spec in specs]

    def run(spec, **_):
        asked.append(spec.canonical())
        return Nothing()

    monkeypatch.setattr(many, "run_all", run_all)
    monkeypatch.setattr(one_run, "run", run)
    monkeypatch.setattr(plt, "show", lambda *_: None)
    cells = [c for c in jupytext.read(notebook(item, ".py")).cells if c.cell_type == "code"]
    last = max((i for i, c in enumerate(cells) if ASKS.search(c.source)), default=-1)
    place = {"__name__": "notebook"}
    for number, cell in enumerate(cells[: last + 1]):
        source = cell.source
        if "parameters" in cell.metadata.get("tags", []):
            source += f"\noutput_dir = {str(folder)!r}\ndevice = 'cpu'\n"
            source += "".join(
                f"{name} = {value!r}\n" for name, value in {**parameters, **find(item)[0].parameters}.items()
            )
        try:
            exec(compile(ast.parse(source), f"{item}, cell {number}", "exec"), place)
        except Exception:
            if number < last:  # what comes after the last runs needs their results
                raise
    plt.close("all")
    return asked


def once(values):
    return list(dict.fromkeys(values))


def test_every_item_has_its_runs_or_says_why_not():
    for item in RUNS:
        planned = planned_runs(item, "smoke")
        assert planned.first or "trains nothing" in planned.note


#: the parameters that decide an item's runs beyond its setting, and shorter ways to the same runs
CHANGED = {
    "start_here": {"seeds": 2},
    "ffa-lora/table1": {"seeds": 2, "tasks": ["polarity"], "epsilons": [0.0, 6.0], "clips": [1.0, 2.0]},
    "ffa-lora/table3": {"ranks": [8], "seeds": 2},
    "ffa-lora/alpha": {"seeds": 2, "alphas": [8.0, 16.0]},
    "ffa-lora/table4": {"alphas": [8.0], "rates": [0.1, 0.4]},
    "ffa-lora/discordance1": {"local_steps": [1, 3], "splits": ["iid"]},
    "ffa-lora/gsm8k": {"seeds": 1, "rates": [0.2], "holdout": 8},
    "fed-hello/table2_roc631": {"methods": ["lora", "flora"], "splits": ["iid"], "mode": "as_released"},
    "fed-hello/natural_instructions": {"methods": ["lora"], "train_limit": 200, "eval_limit": 4, "steps": 1},
    "fed-hello/strategies": {"split": "iid", "patterns": ["uniform"]},
    "fed-hello/proxy_data": {"sources": ["random", "external"], "seeds": 1},
    "fed-hello/fim_schedule": {"shares": [0.25], "split": "pat_20"},
    "fed-hello/released_vs_described": {"variants": ["as_described", "as_released"]},
    "fedlora-optimizer/method": {"axis": "vector", "steps": 1, "train_limit": 100, "eval_limit": 4},
    "fedlora-optimizer/preliminary": {"points": [1, 2], "batch_size": 4},
    "fedlora-optimizer/global": {"splits": ["cat_1"], "methods": ["lora", "ditto"]},
    "fedlora-optimizer/ablation": {"grid": "all", "seeds": 1},
    "fedlora-optimizer/open_choices": {"choices": ["axis", "personal_start"]},
}
#: lessons train a little in their own cells before they ask for runs, and ask in one line
LESSONS = {i for i in RUNS if i.startswith("lessons/")}
#: items whose notebook computes for seconds before its runs: with the parameters above alone
SLOW = {
    "fedlora-optimizer/method",
    "fed-hello/natural_instructions",
    "ffa-lora/table3",
    "ffa-lora/alpha",
}
#: their seeds if none are given, as the notebooks declare them
DEFAULT = {i: read_parameters(notebook(i, ".ipynb"))["seeds"].default for i in LESSONS}
CASES = [*((i, {}) for i in RUNS if i not in SLOW and i not in LESSONS), *CHANGED.items()]


@pytest.mark.parametrize(("item", "given"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_runs_are_those_that_the_notebook_asks_for(item, given, tmp_path, monkeypatch):
    planned = planned_runs(item, "smoke", **given)
    expected = [spec.canonical() for spec in [*planned.specs(), *planned.like_chosen()]]
    asked = asked_by_notebook(item, tmp_path, monkeypatch, **given)
    assert set(asked) == set(expected)
    assert len(expected) == len(set(expected)) == len(once(asked))


@pytest.mark.parametrize("item", sorted(LESSONS))
def test_a_lesson_asks_for_the_runs_of_its_module(item):
    cells = [c.source for c in jupytext.read(notebook(item, ".py")).cells if c.cell_type == "code"]
    asking = [source for source in cells if ASKS.search(source)]
    planned = planned_runs(item, "smoke")
    if not planned.first:
        assert not asking
        return
    (source,) = asking
    if "a method that only it knows" in planned.note:
        source = source.replace("grid.cells(setting)", "lesson.cells(seeds)")
    assert source.count("lesson.cells(seeds)") == 1
    module = importlib.import_module(f"fedlora_kit.papers.{item.replace('/', '.')}")
    assert planned.specs() == list({c.spec.canonical(): c.spec for c in module.cells(DEFAULT[item])}.values())


@pytest.mark.parametrize("item", RUNS)
def test_every_parameter_of_the_notebook_is_taken(item):
    declared = read_parameters(notebook(item, ".ipynb"))
    given = {name: p.default for name, p in declared.items() if name not in ("profile", "item")}
    assert planned_runs(item, "smoke", **given).specs() == planned_runs(item, "smoke").specs()


@pytest.mark.parametrize("item", [item for item in RUNS if planned_runs(item, "smoke").first])
@pytest.mark.parametrize("profile", ["small", "paper"])
def test_the_other_profiles_have_runs_too(item, profile):
    assert runs_of(item, profile)


def finished(store, spec, loss):
    scores = {part: {"final": 0.5, "loss": loss} for part in ("holdout", "test", "validation")}
    key = spec.key()
    with store.work(key, spec.model_dump(mode="json")) as work:
        work.finish({"results.json": {"scores": scores}, "provenance.json": {}, "history.jsonl": []})


def test_the_chosen_runs_are_known_when_the_whole_grid_is_in_the_store(tmp_path):
    store, given = Store(tmp_path / "runs"), {"seeds": 2}
    planned = planned_runs("ffa-lora/gsm8k", "smoke", **given)
    grid = runs_of("ffa-lora/gsm8k", "smoke", store=store, **given)
    assert grid == planned.specs()
    assert planned.chosen(store) is None
    losses = {0.1: 3.0, 0.3: 1.0, 1.0: 2.0}  # the grids are 0.1, 0.3 for LoRA and 1, 3 for FFA-LoRA
    for spec in grid:
        if spec.local.lr in losses:
            finished(store, spec, losses[spec.local.lr])
    assert runs_of("ffa-lora/gsm8k", "smoke", store=store, **given) == grid
    (worst,) = [spec for spec in grid if spec.local.lr == 3.0]
    with store.work(worst.key(), worst.model_dump(mode="json")) as work:
        work.fail({"error": "diverged"})
    chosen = runs_of("ffa-lora/gsm8k", "smoke", store=store, **given)[len(grid) :]
    assert [(s.method.name, s.local.lr, s.seed) for s in chosen] == [
        (method, lr, seed) for method, lr in (("lora", 0.3), ("ffa-lora", 1.0)) for seed in (0, 1)
    ]
    alike = planned.like_chosen()
    assert [s.model_copy(update={"local": None}) for s in alike] == [
        s.model_copy(update={"local": None}) for s in chosen
    ]
    assert len(alike) == len(chosen)


def test_every_run_is_named_once():
    for item in RUNS:
        specs = runs_of(item, "smoke")
        assert all(isinstance(spec, RunSpec) for spec in specs)
        assert len({spec.canonical() for spec in specs}) == len(specs)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="fed-hello/table9"):
        runs_of("fed-hello/table9", "smoke")
    for item in ("ffa-lora/table1", "fed-hello/table2", "fedlora-optimizer/global"):
        with pytest.raises(UnknownName, match="profile"):
            runs_of(item, "huge")
        with pytest.raises(UnknownName, match="colour"):
            runs_of(item, "smoke", colour="red")


@pytest.mark.parametrize("seeds", [0, -1, 1001, 10**20, True], ids=str)
def test_no_item_takes_an_impossible_number_of_seeds(seeds):
    without = {"ffa-lora/figure1", "fed-hello/patterns", "fed-hello/resources"}  # no runs in the store
    without |= {"lessons/privacy_audit", "lessons/at_scale"}
    asks = [partial(runs_of, item, "smoke") for item in RUNS if item not in without]
    asks += [figure1.measure, alpha.measure, partial(patterns.setting, "smoke")]
    for ask in (*asks, at_scale.shared_specs):
        with pytest.raises(BadValue, match=f"seeds={seeds}") as error:
            ask(seeds=seeds)
        assert "number of seeds, 1 to 1000" in error.value.remedy
