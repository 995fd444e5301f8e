"""The engine: what is sent to a cluster, what becomes of it; a real one of two nodes, one of them killed."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
import warnings
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
import torch
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.engines import batch as batches
from fedlora_kit.engines import ray_cluster, ray_worker
from fedlora_kit.engines import ray_engine as engine
from fedlora_kit.engines.ray_cluster import RayCluster, need_ray
from fedlora_kit.engines.ray_engine import ClusterBatch, Workers, train_items
from fedlora_kit.engines.ray_worker import PublishingStore, job_text, read_reply, train
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments.atomic import DamageWarning
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.remote import RemoteStore
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import planned_runs
from fedlora_kit.planning.estimate import estimate
from fedlora_kit.running import shares
from fedlora_kit.running.shares import memory_bytes, share_of_gpu


def spec(rounds=3, **changes):
    return RunSpec.parse(
        {
            "model": {"backbone": "kit/image-tiny", "lora": {"rank": 2, "alpha": 4}},
            "data": {"task": "digits", "train_limit": 60, "eval_limit": 20},
            "split": {"clients": 2},
            "method": {"name": "lora"},
            "local": {"lr": 0.2, "steps": 2, "batch_size": 4},
            "rounds": {"rounds": rounds},
            **changes,
        }
    )


def same(one, other):
    """Bit-identical results: what a run computes, without when and where."""
    names = ("history.jsonl", "results.json", "spec.json", "adapter/adapter_model.safetensors")
    for name in names:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    assert one.results["adapter_digest"] == other.results["adapter_digest"]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def remote(tmp_path):
    return RemoteStore(str(tmp_path / "shared"))


def sent(wanted, remote, **changes):
    text = job_text(wanted, wanted.key(), remote.url, "cpu", 0.0)
    return json.dumps({**json.loads(text), **changes})


# --- a worker -------------------------------------------------------------------------------------------


def test_a_worker_publishes_what_a_local_run_gives(scratch, remote, tmp_path):
    wanted = spec()
    reply = read_reply(train(sent(wanted, remote), "a1"))
    assert (reply.status, reply.resumed, reply.error) == ("finished", None, "")
    entry = remote.fetch(wanted.key(), Store())
    same(entry, run(wanted, device="cpu", store=Store(tmp_path / "local")))
    assert not list(scratch.rglob("*.*"))


@pytest.mark.parametrize("method", ["lora", "local-only"])  # the latter: tensors that stay with the clients
def test_a_worker_goes_on_from_what_another_machine_published(scratch, remote, tmp_path, monkeypatch, method):
    wanted = spec(rounds=5, method={"name": method})
    save, saved = CheckpointFolder.save, []

    def dying(self, round_index, *what):
        path = save(self, round_index, *what)
        saved.append(round_index)
        if round_index == 3:  # after the file of round 3, before it is published
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(CheckpointFolder, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        train(sent(wanted, remote), "a1")
    assert saved == [0, 1, 2, 3]
    assert remote.checkpoint_rounds(wanted.key()) == [1, 2]
    monkeypatch.setattr(CheckpointFolder, "save", save)
    assert read_reply(train(sent(wanted, remote), "b2")).resumed == 2
    same(remote.fetch(wanted.key(), Store()), run(wanted, device="cpu", store=Store(tmp_path / "local")))
    assert remote.checkpoint_rounds(wanted.key()) == []
    assert (scratch / "a1").exists()
    assert not (scratch / "b2" / wanted.key()).exists()


def test_a_published_run_is_not_trained_again(scratch, remote, monkeypatch):
    wanted = spec()
    train(sent(wanted, remote), "a1")
    monkeypatch.setattr(run_module, "_train", lambda *_: pytest.fail("trained again"))
    assert read_reply(train(sent(wanted, remote), "b2")).status == "finished"


def test_a_run_that_diverges_is_a_failure_with_its_record(scratch, remote):
    wanted = spec(local={"lr": 1e30, "steps": 2, "batch_size": 4})
    reply = read_reply(train(sent(wanted, remote), "a1"))
    assert reply.status == "failed"
    assert "NaN or infinite" in reply.failure["error"]
    assert not list(scratch.rglob("*.*"))
    assert remote.keys() == []


def test_a_machine_with_other_code_or_data_says_so(scratch, remote):
    reply = read_reply(train(sent(spec(), remote, key="0" * 16), "a1"))
    assert reply.status == "error"
    assert "its code, libraries, data or backbone differ" in reply.error
    reply = read_reply(train(sent(spec(), remote, url="nowhere://x"), "a1"))
    assert reply.status == "error"
    assert "nowhere" in reply.error


def test_other_errors_are_told_and_keep_the_checkpoints(scratch, remote, monkeypatch):
    for error, status in (
        (torch.OutOfMemoryError("CUDA"), "out of memory"),
        (ZeroDivisionError("x"), "error"),
    ):

        def breaking(*_, error=error, **__):
            raise error

        monkeypatch.setattr(run_module, "run_federation", breaking)
        reply = read_reply(train(sent(spec(), remote), "a1"))
        assert reply.status == status
        assert type(error).__name__ in reply.error
        assert (scratch / "a1" / spec().key()).exists()


def test_a_store_that_is_out_of_reach_costs_a_checkpoint_and_not_the_run(scratch, remote, monkeypatch):
    def gone(*_):
        raise OSError("no route")

    monkeypatch.setattr(RemoteStore, "publish_checkpoint", gone)
    monkeypatch.setattr(RemoteStore, "fetch_checkpoints", gone)
    with pytest.warns(UserWarning, match="no route"):
        assert read_reply(train(sent(spec(), remote), "a1")).status == "finished"


def test_checkpoints_are_published_at_intervals(tmp_path, remote, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(ray_worker.time, "monotonic", lambda: clock[0])
    store = PublishingStore(tmp_path / "here", remote, 60.0)
    with store.work("0" * 16, {}) as work:
        published = []
        for index in range(6):
            work.checkpoints.save(index, {}, {})
            published.append(remote.checkpoint_rounds("0" * 16))
            clock[0] += 25.0
    assert published == [[], [], [], [3], [3], [3]]


def test_a_job_says_where_the_hub_is_and_carries_no_token(scratch, remote, monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.setenv(name, "x")
    told = json.loads(sent(spec(), remote))["environment"]
    assert told["HF_HUB_CACHE"] == told["HF_ENDPOINT"] == "x"
    assert "HF_TOKEN" not in told


def test_a_worker_keeps_its_own_settings(scratch, remote, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/mine")
    text = sent(spec(), remote, environment={"HF_HOME": "/theirs", "FEDLORA_X": "1"})
    train(text, "a1")
    assert ray_worker.os.environ["HF_HOME"] == "/mine"


# --- the engine, on a stand-in for a cluster ----------------------------------------------------------


class Stand:
    """Does jobs at once, as told: ``outcome(spec, alone)`` gives it, or None to publish an entry."""

    def __init__(self, outcome=lambda spec, alone: None, gpus=0, nodes=1):
        self.nodes, self.gpus, self.outcome, self.jobs = nodes, gpus, outcome, []

    def device(self, asked):
        return RayCluster.device(self, asked)

    def submit(self, text, needed, *, alone=False):
        asked = json.loads(text)
        wanted, reply = RunSpec.parse(asked["spec"]), Future()
        self.jobs.append((wanted, asked["device"], needed, alone))
        outcome = self.outcome(wanted, alone)
        if outcome is None:
            publish(wanted, RemoteStore(asked["url"]))
            outcome = {"status": "finished"}
        if isinstance(outcome, Exception):
            reply.set_exception(outcome)
        else:
            reply.set_result(json.dumps(outcome))
        return reply


def publish(wanted, remote):
    """An entry as a worker would publish it; the loss falls with the learning rate."""
    key = wanted.key()
    parts = ("holdout", "test", "validation")
    scores = {part: {"final": 0.5, "loss": 1 / wanted.local.lr} for part in parts}
    store = Store(Path(remote.url.removeprefix("file://")).parent / "workers")
    with store.work(key, wanted.model_dump(mode="json")) as work:
        if work.entry is None:
            work.finish({"results.json": {"scores": scores}, "provenance.json": {}, "history.jsonl": []})
    remote.publish(store.load(key))


GSM8K = {"ffa-lora/gsm8k": {"seeds": 2, "device": "auto", "output_dir": "figures"}}
FEW = {"start_here": {"seeds": 1}}
ON_GPUS = {"start_here": {"seeds": 1, "device": "cuda"}}


def spread(items, stand, remote, store=None, **options):
    said = []
    store = store or Store()
    train_items(items, "smoke", stand, url=remote.url, store=store, say=said.append, **options)
    return said


def test_first_the_grid_then_what_it_chooses(remote):
    stand, store = Stand(), Store()
    spread(GSM8K, stand, remote, store)
    planned = planned_runs("ffa-lora/gsm8k", "smoke", seeds=2)
    grid, chosen = planned.specs(), planned.chosen(store)
    assert len(chosen) == 4
    keys = [wanted.key() for wanted, *_ in stand.jobs]
    assert sorted(keys[: len(grid)]) == sorted(s.key() for s in grid)
    assert sorted(keys[len(grid) :]) == sorted(s.key() for s in chosen if s not in grid)
    assert {device for _, device, *_ in stand.jobs} == {"cpu"}
    assert all(store.status(s.key()) == "finished" for s in grid + chosen)
    again = Stand()
    spread(GSM8K, again, remote, store)
    assert again.jobs == []


def test_what_others_published_is_brought_here_and_not_sent(remote):
    wanted = planned_runs("start_here", "smoke", seeds=1).specs()
    for one in wanted[1:]:
        publish(one, remote)
    stand, store = Stand(), Store()
    spread(FEW, stand, remote, store)
    assert [one for one, *_ in stand.jobs] == wanted[:1]
    assert all(store.status(one.key()) == "finished" for one in wanted)


def test_a_damaged_published_run_is_trained_again(remote):
    wanted = planned_runs("start_here", "smoke", seeds=1).specs()
    for one in wanted:
        publish(one, remote)
    bad = wanted[1].key()
    for path in Path(remote.url.removeprefix("file://")).glob(f"{bad}/*/results.json"):
        path.write_text("{}")
    stand = Stand()
    with pytest.warns(DamageWarning):
        spread(FEW, stand, remote)
    assert [one.key() for one, *_ in stand.jobs] == [bad]
    assert Store().status(bad) == "finished"


def test_a_run_that_diverged_is_recorded_and_not_sent_again(remote):
    wanted = planned_runs("start_here", "smoke", seeds=1).specs()
    record = {"error": "loss became NaN", "round": 1, "client": 0}

    def outcome(one, alone):
        return {"status": "failed", "error": record["error"], "failure": record} if one == wanted[0] else None

    stand, store = Stand(outcome), Store()
    said = spread(FEW, stand, remote, store)
    assert len(stand.jobs) == len(wanted)
    assert store.failure(wanted[0].key()) == record
    assert any("failed: loss became NaN" in line for line in said)
    again = Stand(outcome)
    spread(FEW, again, remote, store)
    assert again.jobs == []


def test_an_error_lets_the_others_finish_and_is_raised_at_the_end(remote):
    wanted = planned_runs("start_here", "smoke", seeds=1).specs()

    def outcome(one, alone):
        return RuntimeError("node died\nat noon") if one == wanted[0] else None

    stand = Stand(outcome)
    with pytest.raises(
        FedloraError,
        match=rf"1 of {len(wanted)} runs .*\n  run {wanted[0].key()}: its worker was lost: node died\n",
    ):
        spread(FEW, stand, remote)
    assert len(stand.jobs) == len(wanted)
    assert [Store().status(one.key()) for one in wanted] == ["absent"] + ["finished"] * (len(wanted) - 1)


def test_a_run_too_large_for_its_share_gets_a_gpu_of_its_own(remote):
    wanted = planned_runs("start_here", "smoke", seeds=1).specs()

    def outcome(one, alone):
        small = alone or one != wanted[0]
        return None if small else {"status": "out of memory", "error": "CUDA out of memory"}

    stand = Stand(outcome, gpus=1)
    spread(ON_GPUS, stand, remote)
    assert [alone for *_, alone in stand.jobs] == [False] * len(wanted) + [True]
    assert {device for _, device, *_ in stand.jobs} == {"cuda"}
    stand = Stand(lambda one, alone: {"status": "out of memory", "error": "CUDA out of memory"}, gpus=1)
    shutil.rmtree(remote.url.removeprefix("file://"))
    with pytest.raises(FedloraError, match="CUDA out of memory"):
        spread(ON_GPUS, stand, remote, Store(Path(remote.url.removeprefix("file://")).parent / "other"))
    assert len(stand.jobs) == 2 * len(wanted)


def test_the_kits_own_backbones_take_no_gpu_unless_it_is_asked_for(remote):
    stand = Stand(gpus=2)
    spread(FEW, stand, remote)
    assert {device for _, device, *_ in stand.jobs} == {"cpu"}


def test_a_store_that_is_not_shared_is_named(remote, monkeypatch):
    stand = Stand(lambda one, alone: {"status": "finished"})
    with pytest.raises(FedloraError, match="a folder that all machines share"):
        spread(FEW, stand, remote)


def test_several_machines_need_a_store(tmp_path):
    with pytest.raises(BadValue, match="2 machines and no store"):
        train_items(FEW, "smoke", Stand(nodes=2))


def test_runs_that_only_this_process_knows_are_refused(remote, monkeypatch):
    monkeypatch.setattr(batches, "external", lambda _: True)
    with pytest.raises(FedloraError, match="put that into a file, and name it by --with"):
        spread(FEW, Stand(), remote)


def test_the_memory_of_a_run_is_told_to_the_cluster(remote):
    stand = Stand()
    spread(FEW, stand, remote, memory=lambda one: 7)
    assert {needed for _, _, needed, _ in stand.jobs} == {7}


def test_the_memory_of_a_run_is_its_estimate_with_the_libraries(monkeypatch):
    assert memory_bytes(spec()) == int(estimate(spec(), gpu=True).memory_bytes) + (1 << 30)

    def unknown(*_, **__):
        raise FedloraError("the shape is not known here")

    monkeypatch.setattr(shares, "estimate", unknown)
    assert memory_bytes(spec()) is None


@pytest.mark.parametrize(
    ("needed", "card", "share"),
    [
        (None, 80, 1.0),
        (10, None, 1.0),
        (10, 0, 1.0),
        (1, 1000, 0.125),
        (250, 1000, 0.3),
        (251, 1000, 0.31),
        (900, 1000, 1.0),
        (5000, 1000, 1.0),
    ],
)
def test_shares_of_a_gpu(needed, card, share):
    assert share_of_gpu(needed, card) == share


@pytest.mark.parametrize(
    ("asked", "gpus", "found"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda", 0, "cuda"), ("cuda:1", 2, "cuda")],
)
def test_devices(asked, gpus, found):
    assert Stand(gpus=gpus).device(asked) == found


# --- the command line -----------------------------------------------------------------------------------


def call(*words):
    return CliRunner().invoke(app, ["reproduce", "start_here", *words])


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FedloraError, match="not installed"):
        need_ray()
    result = call("--engine", "ray")
    assert result.exit_code == 1
    assert "pip install 'fedlora-kit[ray]'" in result.stderr


def test_engines_and_addresses_are_checked():
    for words, said in (
        (("--engine", "rya"), "did you mean 'ray'"),
        (("--address", "auto"), "add --engine ray"),
    ):
        result = call(*words)
        assert result.exit_code == 2
        assert said in result.stderr


def test_the_cluster_trains_first_and_no_notebook_starts_where_it_cannot(tmp_path, monkeypatch):
    asked = []

    class Cluster:
        def __init__(self, address):
            asked.append(address)

        def close(self):
            asked.append("closed")

    def fail(items, profile, cluster, *, url, say):
        asked.extend([items, profile, url])
        raise FedloraError("1 of 2 runs could not be trained")

    monkeypatch.setattr(ray_cluster, "RayCluster", Cluster)
    monkeypatch.setattr(ray_cluster, "need_ray", lambda: None)
    monkeypatch.setattr(engine, "train_items", fail)
    monkeypatch.setenv("FEDLORA_STORE", "s3://bucket/runs")
    output = tmp_path / "out"
    words = ("--engine", "ray", "--address", "auto", "--set", "seeds=2", "--output", str(output))
    result = call(*words)
    assert result.exit_code == 1
    assert "1 of 2 runs could not be trained" in result.stderr
    address, items, profile, url, closed = asked
    assert (address, profile, url, closed) == ("auto", "smoke", "s3://bucket/runs", "closed")
    assert items["start_here"]["seeds"] == 2
    assert not list(output.rglob("*.ipynb"))


def test_a_cluster_that_cannot_be_had_is_one_clear_error(monkeypatch):
    class Ray:
        @staticmethod
        def is_initialized():
            return False

        @staticmethod
        def init(*_, **__):
            raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "need_ray", lambda: Ray)
    with pytest.raises(FedloraError, match="could not start on this machine: The current node"):
        RayCluster()
    with pytest.raises(FedloraError, match="no Ray cluster answers at 10.0.0.1:6379"):
        RayCluster("10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    with pytest.raises(FedloraError, match="no Ray cluster answers at there:1"):
        RayCluster()


# --- a real cluster ---------------------------------------------------------------------------------------


def cluster_of_two(attempts=3):
    """Two machines with one core each, one of them the head, which has two GPUs by name. Ray's node aborts
    where its helpers take more than 15 seconds to start, as on a very busy machine: what there is of it is
    ended, and it starts anew."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, num_gpus=2, include_dashboard=False)
        cluster.add_node(num_cpus=1)
    except Exception:
        cluster.shutdown()
        for process in psutil.Process().children(recursive=True):
            if process.name() in ("gcs_server", "raylet"):
                process.kill()
        if attempts == 1:
            raise
        return cluster_of_two(attempts - 1)
    return cluster


@pytest.fixture
def nodes(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "98,99")  # GPUs that no machine has
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = cluster_of_two()
        try:
            yield cluster
        finally:
            need_ray().shutdown()
            cluster.shutdown()


def lose(nodes, machine, scratch, remote):
    """Once its run has published round 3: the machine is gone, with all that runs on it. The run's key."""
    folder = scratch / machine.node_id
    while not any(remote.checkpoint_rounds(place.name)[-1:] >= [3] for place in folder.glob("*")):
        time.sleep(0.005)
    (place,) = folder.iterdir()
    workers = [p for p in psutil.process_iter(["cmdline"]) if place.name in " ".join(p.info["cmdline"] or ())]
    assert workers
    for worker in workers:
        worker.suspend()
    nodes.remove_node(machine, allow_graceful=False)
    for worker in workers:
        worker.kill()
    return place.name


def assert_each_run_on_a_gpu_has_a_process_of_its_own(address):
    """CUDA keeps to the first GPU that a process was given."""

    def where(text):
        import os

        return json.dumps({"pid": os.getpid(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"], **json.loads(text)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "_task", where)
        cluster = RayCluster(address)
        text = json.dumps({"key": "k", "device": "cuda"})
        sent = [cluster.submit(text, None, alone=True) for _ in range(2)]
        replies = [json.loads(one.result()) for one in sent]
    assert {reply["gpu"] for reply in replies} <= {"98", "99"}
    assert len({reply["pid"] for reply in replies}) == 2, replies


@pytest.mark.slow
def test_a_machine_lost_in_mid_run(scratch, remote, nodes, tmp_path):
    runs = {wanted.key(): wanted for wanted in (spec(rounds=40), spec(rounds=40, seed=1))}
    store, said, lost = Store(), [], []
    (machine,) = nodes.worker_nodes
    thread = threading.Thread(target=lambda: lost.append(lose(nodes, machine, scratch, remote)), daemon=True)
    cluster = RayCluster(nodes.address)
    try:
        assert (cluster.nodes, cluster.gpus) == (2, 2)  # which runs of the kit's own backbones leave alone
        batch = ClusterBatch(store, Workers(cluster, remote, lambda _: 1 << 20, 0.0), said.append)
        batch.add(list(runs.values()))
        thread.start()
        while batch.step():
            pass
        batch.raise_errors()
        assert_each_run_on_a_gpu_has_a_process_of_its_own(nodes.address)
    finally:
        cluster.close()
    thread.join(timeout=10)
    (key,) = lost
    entries = {key: store.load(key) for key in runs}
    after = entries[key].provenance["resumed_after_round"]
    assert 3 <= after < 39
    assert any(f"run {key}: finished (went on after round {after + 1})" in line for line in said)
    assert all(entries[other].provenance["resumed_after_round"] is None for other in runs if other != key)
    same(entries[key], run(runs[key], device="cpu", store=Store(tmp_path / "local")))
    assert not any(remote.checkpoint_rounds(other) for other in runs)
