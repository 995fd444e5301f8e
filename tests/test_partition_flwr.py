"""Partitioners of flwr-datasets in place of the kit's, and the kit's on a `datasets.Dataset`."""

from __future__ import annotations

import doctest
import importlib.util
import sys
import types

import datasets
import numpy as np
import pytest

from fedlora_kit.conformance.partitions import CHECKS, GROUPS, LABELS
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments.spec import RunSpec, SplitSpec
from fedlora_kit.partition import of_dataset, partition_dataset, partitioner

#: the library itself, where it is installed; a stand-in of the same protocol otherwise
REAL = importlib.util.find_spec("flwr_datasets") is not None


class Partitioner:
    """The protocol of flwr-datasets: a data set is assigned, and parts are loaded by number."""

    dataset: datasets.Dataset


class EveryNth(Partitioner):
    """Rows of a column's sorted values in turn."""

    def __init__(self, num_partitions: int, partition_by: str, skip: int = 0, seed: int | None = 42) -> None:
        if skip < 0:
            raise ValueError("skip is negative")
        self.num_partitions, self._by, self._skip = num_partitions, partition_by, skip

    def load_partition(self, partition_id: int) -> datasets.Dataset:
        if self._skip > len(self.dataset):
            raise ValueError("nothing is left")
        order = np.argsort(self.dataset[self._by][:], kind="stable")[self._skip :]
        return self.dataset.select(order[partition_id :: self.num_partitions])


class ByValue(Partitioner):
    """One part a value of a column."""

    def __init__(self, partition_by: str) -> None:
        self._by = partition_by

    @property
    def num_partitions(self) -> int:
        return len(self.dataset.unique(self._by))

    def load_partition(self, partition_id: int) -> datasets.Dataset:
        wanted = sorted(self.dataset.unique(self._by))[partition_id]
        return self.dataset.filter(lambda row: row[self._by] == wanted)


@pytest.fixture
def stand_in(monkeypatch):
    module = types.ModuleType("flwr_datasets.partitioner")
    module.Partitioner, module.EveryNth, module.ByValue = Partitioner, EveryNth, ByValue
    monkeypatch.setitem(sys.modules, "flwr_datasets", types.ModuleType("flwr_datasets"))
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", module)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_holds_what_every_partitioner_holds(stand_in, check):
    check("flwr:EveryNth", {"num_clients": 5})


def test_labels_groups_and_settings_reach_the_library(stand_in):
    by_label = partitioner("flwr:ByValue", num_clients=4).split(LABELS)
    assert [set(LABELS[part]) for part in by_label] == [{0}, {1}, {2}, {3}]
    by_group = partitioner("flwr:ByValue", num_clients=2, partition_by="group").split(LABELS, groups=GROUPS)
    assert [set(GROUPS[part]) for part in by_group] == [{0}, {1}]
    parts = partitioner("flwr:EveryNth", num_clients=2, skip=100).split(LABELS)
    assert sum(map(len, parts)) == LABELS.size - 100


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("NoSuch", {}, "unknown partitioner of flwr-datasets 'NoSuch'\n.*known: ByValue, EveryNth"),
        ("EveryNth", {"skp": 1}, "unknown setting of flwr:EveryNth 'skp'\n.*did you mean 'skip'"),
        ("EveryNth", {"num_partitions": 3}, "unknown setting"),
        ("EveryNth", {"skip": -1}, "flwr:EveryNth: skip is negative"),
        ("EveryNth", {"skip": {1}}, "settings of flwr:EveryNth"),
        ("EveryNth", {"skip": 1000}, "cannot split these data: nothing is left"),
        ("ByValue", {}, "makes 4 parts of these data, for 3 clients\n.*num_clients=4"),
        ("ByValue", {"partition_by": "group"}, "cannot split these data"),
    ],
)
def test_what_the_library_refuses_is_one_error(stand_in, kind, settings, said):
    with pytest.raises((BadValue, UnknownName), match=said):
        partitioner(f"flwr:{kind}", num_clients=3, **settings).split(LABELS)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    with pytest.raises(FedloraError, match="not installed\n.*pip install --no-deps flwr-datasets"):
        partitioner("flwr:IidPartitioner", num_clients=3)


def test_it_stands_in_a_runs_description_and_key(stand_in, monkeypatch):
    from fedlora_kit.experiments import spec as module

    def key(release):
        monkeypatch.setattr(module, "release", lambda name: {"flwr-datasets": release}[name])
        return RunSpec.parse(
            {
                "model": {"backbone": "kit/text-tiny"},
                "data": {"task": "polarity"},
                "method": {"name": "lora"},
                "local": {"lr": 0.1, "steps": 1, "batch_size": 4},
                "rounds": {"rounds": 1},
                "split": {"partitioner": "flwr:EveryNth", "clients": 3, "settings": {"skip": 2}},
            }
        ).key()

    assert key("0.6.1") == key("0.6.1") != key("0.7.0")
    with pytest.raises(UnknownName, match="skp"):
        SplitSpec(partitioner="flwr:EveryNth", settings={"skp": 2})


@pytest.mark.skipif(not REAL, reason="flwr-datasets is not installed")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("IidPartitioner", {}), ("DirichletPartitioner", {"alpha": 0.5}), ("LinearPartitioner", {})],
)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_librarys_own_hold_it_too(check, kind, settings):
    check(f"flwr:{kind}", {"num_clients": 5, **settings})


def test_the_kits_partitioners_split_a_dataset():
    assert doctest.testmod(of_dataset).failed == 0
    rows = {"n": list(range(12)), "label": [0, 1, 2] * 4, "site": ["a"] * 5 + ["b"] * 7}
    table = datasets.Dataset.from_dict(rows).cast_column("label", datasets.ClassLabel(names=["x", "y", "z"]))
    parts = partition_dataset(table, partitioner("by_group", num_clients=2), group_column="site")
    assert sorted(part["n"][:] for part in parts) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]]
    assert parts[0].features["label"].names == ["x", "y", "z"]
    with pytest.raises(UnknownName, match="column of the data set 'lable'"):
        partition_dataset(table, partitioner("iid", num_clients=2), "lable")
    with pytest.raises(BadValue, match="cannot share"):
        partition_dataset(table, partitioner("iid", num_clients=20))
    gap = datasets.Dataset.from_dict({"label": ["x", None, "y"]})
    with pytest.raises(BadValue, match="column label is empty in row 1"):
        partition_dataset(gap, partitioner("iid", num_clients=2))
