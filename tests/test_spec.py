"""A run's description: what it accepts, what it refuses, and its key."""

import importlib.util
import linecache
import sys

import pytest
import toy

from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import register_task
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments import spec as spec_module
from fedlora_kit.experiments.source import class_source
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import METHODS


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")


def changed(path, value):
    description = toy.description()
    place = description
    *way, last = path.split(".")
    for step in way:
        place = place.setdefault(step, {})
    place[last] = value
    return description


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("modell", {}, "modell"),
        (
            "model.rank",
            3,
            r"model\.rank.*allowed there: backbone, dtype, .*, lora, weights",
        ),
        ("model.lora.rank", 0, r"model\.lora\.rank = 0"),
        ("model.lora.alpha", -1, r"model\.lora\.alpha"),
        ("model.lora.head", "thawed", r"model\.lora\.head.*frozen"),
        ("local.lr", 0, r"local\.lr"),
        ("local.lr", "fast", r"local\.lr"),
        ("local.batch_size", 0, r"local\.batch_size"),
        ("rounds.rounds", 0, r"rounds\.rounds"),
        ("rounds.cohort", 9, "cohort=9 exceeds split.clients=3"),
        ("split.clients", 0, r"split\.clients"),
        ("privacy", {"epsilon": 0, "clip": 1}, r"privacy\.epsilon"),
        ("privacy", {"epsilon": -2}, r"privacy\.epsilon"),
        ("privacy", {"epsilon": 1, "clip": 0}, r"privacy\.clip"),
        ("privacy", {"epsilon": 1, "delta": 1.0}, r"privacy\.delta"),
        ("privacy", {"clip": 1.0}, "either epsilon or sigma"),
        ("privacy", {"epsilon": 1, "sigma": 1}, "either epsilon or sigma"),
        ("privacy", {"epsilon": 1, "epsilonn": 1}, r"privacy\.epsilonn.*allowed there: accountant, clip"),
        ("privacy", {"epsilon": 1, "clip": float("inf")}, r"privacy\.clip"),
        ("local.lr", float("inf"), r"local\.lr"),
        ("split.settings", {"seed": 3}, "use the run's seed"),
        ("seed", -1, "seed"),
        ("precision", "fp16", "precision"),
    ],
)
def test_impossible_values_name_the_key(path, value, named):
    with pytest.raises(BadValue, match=named):
        RunSpec.parse(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "candidates"),
    [
        ("data.task", "tooy", "toy"),
        ("model.backbone", "roberta-large", "FacebookAI/roberta-large"),
        ("method.name", "fedprox", "ffa-lora"),
        ("split.partitioner", "dirichle", "dirichlet"),
        ("split.settings", {"beta": 1}, "known: num_clients, seed"),
    ],
)
def test_unknown_names_list_the_known(path, value, candidates):
    with pytest.raises(UnknownName, match=candidates):
        RunSpec.parse(changed(path, value))


def test_a_missing_key_is_named():
    description = toy.description()
    del description["method"]
    with pytest.raises(BadValue, match="'method' is missing"):
        RunSpec.parse(description)


def test_clipping_belongs_to_one_place():
    description = changed("local.clip_norm", 1.0)
    description["privacy"] = {"epsilon": 1}
    with pytest.raises(BadValue, match="privacy.clip"):
        RunSpec.parse(description)


def test_the_key_is_stable_and_sees_every_change():
    base = RunSpec.parse(toy.description())
    assert base.key() == RunSpec.parse(toy.description()).key()
    assert RunSpec.parse(base.model_dump(mode="json")).key() == base.key()  # round trip through JSON
    spelled_out = RunSpec.parse(changed("model.weights", "pretrained"))
    assert spelled_out.key() == base.key()  # a default given or left out is the same run
    others = [
        changed("seed", 1),
        changed("local.lr", 0.21),
        changed("method.name", "ffa-lora"),
        changed("data.holdout", 11),
        changed("privacy", {"epsilon": 1.0}),
    ]
    assert len({base.key(), *(RunSpec.parse(d).key() for d in others)}) == 6


def test_the_key_follows_data_backbone_and_source(tmp_path, monkeypatch):
    base = RunSpec.parse(toy.description())
    keys = {base.key()}
    monkeypatch.setattr(spec_module, "source_digest", lambda: "other source")
    keys.add(base.key())
    monkeypatch.undo()
    toy.enter(tmp_path / "hub")
    config = tmp_path / "hub" / "models" / toy.BACKBONE / "config.json"
    config.write_text(config.read_text() + "\n")
    keys.add(base.key())
    monkeypatch.setattr(spec_module, "fingerprint", lambda task: "other data")
    keys.add(base.key())
    assert len(keys) == 4


def test_the_key_follows_the_definition_of_a_task():
    keys = set()
    for change in ({}, {"max_length": 8}, {"label_names": ("a", "b", "c")}):
        settings = {"label_names": ("even", "odd"), "max_length": 12, **change}
        register_task(
            Task("toy", "text", columns=("sentence",), loader=toy.examples, **settings), replace=True
        )
        keys.add(RunSpec.parse(toy.description()).key())
    assert len(keys) == 3


def test_the_key_follows_a_method_from_outside(tmp_path, monkeypatch):
    """A method defined by the user is not in the package's source: its own source counts."""
    keys = set()
    for rule in ("True", "'lora_B' in tensor"):
        file = tmp_path / "mine.py"
        file.write_text(
            "from fedlora_kit.methods import Method, register\n"
            "@register\nclass Mine(Method):\n    name = 'mine'\n"
            f"    def trains(self, tensor, client, round_index):\n        return {rule}\n"
        )
        linecache.clearcache()
        module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("mine", file))
        monkeypatch.setitem(sys.modules, "mine", module)
        module.__spec__.loader.exec_module(module)
        spec = RunSpec.parse(changed("method.name", "mine"))
        keys.add(spec.key())
        assert spec_module.external(spec)
    METHODS.pop("mine")
    assert len(keys) == 2


CELL = """from fedlora_kit.methods import FedIT, register
other = 1


@register
class Mine(FedIT):
    name = "mine"
{body}

more = 2
"""


def in_a_cell(body, number, monkeypatch):
    """Define Mine as a notebook cell does: no file behind the module, the text in linecache alone."""
    file, text = f"/nowhere/cell_{number}.py", CELL.format(body=body)
    monkeypatch.setitem(linecache.cache, file, (len(text), None, text.splitlines(keepends=True), file))
    place = {"__name__": "a_notebook"}
    exec(compile(text, file, "exec"), place)
    return place["Mine"]


def test_the_key_follows_a_method_of_a_notebook_cell(monkeypatch):
    keys = set()
    for number, rule in enumerate(("True", "'lora_B' in tensor", "'lora_B' in tensor")):
        body = f"    def trains(self, tensor, client, round_index):\n        return {rule}\n"
        cls = in_a_cell(body, number, monkeypatch)
        assert class_source(cls).startswith("@register\nclass Mine(FedIT):")
        assert class_source(cls).endswith(f"return {rule}\n")
        keys.add(RunSpec.parse(changed("method.name", "mine")).key())
    METHODS.pop("mine")
    assert len(keys) == 2


def test_a_class_whose_source_is_lost(monkeypatch):
    with pytest.raises(BadValue, match=r"source of Mine cannot be read(.|\n)*a method of its own"):
        class_source(in_a_cell("", 9, monkeypatch))
    METHODS.pop("mine")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("local.stack", "never", "local.stack=never"),
        ("model.lora", {"dropout": 0.1}, "model.lora.dropout=0.1"),
        ("model.gradient_checkpointing", True, "model.gradient_checkpointing"),
        ("local.stack", "auto", None),
    ],
)
def test_bf16_under_dp_needs_rows(path, value, said):
    description = changed(path, value)
    description |= {"precision": "bf16", "privacy": {"epsilon": 1}}
    if said is None:
        assert RunSpec.parse(description).precision == "bf16"
    else:
        with pytest.raises(BadValue, match=f"bf16.*under DP.*{said}"):
            RunSpec.parse(description)


def test_a_missing_model_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "empty"))
    with pytest.raises(FedloraError, match="models/FacebookAI/roberta-base"):
        RunSpec.parse(toy.description()).key()
