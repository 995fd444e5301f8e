"""The store of runs: the life of a run, and bad input."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
import torch
from store_tools import FILES, KEY, OTHER, SPEC, finish, tree

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs", say=lambda line: pytest.fail(f"waited: {line}"))


# --- the life of a run ----------------------------------------------------------------------------------


def test_a_run_from_absent_to_finished(store):
    assert store.status(KEY) == "absent"
    assert store.load(KEY) is None
    with store.work(KEY, SPEC) as work:
        assert work.entry is None
        assert work.failure is None
        assert store.status(KEY) == "running"
        work.checkpoints.save(0, {"b": torch.ones(2)}, {})
        entry = work.finish(FILES)
        assert work.entry is entry
    assert store.status(KEY) == "finished"
    loaded = store.load(KEY)
    assert loaded == entry
    assert loaded.path == store.root / KEY
    assert loaded.spec == SPEC
    assert loaded.results == FILES["results.json"]
    assert loaded.history[0] == {"round": 0, "loss": 0.5}
    assert str(loaded.history[1]["loss"]) == "nan"
    assert loaded.privacy == {"epsilon": 6.0}
    assert loaded.provenance == {"wall_seconds": 1.5}
    assert (loaded.adapter_dir / "adapter_model.safetensors").read_bytes() == bytes(range(256))
    assert tree(store.root).keys() == {f"{KEY}/{n}" for n in tree(loaded.path)}  # no work, no lock left
    assert json.loads((loaded.path / "manifest.json").read_text())["key"] == KEY


def test_a_finished_run_is_not_worked_on_again(store):
    finish(store)
    before = tree(store.root)
    with store.work(KEY, SPEC) as work:
        assert work.entry.results == FILES["results.json"]
        with pytest.raises(FedloraError, match="finished already"):
            work.finish(FILES)
    assert tree(store.root) == before


def test_optional_parts(store):
    history = [{"round": 0}]
    few = {name: FILES[name] for name in ("results.json", "provenance.json")} | {"history.jsonl": history}
    with store.work(KEY, SPEC) as work:
        work.finish(few)
    entry = store.load(KEY)
    assert entry.privacy is None
    assert entry.history == history
    with pytest.raises(FedloraError, match="kept no adapter"):
        _ = entry.adapter_dir


def test_contents_of_every_kind(store, tmp_path):
    source = tmp_path / "adapter_source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "x.bin").write_bytes(b"\0\1")
    finish(
        store,
        adapter=source,
        **{"a/b.txt": "zeile\r\nσ", "raw": b"\xff", "copy": source / "deep" / "x.bin", "l.json": [1]},
    )
    files = tree(store.load(KEY).path)
    assert files["adapter/deep/x.bin"] == files["copy"] == b"\0\1"
    assert files["a/b.txt"] == "zeile\r\nσ".encode()
    assert files["raw"] == b"\xff"
    assert json.loads(files["l.json"]) == [1]
    assert source.exists()


def test_an_exception_leaves_the_run_interrupted_and_it_goes_on(store):
    def stopped():
        with store.work(KEY, SPEC) as work:
            work.checkpoints.save(2, {"b": torch.tensor([2.5])}, {"losses": [0.1, float("inf")]})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert store.status(KEY) == "interrupted"
    (one,) = store.unfinished()
    assert (one.key, one.status, one.spec, one.round_index, one.failure) == (
        KEY,
        "interrupted",
        SPEC,
        2,
        None,
    )
    with store.work(KEY, SPEC) as work:
        latest = work.checkpoints.load_latest()
        assert latest.tensors["b"].item() == 2.5
        assert latest.meta == {"losses": [0.1, float("inf")]}
        work.finish(FILES)
    assert list(store.unfinished()) == []


def test_a_failure_is_kept_shown_and_cleared(store):
    record = {"error": "loss became NaN", "round": 3, "client": 1, "value": float("inf")}
    with store.work(KEY, SPEC) as work:
        work.checkpoints.save(2, {}, {})
        work.fail(record)
    assert store.status(KEY) == "failed"
    assert store.failure(KEY) == record
    (one,) = store.unfinished()
    assert (one.status, one.failure, one.round_index) == ("failed", record, 2)
    with store.work(KEY, SPEC) as work:
        assert work.failure == record
        assert store.status(KEY) == "running"
    store.clear_failure(KEY)
    store.clear_failure(KEY)
    assert store.failure(KEY) is None
    assert store.status(KEY) == "interrupted"
    with store.work(KEY, SPEC) as work:
        work.fail(record)
        work.finish(FILES)
    assert store.status(KEY) == "finished"
    assert store.failure(KEY) is None


def test_a_leftover_of_a_killed_writer_of_the_failure_goes_and_others_stay(store):
    folder = store.root / ".failed"
    folder.mkdir(parents=True)
    (folder / f".{KEY}.json.123.0123abcd.tmp").write_text("{")
    (folder / f".{OTHER}.json.123.0123abcd.tmp").write_text("{")  # may be in the making
    assert list(store.unfinished()) == []
    with store.work(KEY, SPEC) as work:
        work.fail({"error": "x"})
    assert sorted(os.listdir(folder)) == [f".{OTHER}.json.123.0123abcd.tmp", f"{KEY}.json"]


def test_a_damaged_failure_record_still_says_failed(store):
    with store.work(KEY, SPEC) as work:
        work.fail({"error": "x"})
    (store.root / ".failed" / f"{KEY}.json").write_text("{")
    assert store.status(KEY) == "failed"
    assert "damaged" in store.failure(KEY)["error"]


def test_entries_and_unfinished_come_in_order_of_key(store):
    generator = random.Random(1)
    keys = [f"{generator.getrandbits(64):016x}" for _ in range(12)]
    for key in keys[:8]:
        finish(store, key)
    for key in keys[8:]:
        with store.work(key, SPEC):
            pass
    (store.root / "notes").mkdir()
    (store.root / "README").write_text("")
    assert [entry.key for entry in store.entries()] == sorted(keys[:8])
    assert [one.key for one in store.unfinished()] == sorted(keys[8:])


def test_entries_read_no_big_file(store):
    finish(store)
    (store.root / KEY / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged, but not looked at")
    assert [entry.results["final"] for entry in store.entries()] == [81.25]


def test_an_empty_store(tmp_path):
    store = Store(tmp_path / "none")
    assert list(store.entries()) == list(store.unfinished()) == []
    assert store.failure(KEY) is None
    assert not (tmp_path / "none").exists()  # looking makes nothing


def test_the_default_root(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_RUNS", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"


def test_the_store_alone_does_not_import_torch():
    code = "import sys, fedlora_kit.experiments.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "",
        "..",
        "../../etc/passwd0",
        "0123456789ABCDEF",
        "0123456789abcde",
        KEY + "\n",
        KEY + "0",
        "/" + KEY,
        7,
    ],
)
def test_keys_are_sixteen_hex_digits(store, key):
    for call in (store.status, store.load, store.failure, store.clear_failure):
        with pytest.raises(BadValue, match="16 hex digits"):
            call(key)
    with pytest.raises(BadValue, match="16 hex digits"), store.work(key, SPEC):
        pytest.fail("entered")
    assert not store.root.exists()


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/../../x", "", ".", "a//b", "./a", "manifest.json", "spec.json", "a\\b", "a\0b"],
)
def test_file_names_stay_inside(store, name):
    with store.work(KEY, SPEC) as work:
        with pytest.raises(BadValue):
            work.finish({**FILES, name: b""})
        assert not (work.dir / "entry").exists()
    assert store.status(KEY) == "interrupted"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"results.json": {"x": object()}}, "object"),
        ({"adapter": lambda path: path.mkdir()}, "empty folder"),
        ({"adapter": lambda path: path.symlink_to("/etc")}, "no plain file"),
        ({"adapter": lambda path: os.mkfifo(path)}, "no plain file"),
        ({"adapter": 7}, "int"),
    ],
)
def test_contents_that_cannot_be_kept(store, change, word):
    with store.work(KEY, SPEC) as work:
        work.checkpoints.save(0, {}, {})
        with pytest.raises(BadValue, match=word):
            work.finish({**FILES, **change})
        work.finish(FILES)  # and nothing was lost by it
    assert store.load(KEY) is not None


@pytest.mark.parametrize("name", ["history.jsonl", "results.json", "provenance.json"])
def test_an_entry_without_its_parts_is_refused(store, name):
    with store.work(KEY, SPEC) as work, pytest.raises(BadValue, match=name.partition(".")[0]):
        work.finish({other: content for other, content in FILES.items() if other != name})


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedloraError, match="is no folder"), Store(tmp_path / "file").work(KEY, SPEC):
        pass
