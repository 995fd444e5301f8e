"""GPUs that are not here, by stand-ins for what torch says of them: who starts CUDA, and who goes where."""

from __future__ import annotations

import ast
import gc
import os
import weakref
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fedlora_kit
from fedlora_kit import devices
from fedlora_kit.cli import doctor
from fedlora_kit.devices import check_device, resolve_device
from fedlora_kit.engines import batch as batches
from fedlora_kit.engines.batch import Batch
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments import run as run_module
from fedlora_kit.experiments.provenance import collect
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.flower.launch import device_of_node
from fedlora_kit.running import many, places
from fedlora_kit.running.places import Places
from fedlora_kit.running.pools import WarmPool
from fedlora_kit.running.training import Job, Outcome
from fedlora_kit.study.rates import rates

PACKAGE = Path(fedlora_kit.__file__).parent


def spec(backbone="kit/image-tiny", rounds=2, seed=0, **changes):
    return RunSpec.parse(
        {
            "model": {"backbone": backbone, "lora": {"rank": 2, "alpha": 4}},
            "data": {"task": "digits", "train_limit": 60, "eval_limit": 20},
            "split": {"clients": 2},
            "method": {"name": "lora"},
            "local": {"lr": 0.1, "steps": 2, "batch_size": 4},
            "rounds": {"rounds": rounds},
            "seed": seed,
            **changes,
        }
    )


LARGE = spec("google/vit-base-patch16-224-in21k")


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs; what was started on which is written down. Deterministic mode is put back."""
    started, zeros = [], torch.zeros
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "is_initialized", lambda: bool(started))
    monkeypatch.setattr(cuda, "init", lambda: started.append(("init", dict(os.environ))))
    monkeypatch.setattr(cuda, "set_device", lambda device: started.append(device))

    def first(*size, device=None, **kind):
        if device is not None and torch.device(device).type == "cuda":
            started.append(device)
            device = None
        return zeros(*size, device=device, **kind)

    monkeypatch.setattr(torch, "zeros", first)
    for name in ("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_CUDA_ALLOC_CONF", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # so that what is set is put back
        monkeypatch.delenv(name)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield started
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.fixture
def untouchable(gpus, monkeypatch):
    """Two GPUs, and starting CUDA on them is an error."""

    def touched(*_, **__):
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "init", touched)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    monkeypatch.setattr(torch.accelerator, "current_stream", touched)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1), (" cuda:0 ", 0)])
def test_a_gpu_has_an_index_is_started_and_is_the_current_one(gpus, name, index):
    device = resolve_device(name)
    assert device == torch.device("cuda", index)
    (_, environment), current, first = gpus
    assert current == first == device
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # before CUDA starts
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize(
    "name", ["mps", "xpu", "xpu:0", "meta", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "gpu", ""]
)
def test_what_is_no_device_of_the_kit_is_refused(gpus, name):
    with pytest.raises(BadValue, match="unknown device"):
        resolve_device(name)
    assert not gpus


def test_an_index_that_is_not_there_is_refused_before_cuda_starts(gpus):
    with pytest.raises(BadValue, match="there are 2 GPUs"):
        resolve_device("cuda:2")
    assert not gpus


def test_settings_of_the_user_stay(gpus, monkeypatch):
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    monkeypatch.setenv("FEDLORA_DETERMINISTIC", "0")
    resolve_device("cuda")
    (_, environment), *_ = gpus
    assert "PYTORCH_CUDA_ALLOC_CONF" not in environment
    assert "CUBLAS_WORKSPACE_CONFIG" not in environment
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_that_does_not_start_is_one_clear_error(gpus, monkeypatch):
    def busy(*_):
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors ...")

    monkeypatch.setattr(torch.cuda, "set_device", busy)
    with pytest.raises(FedloraError, match=r"cuda:1 cannot be used: CUDA-capable device\(s\) is/are busy"):
        run(LARGE, device="cuda:1")


def test_what_a_gpu_cannot_do_names_the_way_out():
    with (
        pytest.raises(FedloraError, match="kthvalue.*\n.*FEDLORA_DETERMINISTIC=0"),
        devices.computing_on(torch.device("cuda:0")),
    ):
        raise RuntimeError("kthvalue CUDA does not have a deterministic implementation, but you set ...")
    with (
        pytest.raises(devices.OutOfMemory, match="cuda:0 is too small: CUDA out.*\n.*FEDLORA_JOBS=1"),
        devices.computing_on(torch.device("cuda:0")),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="sizes differ"), devices.computing_on(torch.device("cuda:0")):
        raise RuntimeError("sizes differ")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86  Release Build\n", "570.86"),
        ("", None),
    ],
)
def test_the_drivers_version_is_read(tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    assert devices.driver_version(tmp_path / "version") == version
    assert devices.driver_version(tmp_path / "absent") is None


# --- who starts CUDA --------------------------------------------------------------------------------------


def test_runs_on_the_cpu_and_plans_start_no_gpu(untouchable, tmp_path):
    """The kit's own backbones are trained on the CPU, although there are GPUs; AdamW asks for a stream."""
    adamw = spec(local={"lr": 0.01, "steps": 2, "batch_size": 4, "optimizer": "adamw"})
    assert run(adamw, store=Store(tmp_path / "auto")).provenance["device"]["type"] == "cpu"
    assert rates(None, "auto")(spec()).how == "measured"
    with pytest.raises(AssertionError, match="CUDA was started"):  # the check is awake
        run(adamw, device="cuda", store=Store(tmp_path / "cuda"))


def test_cuda_is_started_in_one_place():
    """`fork_rng` without devices forks the generators of all GPUs, and so starts CUDA on each. Elsewhere the
    package only asks whether there is a GPU, and waits for one that is in use.
    """
    harmless = {"is_available", "synchronize"}
    for path in PACKAGE.rglob("*.py"):
        asked = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "fork_rng":
                assert [k for k in node.keywords if k.arg == "devices"], f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch.cuda":
                asked.add(node.attr)
        assert path == PACKAGE / "devices.py" or asked <= harmless, f"{path}: {asked - harmless}"


# --- provenance -------------------------------------------------------------------------------------------


def test_the_record_is_of_the_gpu_that_computed(gpus, monkeypatch):
    def of(device, what):
        return what[torch.device(device).index]

    cuda = torch.cuda
    cards = [SimpleNamespace(uuid=f"GPU-{n}", total_memory=80 << 30, major=9, minor=n) for n in range(2)]
    monkeypatch.setattr(cuda, "get_device_properties", lambda device: of(device, cards))
    monkeypatch.setattr(cuda, "get_device_name", lambda device: of(device, ["zero", "one"]))
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda device: of(device, [1, 2]))
    monkeypatch.setattr(cuda, "max_memory_reserved", lambda device: of(device, [3, 4]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    device = resolve_device("cuda:1")
    record = collect(str(device), 1.0)
    known = record["device"]
    assert (known["type"], known["name"], known["index"], known["uuid"]) == ("cuda", "one", 1, "GPU-1")
    assert (known["capability"], known["visible"], known["deterministic"]) == ("9.1", "5,7", True)
    assert known["memory_bytes"] == 80 << 30
    assert {"driver", "cuda", "cudnn"} <= known.keys()
    assert (record["peak_memory_bytes"]["cuda"], record["peak_memory_bytes"]["cuda_reserved"]) == (2, 4)


def test_a_run_that_changes_its_kind_of_device_says_so(monkeypatch, tmp_path):
    """It goes on, with that device's own noise; the warning and the record say from which round on."""
    pack, store, wanted = run_module._pack, Store(tmp_path), spec(rounds=3)

    def interrupted(now):
        if now.next_round == 2:
            raise KeyboardInterrupt
        return pack(now)

    monkeypatch.setattr(run_module, "_pack", interrupted)
    with monkeypatch.context() as before:
        before.setattr(run_module, "_devices", lambda *_: [[0, "cuda"]])
        with pytest.raises(KeyboardInterrupt):
            run(wanted, store=store)
    monkeypatch.setattr(run_module, "_pack", pack)
    with pytest.warns(UserWarning, match=r"was trained on cuda for 1 rounds and goes on on cpu") as said:
        entry = run(wanted, store=store)
    assert len(said) == 1
    assert entry.provenance["devices"] == [[0, "cuda"], [1, "cpu"]]
    assert run(wanted, device="cpu", store=Store(tmp_path / "other")).provenance["devices"] == [[0, "cpu"]]


# --- side by side -----------------------------------------------------------------------------------------


class Cards:
    """Pools by GPU, whose runs end when they are told to."""

    def __init__(self, room=1000):
        self.room, self.made, self.sent, self.closed = room, {}, [], []

    def __call__(self, processes, gpu):
        self.made[gpu] = processes
        return SimpleNamespace(
            submit=lambda work, *given: self.submit(gpu, work, given), close=lambda: self.closed.append(gpu)
        )

    def submit(self, gpu, work, given):
        future = Future()
        if work is devices.free_bytes:
            future.set_result(self.room)
        else:
            self.sent.append((gpu, given, future))
        return future


@settings(max_examples=60, deadline=None)
@given(
    jobs=st.integers(1, 6),
    needs=st.lists(st.integers(1, 1500), min_size=1, max_size=12),
    alone=st.sets(st.integers(0, 11)),
    ends=st.lists(st.integers(0, 5), max_size=12),
)
def test_gpus_are_never_overbooked(jobs, needs, alone, ends):
    """By an obvious oracle: what is under way on each GPU, added up after every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "visible_gpus", lambda: ["3", "5"])
        patch.setattr(places, "on_cpu", lambda *_: False)
        cards = Cards()
        machine = Places(jobs, Path("store"), cards, needs=lambda one: needs[one.seed])
        patch.setattr(places, "wanted_device", lambda *_: "auto")
        running, waiting, ends = {}, list(range(len(needs))), list(ends)
        while waiting or running:
            while waiting:
                number = waiting[0]
                one = LARGE.model_copy(update={"seed": number})
                future = machine.submit(Job((), str(number), one, "auto", alone=number in alone))
                if future is None:
                    break
                gpu, (_, _, key, device, root, force), _ = cards.sent[-1]
                assert (key, device, root, force) == (str(number), "cuda", "store", False)
                running[future] = (waiting.pop(0), gpu)
            assert len(running) <= jobs
            assert running, "a machine at rest takes any run"
            for gpu in ("3", "5"):
                here = [number for number, on in running.values() if on == gpu]
                assert sum(1.2 * needs[n] for n in here) <= 1000 or len(here) == 1
                assert len(here) == 1 or not alone & set(here)
                assert len(here) <= 8
            future = list(running)[ends.pop() % len(running) if ends else 0]
            del running[future]
            machine.over(future)
        machine.close()
        assert sorted(cards.closed) == sorted(cards.made)


def test_a_named_gpu_is_kept_to_and_the_kits_backbones_take_none(gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    cards = Cards()
    machine = Places(4, Path("store"), cards, needs=lambda _: 100)
    asked = [(LARGE, "cuda:1"), (LARGE, "cuda:1"), (LARGE, "auto"), (spec(), "auto"), (spec(), "cuda")]
    sent = [machine.submit(Job((), "key", wanted, device)) for wanted, device in asked]
    assert [future is None for future in sent] == [False, False, False, False, True]
    assert [(gpu, given[3]) for gpu, given, _ in cards.sent] == [
        ("GPU-b", "cuda"),
        ("GPU-b", "cuda"),
        ("GPU-a", "cuda"),
        ("", "cpu"),
    ]
    with pytest.raises(BadValue, match="there are 2 GPUs"):
        Places(1, Path("store"), cards).submit(Job((), "key", LARGE, "cuda:7"))
    assert not [start for start in gpus if start != "init"], "nothing is started here"


def test_flowers_nodes_go_around_the_gpus(gpus):
    assert [device_of_node("auto", node) for node in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [device_of_node(named, 1) for named in ("cuda:0", "cpu")] == ["cuda:0", "cpu"]
    assert not gpus


def test_a_run_without_enough_memory_is_sent_again_alone(gpus, monkeypatch):
    """In a batch, and among the runs of one notebook; where it still does not fit, that is the answer."""
    monkeypatch.setattr(batches, "_key", lambda one: f"{one.seed:016x}")
    monkeypatch.setattr(RunSpec, "key", lambda one: f"{one.seed:016x}")
    runs = [LARGE.model_copy(update={"seed": n}) for n in range(3)]
    cards, full, done = Cards(1 << 60), Outcome("out of memory", 1.0, "CUDA"), Outcome("finished", 1.0)
    keys, submit = [], cards.submit

    def at_once(gpu, work, given):
        future = submit(gpu, work, given)
        if work is not devices.free_bytes:
            keys.append(given[2])
            future.set_result(outcomes[given[2]].pop(0))
        return future

    cards.submit = at_once
    outcomes = {f"{n:016x}": ends for n, ends in enumerate(([full, done], [full, full], [done]))}
    batch = Batch(Store(), Places(3, Store().root, cards), seconds=lambda one: 9.0 - one.seed)
    batch.add(runs)
    while batch.step():
        pass
    assert sorted(int(key, 16) for key in keys) == [0, 0, 1, 1, 2]
    assert (batch.finished, batch.left) == (2, {f"{1:016x}": "CUDA"})

    outcomes, keys[:] = {f"{n:016x}": ends for n, ends in enumerate(([done], [full, done], [done]))}, []
    named = {one.key(): one for one in runs}
    ended = many._beside(named, "auto", Places(3, Store().root, cards))
    assert sorted(key for key, outcome in ended if outcome == done) == sorted(named)
    assert sorted(int(key, 16) for key in keys) == [0, 1, 1, 2]
    full = Outcome("out of memory", 1.0, "CUDA", cause=FedloraError("CUDA"))
    outcomes = {f"{n:016x}": [full, full] for n in range(3)}
    with pytest.raises(FedloraError, match="CUDA"):
        list(many._beside(named, "auto", Places(3, Store().root, cards)))


def test_each_process_sees_its_own_gpu_alone():
    pool = WarmPool(1, "GPU-b", preload=())
    try:
        assert pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result(timeout=60) == "GPU-b"
    finally:
        pool.close()


# --- what stays in memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {"local": {"lr": 0.1, "steps": 1, "batch_size": 4, "stack": "always"}},
    {"local": {"lr": 0.1, "steps": 1, "batch_size": 4, "stack": "never"}},
    {"method": {"name": "ffa-lora"}, "privacy": {"epsilon": 6.0, "delta": 1e-5, "clip": 1.0},
     "local": {"lr": 0.1, "steps": 1, "batch_size": 4, "stack": "never"}},
])  # fmt: skip
def test_a_finished_runs_model_is_gone_at_once(monkeypatch, tmp_path, changes):
    """Without a search for cycles: on a GPU the next run needs the memory now."""
    alive, build = [], run_module.build

    def watched(*given):
        federation = build(*given)
        alive.extend(weakref.ref(p) for p in federation.model.parameters())
        return federation

    monkeypatch.setattr(run_module, "build", watched)
    gc.collect()
    gc.disable()
    try:
        run(spec(rounds=1, **changes), device="cpu", store=Store(tmp_path))
        left = [ref for ref in alive if ref() is not None]
    finally:
        gc.enable()
    assert len(alive) > 10
    assert not left


# --- doctor -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "mode", "verdict", "said"),
    [
        (("9.0", "9.0"), "Default", "ok", "cuda:1 Card, 80 GiB, capability 9.0, driver 570.1"),
        (("9.0", "7.5"), "Default", "warn", "capability 7.5"),
        (("9.0", "9.0"), "Exclusive_Process", "warn", "compute mode Exclusive_Process"),
        (("9.0", None), "Default", "fail", "cuda:1 cannot be used"),
    ],
)
def test_the_doctor_uses_each_gpu_once(monkeypatch, gpus, capabilities, mode, verdict, said):
    def resolve(name):
        if capabilities[int(name[-1])] is None:
            raise FedloraError(f"{name} cannot be used: busy")
        gpus.append(name)
        return SimpleNamespace(index=int(name[-1]))

    def describe(where):
        card = {"name": "Card", "memory_bytes": 80 << 30, "driver": "570.1"}
        return {**card, "capability": capabilities[where.index]}

    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))
    monkeypatch.setattr(doctor, "resolve_device", resolve)
    monkeypatch.setattr(doctor, "describe_gpu", describe)
    monkeypatch.setattr(doctor, "_compute_modes", lambda: mode)
    check = doctor.device()
    assert (check.verdict, bool(check.remedy)) == (verdict, verdict != "ok")
    assert said in check.found
    assert len(gpus) == sum(c is not None for c in capabilities)


@pytest.mark.gpu
def test_a_real_gpu_computes_what_the_cpu_computes(tmp_path):
    on_gpu = run(spec(), device="cuda", store=Store(tmp_path / "gpu"))
    on_cpu = run(spec(), device="cpu", store=Store(tmp_path / "cpu"))
    assert on_gpu.provenance["device"]["type"] == "cuda"
    assert on_gpu.provenance["peak_memory_bytes"]["cuda"] > 0
    losses = [[h["train_loss"] for h in entry.history] for entry in (on_gpu, on_cpu)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_names_are_given_back_clean():
    assert [check_device(name) for name in (" auto", "cpu ")] == ["auto", "cpu"]
