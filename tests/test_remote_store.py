"""The shared store through fsspec: whole entries or none, whatever was interrupted or tampered with."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import fsspec
import pytest
import torch
from store_tools import FILES, KEY, OTHER, SPEC, finish, tree

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import entry as entries
from fedlora_kit.experiments.atomic import DamageWarning, sha256
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.remote import RemoteStore
from fedlora_kit.experiments.store import Store
from fedlora_kit.training.client_states import ClientStates


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/shared [1]*"  # characters that mean something to patterns
        return
    yield "memory://bucket/runs"
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


@pytest.fixture
def remote(url):
    return RemoteStore(url)


@pytest.fixture
def local(tmp_path):
    return Store(tmp_path / "here", say=lambda line: pytest.fail(f"waited: {line}"))


@pytest.fixture
def trained(tmp_path):
    """An entry on another machine."""
    store = Store(tmp_path / "there")
    finish(store)
    return store.load(KEY)


class Objects:
    """The store's objects, to be looked at and tampered with."""

    def __init__(self, url):
        self.fs, self.root = fsspec.url_to_fs(url)

    def names(self, folder=""):
        return sorted(
            path[len(self.root) + 1 :] for path in self.fs.find(f"{self.root}/{folder}".rstrip("/"))
        )

    def named(self, end):
        (name,) = [name for name in self.names() if name.endswith(end)]
        return name

    def read(self, name):
        return self.fs.cat_file(f"{self.root}/{name}")

    def write(self, name, data):
        self.fs.makedirs(f"{self.root}/{name}".rsplit("/", 1)[0], exist_ok=True)
        self.fs.pipe_file(f"{self.root}/{name}", data)

    def remove(self, name):
        self.fs.rm_file(f"{self.root}/{name}")


@pytest.fixture
def objects(url):
    return Objects(url)


def refused(remote, store, said, spec=None):
    with pytest.warns(DamageWarning, match=said):
        assert remote.fetch(KEY, store, spec) is None
    assert store.load(KEY) is None
    assert not [path for path in store.root.rglob("*") if path.name in FILES or path.suffix == ".safetensors"]


def test_what_is_published_comes_back_bit_by_bit(remote, trained, local):
    assert remote.keys() == []
    assert remote.fetch(KEY, local) is None
    remote.publish(trained)
    assert remote.keys() == [KEY]
    assert remote.keys([OTHER]) == []
    assert remote.keys([KEY, OTHER]) == [KEY]
    entry = remote.fetch(KEY, local, SPEC)
    assert tree(entry.path) == tree(trained.path)
    assert local.load(KEY).results == trained.results
    assert not (local.root / ".work" / KEY).exists()


def test_a_run_that_is_here_already_is_not_fetched_again(remote, trained, local, objects):
    remote.publish(trained)
    finish(local, **{"results.json": {"final": 1.0}})
    assert remote.fetch(KEY, local, SPEC).results == {"final": 1.0}


def test_a_fetched_run_takes_the_place_of_a_failure(remote, trained, local):
    remote.publish(trained)
    with local.work(KEY, SPEC) as work:
        work.fail({"error": "diverged"})
    assert remote.fetch(KEY, local, SPEC) is not None
    assert local.status(KEY) == "finished"


def test_the_manifest_is_written_last_and_a_writer_that_dies_shows_nothing(remote, trained, local, objects):
    """Killed before any one of its writes: absent, and a second try is whole."""
    write, writes = remote._write, []
    total = len(entries.read_manifest(trained.path, KEY)) + 1
    for until in range(total):
        writes.clear()

        def dying(path, data, until=until):
            if len(writes) == until:
                raise KeyboardInterrupt
            writes.append(path)
            write(path, data)

        remote._write = dying
        with pytest.raises(KeyboardInterrupt):
            remote.publish(trained)
        assert remote.keys() == []
        assert remote.fetch(KEY, local, SPEC) is None
    remote._write = write
    remote.publish(trained)
    assert tree(remote.fetch(KEY, local, SPEC).path) == tree(trained.path)


def test_two_writers_of_one_run_do_not_mix(remote, trained, local, tmp_path):
    other = Store(tmp_path / "third")
    finish(other, **{"provenance.json": {"wall_seconds": 99.0}})
    one, two = trained, other.load(KEY)
    write = remote._write

    def between(path, data):  # the second writer does all its work before the first one's last object
        if path.endswith("manifest.json"):
            remote._write = write
            remote.publish(two)
        write(path, data)

    remote._write = between
    remote.publish(one)
    assert tree(remote.fetch(KEY, local, SPEC).path) == tree(one.path)


@pytest.mark.parametrize("name", [*FILES, "spec.json"])
def test_a_missing_or_changed_file_is_refused(remote, trained, local, objects, name):
    remote.publish(trained)
    stored = objects.named(f"/{name if name != 'adapter' else 'adapter/adapter_model.safetensors'}")
    data = objects.read(stored)
    for bad in (data[:-1], data + b" ", bytes([data[0] ^ 1]) + data[1:], b""):
        objects.write(stored, bad)
        refused(remote, local, "damaged or half published", SPEC)
        refused(remote, local, "damaged or half published")
    objects.remove(stored)
    refused(remote, local, "damaged or half published", SPEC)
    remote.publish(trained)
    assert remote.fetch(KEY, local, SPEC) is not None


def test_a_torn_or_changed_manifest_is_refused(remote, trained, local, objects):
    remote.publish(trained)
    name = f"{KEY}/manifest.json"
    whole = objects.read(name)
    for bad in (
        b"",
        whole[:50],
        whole.replace(b'"bytes": 2', b'"bytes": 3'),
        b"[" * 100_000,
        b"x" * (5 << 20),
    ):
        objects.write(name, bad)
        refused(remote, local, "damaged or half published", SPEC)


def test_a_file_that_the_manifest_does_not_name_is_refused(remote, trained, local, objects):
    remote.publish(trained)
    folder = objects.named("/spec.json").rsplit("/", 1)[0]
    objects.write(f"{folder}/adapter/more.json", b"{}")
    refused(remote, local, "unexpected: adapter/more.json", SPEC)


def test_an_entry_of_another_run_is_refused(remote, trained, local, objects):
    remote.publish(trained)
    refused(remote, local, "another run", {**SPEC, "lr": 0.2})
    for name in objects.names(KEY):
        objects.write(name.replace(KEY, OTHER), objects.read(name))
    with pytest.warns(DamageWarning, match="another run"):
        assert remote.fetch(OTHER, local) is None


PLAIN = {"results.json": b"{}", "provenance.json": b"{}", "history.jsonl": b""}


def forged(objects, files):
    """An entry whose manifest fits its files, as somebody with bad intent would write it."""
    files = {"spec.json": entries.to_json(SPEC, indent=2).encode() + b"\n", **files}
    records = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}
    manifest = entries._manifest(KEY, records)
    for name, data in files.items():
        if ".." not in name and not name.startswith("/"):
            objects.write(f"{KEY}/{sha256(manifest)[:16]}/{name}", data)
    objects.write(f"{KEY}/manifest.json", manifest)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../escaped.json", "cannot be read"),
        ("/tmp/escaped.json", "cannot be read"),
        ("adapter/../../escaped.json", "cannot be read"),
        ("adapter\\escaped.json", "cannot be read"),
        ("adapter/model.pkl", "no file of a run"),
        ("adapter/pytorch_model.bin", "no file of a run"),
        ("sitecustomize.py", "no file of a run"),
    ],
)
def test_hostile_names_are_refused(remote, local, objects, tmp_path, name, said):
    forged(objects, {**PLAIN, name: b"{}"})
    before = set(tmp_path.rglob("*"))
    refused(remote, local, said, SPEC)
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(local.root) for path in new)
    assert not Path("/tmp/escaped.json").exists()


def test_a_name_that_is_file_and_folder_is_refused(remote, local, objects, monkeypatch):
    """Object stores can hold both."""
    forged(objects, PLAIN)
    files = {**entries_of(objects), "results.json/under.json": {"bytes": 2, "sha256": sha256(b"{}")}}
    monkeypatch.setattr(entries, "read_manifest", lambda *_: files)
    found = remote._fs.find
    with monkeypatch.context() as patch:
        patch.setattr(remote._fs, "find", lambda here: [*found(here), f"{here}/results.json/under.json"])
        refused(remote, local, "a file and a folder", SPEC)


def entries_of(objects):
    return json.loads(objects.read(f"{KEY}/manifest.json"))["files"]


def test_an_entry_without_its_parts_is_refused(remote, local, objects):
    forged(objects, {"results.json": b"{}"})
    refused(remote, local, "lacks provenance.json", SPEC)


def test_a_file_larger_than_said_is_not_downloaded_whole(remote, trained, local, objects, monkeypatch):
    remote.publish(trained)
    objects.write(objects.named("adapter_model.safetensors"), bytes(5 << 20))
    refused(remote, local, "larger than the manifest says", SPEC)


def test_an_entry_larger_than_the_disk_is_not_begun(remote, trained, local, monkeypatch):
    remote.publish(trained)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(FedloraError, match="no room"):
        remote.fetch(KEY, local, SPEC)
    assert local.load(KEY) is None


def test_a_damaged_local_entry_is_not_published(remote, trained):
    (trained.path / "results.json").write_text("{}")
    with pytest.raises(FedloraError, match="is damaged"):
        remote.publish(trained)
    assert remote.keys() == []


def state(value):
    return {"x": torch.full((3,), float(value))}


def clients(folder, **contents):
    """Client files, and how a checkpoint names them."""
    folder.mkdir(exist_ok=True)
    named = {f"client-{name}.safetensors": data.encode() for name, data in contents.items()}
    for name, data in named.items():
        (folder / name).write_bytes(data)
    return {name: sha256(data) for name, data in named.items()}


def test_the_newest_two_checkpoints_are_kept_and_come_back(remote, tmp_path, objects):
    there, parts = CheckpointFolder(tmp_path / "a"), tmp_path / "a"
    a, b, c = clients(parts, a="A"), clients(parts, b="B"), clients(parts, c="C")
    for index, files in ((1, a), (4, {**a, **b}), (7, {**b, **c})):
        clients(parts, a="A", b="B", c="C")
        there.save(index, state(index), {"history": [index]}, files)
        remote.publish_checkpoint(KEY, there, index)
    assert remote.checkpoint_rounds(KEY) == [4, 7]
    assert remote.checkpoint_rounds(OTHER) == []
    here = CheckpointFolder(tmp_path / "b")
    remote.fetch_checkpoints(KEY, here)
    found = here.load_latest()
    assert (found.round_index, found.files) == (7, {**b, **c})
    assert torch.equal(found.tensors["x"], state(7)["x"])
    assert tree(here.folder) == tree(there.folder)
    there.save(9, state(9), {}, c)
    remote.publish_checkpoint(KEY, there, 9)
    left = {name.rsplit("/", 1)[1] for name in objects.names(f".checkpoints/{KEY}")}
    assert left == {"round-000007.safetensors", "round-000009.safetensors", *b, *c}


@pytest.mark.parametrize("name", ["round-000007.safetensors", "client-c.safetensors"])
def test_a_damaged_published_checkpoint_leaves_the_one_before(remote, tmp_path, objects, name):
    there = CheckpointFolder(tmp_path / "a")
    for index, files in ((4, {}), (7, clients(there.folder, c="C"))):
        there.save(index, state(index), {}, files)
        clients(there.folder, c="C")
        remote.publish_checkpoint(KEY, there, index)
    stored = objects.named(name)
    for spoil in (
        lambda: objects.write(stored, objects.read(stored)[:-1] + b"?"),
        lambda: objects.remove(stored),
    ):
        spoil()
        here = CheckpointFolder(tmp_path / f"b{len(list(tmp_path.iterdir()))}")
        remote.fetch_checkpoints(KEY, here)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamageWarning)
            assert here.load_latest().round_index == 4


def test_a_checkpoint_cannot_name_a_file_elsewhere(remote, tmp_path, objects, monkeypatch):
    there = CheckpointFolder(tmp_path / "a")
    monkeypatch.setattr(CheckpointFolder, "_sync", lambda *_: None)
    there.save(
        0, state(0), {}, {"../../../secret.safetensors": "0" * 64, "client-../x.safetensors": "0" * 64}
    )
    objects.write(f".checkpoints/{KEY}/round-000000.safetensors", there.path(0).read_bytes())
    here = CheckpointFolder(tmp_path / "b")
    remote.fetch_checkpoints(KEY, here)
    assert [path.name for path in here.folder.iterdir()] == ["round-000000.safetensors"]
    with pytest.warns(DamageWarning, match="is missing"):
        assert here.load_latest() is None


def published(remote, folder, rounds):
    """Round r changes client r % 3; every round is published."""
    there, states = CheckpointFolder(folder), ClientStates(folder=folder)
    for index in rounds:
        states[index % 3] = state(index)
        there.save(index, state(index), {}, states.files())
        remote.publish_checkpoint(KEY, there, index)
    return there


def test_checkpoints_come_with_the_files_that_they_name(remote, tmp_path, objects):
    there = published(remote, tmp_path / "a", range(6))
    needed = there.files(4) | there.files(5)
    assert len(needed) == 4
    names = {name.rsplit("/", 1)[1] for name in objects.names(f".checkpoints/{KEY}")}
    assert names == {"round-000004.safetensors", "round-000005.safetensors", *needed}
    here = CheckpointFolder(tmp_path / "b")
    remote.fetch_checkpoints(KEY, here)
    found = here.load_latest()
    assert (found.round_index, found.files) == (5, there.files(5))
    own = ClientStates(folder=here.folder, files=found.files)
    assert [own[k]["x"][0].item() for k in own] == [3.0, 4.0, 5.0]
    (new,) = there.files(5).keys() - there.files(4).keys()
    objects.write(objects.named(new), b"half")
    last = CheckpointFolder(tmp_path / "c")
    remote.fetch_checkpoints(KEY, last)
    with pytest.warns(DamageWarning, match=new):
        assert last.load_latest().round_index == 4


def test_a_finished_run_has_no_checkpoints(remote, trained, tmp_path):
    there = CheckpointFolder(tmp_path / "a")
    there.save(0, state(0), {})
    remote.publish_checkpoint(KEY, there, 0)
    remote.publish(trained)
    assert remote.checkpoint_rounds(KEY) == []
    remote.drop_checkpoints(KEY)


def test_other_names_among_the_checkpoints_are_overlooked(remote, objects, tmp_path):
    for name in ("round-1.safetensors", "round-000001.safetensors.tmp", "..", "round-000002.bin"):
        if name != "..":
            objects.write(f".checkpoints/{KEY}/{name}", b"x")
    assert remote.checkpoint_rounds(KEY) == []
    objects.write("notakey/manifest.json", b"{}")
    assert remote.keys() == []


def test_bad_addresses_are_one_clear_error():
    for bad in ("", "   "):
        with pytest.raises(BadValue, match="empty"):
            RemoteStore(bad)
    with pytest.raises(BadValue, match="nowhere"):
        RemoteStore("nowhere://bucket")
    with pytest.raises(BadValue, match="run key"):
        RemoteStore("memory://x").fetch("../x", Store())
    with pytest.raises(BadValue) as found:
        RemoteStore("nowhere://me:secret@host/x")
    assert "secret" not in str(found.value)


def test_a_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = RemoteStore("some/runs").url
    monkeypatch.chdir(os.sep)
    assert RemoteStore(url).url == url == f"file://{tmp_path}/some/runs"


def test_the_manifest_is_that_of_the_local_entry(remote, trained, objects):
    remote.publish(trained)
    manifest = objects.read(f"{KEY}/manifest.json")
    assert manifest == (trained.path / "manifest.json").read_bytes()
    places = {name.split("/")[1] for name in objects.names(KEY)} - {"manifest.json"}
    assert places == {sha256(manifest)[:16]}
    assert set(json.loads(manifest)["files"]) == {
        n.split("/", 2)[2] for n in objects.names(KEY) if n.count("/") > 1
    }


def test_nothing_is_said_of_what_is_whole(remote, trained, local):
    remote.publish(trained)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remote.fetch(KEY, local, SPEC)
