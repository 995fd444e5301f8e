"""What stays with the clients: little memory, the same bits, checkpoints that write what changed."""

from __future__ import annotations

import copy
import gc
import os
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from store_tools import KEY, SPEC, child, killed_again_and_again, killing, tree, wait
from tiny import federation

from fedlora_kit.adapter import digest
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.atomic import DamageWarning
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.training import client_states
from fedlora_kit.training.client_states import ClientStates
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings

TEMPORARY = "fedlora-clients-*"


def state(seed: int, size: int = 6) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    whole = torch.randn(size, 2, generator=rng)
    return {"b": whole[:, 0], "m": whole.double(), "nan": torch.tensor(float("nan"))}


@pytest.fixture
def no_memory(monkeypatch):
    """Every state goes to its file at once."""
    monkeypatch.setattr(client_states, "MEMORY", 0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


# --- a dictionary in files -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    memory=st.sampled_from([0, 100, 300, 10_000]),
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["set", "get", "files"])), max_size=30),
)
def test_it_is_a_dictionary_whatever_the_memory(memory, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_states, "MEMORY", memory)
        states, oracle = ClientStates(), {}
        for seed, (client, what) in enumerate(steps):
            if what == "set":
                states[client] = oracle[client] = state(seed)
            elif what == "files":
                assert [name.split("-")[1] for name in states.files()] == [f"{k:05d}" for k in sorted(oracle)]
            else:
                assert (states.get(client) is None) == (client not in oracle)
            assert (len(states), list(states), client in states) == (
                len(oracle),
                sorted(oracle),
                client in oracle,
            )
        assert {k: digest(own) for k, own in states.items()} == {k: digest(own) for k, own in oracle.items()}
        assert all(t.dtype == oracle[k][n].dtype for k, own in states.items() for n, t in own.items())


def test_memory_does_not_grow_with_the_clients(place, monkeypatch):
    monkeypatch.setattr(client_states, "MEMORY", 50_000)

    def alive() -> int:
        storages = [t.untyped_storage() for t in gc.get_objects() if type(t) is torch.Tensor]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    before = alive()
    states = ClientStates()
    for k in range(200):
        big = torch.full((10_000,), float(k))
        states[k] = {"b": big[:1000]}  # a view, 4,000 bytes of 40,000
        del big
    assert alive() - before <= 50_000
    (folder,) = place.glob(TEMPORARY)
    assert len(list(folder.iterdir())) >= 180
    for k in reversed(range(200)):
        assert states[k]["b"].tolist() == [float(k)] * 1000
    assert alive() - before <= 50_000


def test_a_temporary_folder_holds_one_file_a_client_and_goes_with_its_object(place, no_memory):
    states = ClientStates()
    for seed in range(9):
        states[seed % 3] = state(seed)
    states[2] = state(8)  # nothing new
    (folder,) = place.glob(TEMPORARY)
    assert sorted(os.listdir(folder)) == list(states.files())
    del states
    assert not list(place.iterdir())


def test_little_needs_no_folder(place):
    states = ClientStates()
    states[0] = state(0)
    assert digest(states[0]) == digest(state(0))
    assert not list(place.iterdir())


def test_a_given_folder_keeps_earlier_files_and_gives_all_back(tmp_path):
    states = ClientStates(folder=tmp_path / "made")
    states[7], states[100_000] = state(0), state(1)
    first = states.files()
    states[7] = state(2)
    second = states.files()
    assert len(first.keys() & second.keys()) == 1
    assert sorted(os.listdir(tmp_path / "made")) == sorted(first | second)
    for files, seed in ((first, 0), (second, 2)):
        again = ClientStates(folder=tmp_path / "made", files=files)
        assert (list(again), again.files()) == ([7, 100_000], files)
        assert digest(again[7]) == digest(state(seed))
    plain = load_file(tmp_path / "made" / next(iter(second)))  # plain safetensors
    assert digest(plain) == digest(state(2))


def test_a_copy_is_on_its_own(no_memory):
    states = ClientStates()
    states[0] = state(0)
    other = copy.deepcopy(states)
    states[0] = state(1)
    assert digest(other[0]) == digest(state(0))
    del states
    assert digest(other[0]) == digest(state(0))


def test_what_cannot_be_done(tmp_path, no_memory):
    states = ClientStates(folder=tmp_path / "f")
    states[0] = state(0)
    (name,) = states.files()
    path = tmp_path / "f" / name
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(content)
        with pytest.raises(FedloraError, match="damaged or gone"):
            states[0]
    path.unlink()
    with pytest.raises(FedloraError, match="damaged or gone"):
        states[0]
    with pytest.raises(FedloraError, match="cannot be taken out"):
        del states[0]
    with pytest.raises(KeyError):
        states[1]
    (tmp_path / "file").write_text("")
    states = ClientStates(folder=tmp_path / "file")
    with pytest.raises(FedloraError, match=r"cannot write the tensors of a client(.|\n)*TMPDIR"):
        states[0] = state(0)


PERSONAL = {
    "fedsa-lora": {},
    "ditto": {"lora": LoraSettings(rank=2, head="personal")},
    "fedlora-optimizer": {
        "settings": {
            "global_data": "clients",
            "local_when": "every_round",
            "personal_start": "carried",
        }
    },
}


@pytest.mark.parametrize("name", PERSONAL)
def test_a_federation_ends_the_same_whether_states_are_in_memory_or_in_files(name, monkeypatch):
    ends = []
    for memory in (2**24, 3000, 0):
        monkeypatch.setattr(client_states, "MEMORY", memory)
        fed = federation(
            name, (6, 5, 7, 4, 6), rounds=FederationSettings(rounds=4, cohort=3), **PERSONAL[name]
        )
        end = run_federation(fed)
        own = {k: digest(t) for k, t in end.personal.items()}
        ends.append((digest(end.state), own, end.history))
    assert ends[0] == ends[1] == ends[2]


# --- checkpoints -----------------------------------------------------------------------------------


def saved(folder: Path, rounds: int, clients: int = 4) -> CheckpointFolder:
    """Round r changes client r % clients."""
    checkpoints = CheckpointFolder(folder)
    states = ClientStates(folder=folder)
    for r in range(rounds):
        states[r % clients] = state(r)
        checkpoints.save(r, {"x": torch.tensor(r)}, {"round": r}, states.files())
    return checkpoints


def test_a_checkpoint_writes_what_changed_and_old_files_go(tmp_path):
    checkpoints = saved(tmp_path, 4)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    states = ClientStates(folder=tmp_path, files=checkpoints.load_latest().files)
    states[1] = state(50)
    checkpoints.save(4, {}, {}, states.files())
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert len(after.keys() - before.keys()) == 2  # the round, and client 1
    assert all(after[name] == before[name] for name in after.keys() & before.keys())
    referred = checkpoints.files(3) | checkpoints.files(4)
    assert len(referred) == 5
    assert after.keys() == {"round-000003.safetensors", "round-000004.safetensors", *referred}
    checkpoints.save(5, {}, {}, states.files())
    assert len(os.listdir(tmp_path)) == 2 + 4
    checkpoints.save(6, {}, {})
    checkpoints.save(7, {}, {})
    assert sorted(os.listdir(tmp_path)) == ["round-000006.safetensors", "round-000007.safetensors"]


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_client_file_damages_its_checkpoint(tmp_path, harm):
    checkpoints = saved(tmp_path, 6)
    (new,) = checkpoints.files(5).keys() - checkpoints.files(4).keys()
    content = (tmp_path / new).read_bytes()
    if harm == "gone":
        (tmp_path / new).unlink()
    else:
        bad = content[:-1] + (bytes([content[-1] ^ 8]) if harm == "flip" else b"")
        (tmp_path / new).write_bytes(bad)
    with pytest.warns(DamageWarning, match=rf"round-000005.*{new}"):
        found = checkpoints.load_latest()
    assert (found.round_index, len(found.files)) == (4, 4)
    states = ClientStates(folder=tmp_path, files=found.files)
    assert digest(states[1]) == digest(state(1))
    states[1] = state(5)  # the round once more: the whole file takes the damaged one's place
    checkpoints.save(5, {}, {}, states.files())
    assert (tmp_path / new).read_bytes() == content
    assert checkpoints.load_latest().round_index == 5


def test_a_damaged_file_that_both_checkpoints_need_damages_both(tmp_path):
    checkpoints = saved(tmp_path, 6)
    shared = sorted(checkpoints.files(5).keys() & checkpoints.files(4).keys())[0]
    (tmp_path / shared).write_bytes(b"rubbish")
    with pytest.warns(DamageWarning) as seen:
        assert checkpoints.load_latest() is None
    assert len(seen) == 2


def test_a_checkpoint_names_only_what_is_there(tmp_path):
    checkpoints = saved(tmp_path, 1)
    with pytest.raises(BadValue, match="client-00009-x.safetensors is not in"):
        checkpoints.save(1, {}, {}, {"client-00009-x.safetensors": "0" * 64})
    assert checkpoints.load_latest().round_index == 0


def train(store: Store, rounds: int = 3) -> None:
    """A toy run of two clients in turn; goes on from the latest checkpoint."""
    with store.work(KEY, SPEC) as work:
        if work.entry is not None:
            return
        latest = work.checkpoints.load_latest()
        start, files = (0, None) if latest is None else (latest.round_index + 1, latest.files)
        states = ClientStates(folder=work.checkpoints.folder, files=files)
        for index in range(start, rounds):
            own = states.get(index % 2, {"b": torch.tensor([1.0, 2.0])})
            states[index % 2] = {"b": (own["b"] * 1.7 + index).sin()}
            work.checkpoints.save(index, {}, {}, states.files())
        data = {"results.json": {}, "history.jsonl": [], "provenance.json": {}}
        work.finish({**data, **{f"b/{k}": own["b"].numpy().tobytes() for k, own in states.items()}})


def test_killed_before_any_step_it_ends_bit_identical(tmp_path, no_memory):
    train(Store(tmp_path / "reference"))
    expected = tree(tmp_path / "reference")
    step, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += 1
        store = Store(tmp_path / "runs")

        def body(store=store, step=step):
            killing(step)
            train(store)

        with child(body) as pid:
            code = wait(pid)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing half-written may look like damage
            train(store)
        assert tree(store.root) == expected, f"killed before step {step}"
        shutil.rmtree(store.root)
    assert (code, step > 60) == (0, True)


# --- whole runs --------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")
    return tmp_path / "hub"


def personalised(name: str, rounds: int) -> RunSpec:
    changes = {
        "method": {"name": name},
        "split": {"partitioner": "iid", "clients": 6},
        "data": {"task": "toy", "holdout": 10, "client_holdout": 0.25},
        "rounds": {"rounds": rounds, "cohort": 2, "eval_every": 3},
        "model": {"backbone": toy.BACKBONE, "lora": {"rank": 2, "alpha": 4, "head": "personal"}},
    }
    return RunSpec.parse(toy.description(**changes))


def same_entries(one, other):
    assert one.results == other.results
    assert one.history == other.history
    files = {
        name: data for name, data in tree(one.path).items() if name.startswith(("personal/", "adapter/"))
    }
    assert files == {name: tree(other.path)[name] for name in files}
    assert any(name.startswith("personal/") for name in files)


@pytest.mark.parametrize("name", ["fedsa-lora", "ditto"])
@pytest.mark.parametrize("memory", [0, 2**24])
def test_an_interrupted_run_goes_on_bit_identical(hub, tmp_path, monkeypatch, name, memory):
    monkeypatch.setattr(client_states, "MEMORY", memory)
    spec = personalised(name, 7)
    whole = run(spec, store=Store(tmp_path / "whole"))
    save, store = CheckpointFolder.save, Store(tmp_path / "cut")

    def cut_before(stop):
        def interrupted(self, index, *rest):
            if index == stop:
                raise KeyboardInterrupt
            return save(self, index, *rest)

        monkeypatch.setattr(CheckpointFolder, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(spec, store=store)

    cut_before(3)
    cut_before(5)
    folder = CheckpointFolder(store.root / ".work" / spec.key() / "checkpoints")
    assert folder.rounds() == [3, 4]
    (changed, *_) = folder.files(4).keys() - folder.files(3).keys()
    (folder.folder / changed).write_bytes(b"rubbish")  # then round 3 it is
    monkeypatch.setattr(CheckpointFolder, "save", save)
    with pytest.warns(DamageWarning, match="round-000004"):
        end = run(spec, store=store)
    assert end.provenance["resumed_after_round"] == 3
    same_entries(end, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedsa-lora", "ditto"])
def test_a_run_killed_again_and_again_ends_bit_identical(hub, tmp_path, monkeypatch, name):
    """SIGKILL at random moments; then compared with a run that was never killed."""
    spec = personalised(name, 40)
    whole = run(spec, store=Store(tmp_path / "whole"))
    monkeypatch.setattr(client_states, "MEMORY", 4000)
    store = Store(tmp_path / "killed")
    killed_again_and_again(lambda: run(spec, store=store), store.root)
    end = run(spec, store=store)
    assert end.provenance["resumed_after_round"] > 0
    same_entries(end, whole)
