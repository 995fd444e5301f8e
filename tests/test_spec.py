"""A run's description: what it accepts, what it refuses, and its key."""

import pytest
import toy
from cells import cell
from packaging.version import Version

from fedlora_kit.data.prompts import PROMPTS, Template
from fedlora_kit.data.task import Task
from fedlora_kit.data.tasks import TASKS, register_task
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments import libraries, own_parts
from fedlora_kit.experiments import spec as spec_module
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import METHODS
from fedlora_kit.partition.base import _REGISTRY


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
        ("model.backbone", "roberta-large", "no name of a model\n.*did you mean 'FacebookAI/roberta-large'"),
    ],
)
def test_impossible_values_name_the_key(path, value, named):
    with pytest.raises(BadValue, match=named):
        RunSpec.parse(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "candidates"),
    [
        ("data.task", "tooy", "toy"),
        ("model.backbone", "kit/text-tinny", "did you mean 'kit/text-tiny'"),
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


OWN = """
import numpy as np
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.data.tasks import register_task
from fedlora_kit.methods import FedIT, register
from fedlora_kit.partition import Partitioner
from fedlora_kit.partition import register as register_partitioner

RATE = 1
NOTHING = 0

def helper(x):
    return RATE * x

def rows(split):
    return Examples((["w1", "w2", "w3"] * 20,), np.array([0, helper(1), 0] * 20))

class _Base(FedIT):
    def rank(self, client):
        return helper(2)

@register
class Mine(_Base):
    name = "mine"

@register_partitioner
class ByMine(Partitioner):
    name = "by-mine"
    def _deal(self, labels, groups):
        return np.array_split(np.arange(len(labels)), self.num_clients - helper(0))

register_task(Task("my-task", "text", ("even", "odd"), ("sentence",), loader=rows), replace=True)
"""


@pytest.fixture
def forget():
    yield
    METHODS.pop("mine", None)
    _REGISTRY.pop("by-mine", None)
    TASKS.pop("my-task", None)


@pytest.mark.parametrize(
    ("path", "name"), [("method.name", "mine"), ("split.partitioner", "by-mine"), ("data.task", "my-task")]
)
def test_the_key_follows_what_code_of_one_s_own_uses(path, name, forget):
    """A constant behind a helper, whichever of the three it decides about."""
    keys = []
    for source in (OWN, OWN.replace("RATE = 1", "RATE = 0"), OWN.replace("NOTHING = 0", "NOTHING = 3"), OWN):
        cell(source)
        spec = RunSpec.parse(changed(path, name))
        keys.append(spec.key())
        assert own_parts.external(spec)
    assert keys[0] == keys[2] == keys[3] != keys[1]
    plain = RunSpec.parse(toy.description())
    before = plain.key()
    cell(OWN.replace("RATE = 1", "RATE = 0"))
    assert plain.key() == before


def test_the_key_follows_the_text_of_a_prompt(monkeypatch):
    def key(task, **data):
        description = changed("data", {"task": task, **data})
        return RunSpec.parse({**description, "model": {"backbone": "kit/causal-tiny"}}).key()

    for task, data in (("arithmetic", {}), ("arithmetic", {"prompt": "alpaca"})):
        before = key(task, **data)
        name = data.get("prompt", "plain")
        with monkeypatch.context() as patch:
            patch.setitem(PROMPTS, name, Template("Q: {instruction}", "Q: {instruction} {input}"))
            assert key(task, **data) != before
        assert key(task, **data) == before


def as_if_installed(folder, monkeypatch, **releases):
    """Distributions of other releases in front of those that are there, as another machine has them."""
    for name, release in releases.items():
        about = folder / f"{name}-{release}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")
    monkeypatch.syspath_prepend(folder)
    libraries.releases.cache_clear()


@pytest.fixture
def own_releases():
    yield
    libraries.releases.cache_clear()


def test_machines_with_and_without_a_gpu_share_runs(tmp_path, monkeypatch, own_releases):
    """Builds of one release differ in the local part of their version alone."""
    spec, release = RunSpec.parse(toy.description()), libraries.releases()["torch"]
    keys = []
    for number, other in enumerate((release, f"{release}+cpu", f"{release}+cu128", f"{release}.post1")):
        with monkeypatch.context() as patch:
            as_if_installed(tmp_path / str(number), patch, torch=other)
            keys.append(spec.key())
            assert libraries.releases()["torch"] == Version(other).public
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_library_that_is_not_installed_is_one_clear_error(monkeypatch, own_releases):
    monkeypatch.setattr(libraries, "COMPUTES", (*libraries.COMPUTES, "not-there-at-all"))
    libraries.releases.cache_clear()
    with pytest.raises(FedloraError, match="not installed: not-there-at-all") as raised:
        RunSpec.parse(toy.description()).key()
    assert "pip install not-there-at-all" in raised.value.remedy


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
    with pytest.raises(BadValue, match="empty, and there is no such folder"):
        RunSpec.parse(toy.description()).key()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedloraError, match="models/FacebookAI/roberta-base"):
        RunSpec.parse(toy.description()).key()
