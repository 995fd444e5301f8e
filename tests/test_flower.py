"""Federation across machines: the server and nodes of a Flower run give what one process gives.

Most tests carry the messages by hand, through Flower's own serialisation; one starts real processes.
"""

import numpy as np
import pytest
import torch
import toy
from cells import cell

from fedlora_kit.adapter import digest
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.run import RunFailed, run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.methods import METHODS

pytest.importorskip("flwr", reason="needs the extra: pip install 'fedlora-kit[flower]'")

from flwr.app import Array, ArrayRecord, Context, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.task_identity import TaskIdentity

from fedlora_kit.flower import client, node, peers, wire
from fedlora_kit.flower.server import coordinate
from fedlora_kit.flower.support import clients_of, read, why_not

CPU = torch.device("cpu")


def over_the_wire(content):
    return recorddict_from_proto(recorddict_to_proto(content))


class Grid:
    """Flower's grid with SuperNodes in this process; ``spoil`` may change what a node answers."""

    def __init__(self, nodes=2, spoil=None, silent=(), gone=()):
        self.contexts = {
            100 + i: Context(1, 100 + i, {"partition-id": i, "num-partitions": nodes}, RecordDict(), {})
            for i in range(nodes)
        }
        self.spoil, self.silent, self.gone = spoil, silent, gone
        self.replies, self.sent, self.seen = {}, 0, []
        # Flower sets these in each of its processes
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

    def get_node_ids(self):
        return [n for n in reversed(self.contexts) if n not in self.gone]

    def push_messages(self, messages):
        ids = []
        for message in messages:
            self.sent += 1
            ids.append(f"m{self.sent}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            arrived = over_the_wire(message.content)
            message.content = arrived
            target, kind = message.metadata.dst_node_id, message.metadata.message_type
            self.seen.append((kind, target, arrived))
            if kind != "query" and target in (*self.silent, *self.gone):
                continue
            context = self.contexts[target]
            reply = client.app(message, context)
            context.state = over_the_wire(context.state)  # a node's memory is stored as messages are
            reply.content = over_the_wire(reply.content)
            if self.spoil is not None:
                self.spoil(kind, target, reply.content)
            self.replies[ids[-1]] = reply
        return ids

    def pull_messages(self, ids):
        return [self.replies.pop(i) for i in reversed(list(ids)) if i in self.replies]


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    toy.build_mirror(tmp_path / "hub")
    toy.enter(tmp_path / "hub")
    monkeypatch.setattr(peers, "_POLL_SECONDS", 0.01)
    node.node.cache_clear()


LOCAL = {"lr": 0.2, "steps": 2, "batch_size": 4, "stack": "never"}
ROC = {"groups": [1, 1, 1], "layers": [0.5, 0.5, 1.0]}
RANKS = {"groups": [1, 1, 1], "ranks": [0.5, 0.5, 1.0]}
FIM = {"resources": ROC, "start": 1, "every": 2, "proxy_examples": 8}


def parsed(**changes):
    base = {"local": LOCAL, "rounds": {"rounds": 3}, "split": {"partitioner": "iid", "clients": 5}}
    return RunSpec.parse(toy.description(**{**base, **changes}))


def both(spec, tmp_path, nodes=2, **options):
    """The same run in one process and over messages."""
    alone = run(spec, device="cpu", store=Store(tmp_path / "alone"))
    spread = coordinate(
        spec,
        Grid(nodes, **options),
        nodes=nodes,
        timeout=30,
        wait=5,
        device="cpu",
        store=Store(tmp_path / "spread"),
    )
    return alone, spread


SETTINGS = {
    "fedra": {"resources": ROC},
    "fed-hello": FIM,
    "fim-hla": FIM,
    "rgd-hla": {"resources": ROC, "defects": ["freeze_by_substring"]},
    "gd-hla": {"resources": ROC},
    "straggler": {"resources": ROC},
    "exclusive": {"resources": ROC},
    "flexlora": {"resources": RANKS},
    "hetlora": {"resources": RANKS},
    "flora": {"resources": RANKS},
}


def runnable():
    return [
        name
        for name in sorted(METHODS)
        if METHODS[name].__module__.startswith("fedlora_kit.") and name not in ("ditto", "fedlora-optimizer")
    ]


@pytest.mark.parametrize("name", runnable())
def test_every_method_gives_the_run_of_one_process_bit_for_bit(name, tmp_path):
    method = {"name": name, "settings": SETTINGS.get(name, {})}
    alone, spread = both(parsed(method=method), tmp_path)
    assert spread.results == alone.results  # adapter_digest is among them
    assert spread.history == alone.history


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_the_number_of_nodes_changes_nothing(nodes, tmp_path):
    spec = parsed(rounds={"rounds": 2, "cohort": 3, "measure_gap": True, "eval_every": 0})
    alone, spread = both(spec, tmp_path, nodes)
    assert (spread.results, spread.history) == (alone.results, alone.history)


@pytest.mark.parametrize("head", ["aggregated", "personal"])
def test_heads_and_held_out_examples(head, tmp_path):
    spec = parsed(
        model={"backbone": toy.BACKBONE, "lora": {"rank": 2, "alpha": 4, "head": head}},
        data={"task": "toy", "holdout": 10, "client_holdout": 0.3},
        method={"name": "fedsa-lora"},
        rounds={"rounds": 2, "cohort": 1},  # some clients are never drawn, and scored all the same
    )
    alone, spread = both(spec, tmp_path)
    assert {record["scored_clients"] for record in alone.history} == {5}
    assert (spread.results, spread.history) == (alone.results, alone.history)
    assert "local" in spread.results
    assert not (spread.path / "personal").exists()  # what stays with a client never came to the server
    assert (alone.path / "personal").exists()


@pytest.mark.parametrize("name", ["lora", "ffa-lora", "fedsa-lora"])
def test_differential_privacy_has_the_same_noise_and_ledger(name, tmp_path):
    private = {"epsilon": 5.0, "delta": 1e-3, "clip": 1.0}
    alone, spread = both(parsed(method={"name": name}, privacy=private), tmp_path)
    assert (spread.results, spread.history) == (alone.results, alone.history)
    assert spread.privacy == alone.privacy


def test_stacked_clients_agree_to_rounding(tmp_path):
    """A node stacks its own clients only, so that sums are taken in other groups."""
    alone, spread = both(parsed(local={**LOCAL, "stack": "auto"}), tmp_path)
    from fedlora_kit.adapter import load_peft

    one, other = load_peft(alone.adapter_dir), load_peft(spread.adapter_dir)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=0)


def test_only_what_the_method_sends_leaves_a_node(tmp_path):
    """FFA-LoRA sends B alone; a client of half the rank sends half the rows and columns."""
    grid = Grid()
    spec = parsed(method={"name": "ffa-lora"}, rounds={"rounds": 1})
    seen = []
    grid.spoil = lambda kind, target, content: seen.append(content)
    entry = coordinate(spec, grid, nodes=2, timeout=30, wait=5, device="cpu")
    arrays = [r for content in seen for key, r in content.items() if key.startswith("update-")]
    assert len(arrays) == 5
    assert all(".lora_B" in name for record in arrays for name in record)
    size = sum(np.prod(a.shape) * 4 for record in arrays for a in record.values())
    assert size == entry.results["bytes_up"]
    clients = [o["order"]["clients"] for kind, _, o in grid.seen if kind == "train"]
    assert clients == [[0, 2, 4], [1, 3]]


def test_a_finished_run_asks_nobody(tmp_path):
    spec = parsed(rounds={"rounds": 1})
    entry = run(spec, device="cpu")
    grid = Grid()
    assert coordinate(spec, grid, nodes=2).key == entry.key
    assert grid.seen == []


def test_what_cannot_be_spread_is_refused_with_a_reason():
    for name, settings, said in (
        ("ditto", {}, "stages"),
        ("fedlora-optimizer", {"global_data": "clients"}, "stages"),
        ("hetlora", {"resources": RANKS, "keep": 0.5, "penalty": 0.1}, "learns at its clients"),
    ):
        spec = parsed(method={"name": name, "settings": settings})
        assert said in why_not(spec)
        with pytest.raises(BadValue, match=said):
            coordinate(spec, Grid(), nodes=2)
    with pytest.raises(BadValue, match="6 nodes for 5 clients"):
        coordinate(parsed(), Grid(6), nodes=6)


OWN = """
from fedlora_kit.methods import FedIT

class OfACell(FedIT):
    name = "of-a-cell"
"""


def test_what_a_cell_defines_is_refused_and_what_is_not_here_named(monkeypatch):
    monkeypatch.setitem(METHODS, "of-a-cell", cell(OWN)["OfACell"])
    spec = parsed(method={"name": "of-a-cell"})
    assert "a notebook's cell defines" in why_not(spec)
    monkeypatch.delitem(METHODS, "of-a-cell")
    with pytest.raises(
        FedloraError, match=r"unknown method 'of-a-cell' on this machine\n(.|\n)*FEDLORA_WITH="
    ):
        read(spec.canonical())


def go(grid, spec=None, **options):
    return coordinate(
        spec or parsed(), grid, **{"nodes": 2, "timeout": 30, "wait": 0.1, "device": "cpu", **options}
    )


def test_a_silent_node_is_an_error_not_a_hang():
    with pytest.raises(peers.NodeLost, match=r"no answer from SuperNode 1 \(of 2\) within 0.2 s"):
        go(Grid(silent=[101]), timeout=0.2)


def test_a_node_that_disconnects_is_named_before_the_timeout(monkeypatch):
    monkeypatch.setattr(peers, "_LOOK_SECONDS", 0.05)
    grid = Grid(silent=[101])
    ids = iter([[100, 101]])
    grid.get_node_ids = lambda: next(ids, [100])
    with pytest.raises(peers.NodeLost, match="SuperNode 1 .* is gone"):
        go(grid)


def test_too_few_nodes_and_wrong_parts():
    with pytest.raises(peers.NodeLost, match="1 of 2 SuperNodes"):
        go(Grid(gone=[101]))
    grid = Grid()
    grid.contexts[101].node_config["partition-id"] = 0
    with pytest.raises(BadValue, match=r"\(0, 2\), \(0, 2\)"):
        go(grid)
    grid.contexts[101].node_config.pop("partition-id")
    with pytest.raises(FedloraError, match="does not know which part"):
        go(grid)


def test_other_code_or_data_at_a_node_is_refused(monkeypatch):
    mine = node.ingredients(parsed())
    monkeypatch.setattr(node, "ingredients", lambda spec: {**mine, "torch": "1.0"})
    with pytest.raises(FedloraError, match="torch differs: 1.0 here"):
        go(Grid())


def test_a_node_that_was_started_anew_does_not_go_on():
    """Its clients' own tensors are gone: to go on with fresh ones would be wrong without a sign of it."""
    grid = Grid()

    def forget(kind, target, content):
        if kind == "train":
            grid.contexts[101].state = RecordDict()

    grid.spoil = forget
    with pytest.raises(FedloraError, match="has trained up to round 0, by the server up to 1"):
        go(grid, parsed(method={"name": "fedsa-lora"}))


def changed(change):
    """Spoils what client 3 sends (at node 1)."""

    def spoil(kind, target, content):
        if kind == "train" and target == 101:
            change(content)

    return spoil


def first(content):
    record = content["update-3"]
    return record, next(iter(record))


def replace_first(values):
    def change(content):
        record, name = first(content)
        record[name] = values(record[name])

    return change


def drop(content):
    record, name = first(content)
    del record[name]


def add(content):
    content["update-3"]["stranger"] = Array(np.zeros(3, np.float32))


def lie(array):
    return Array(array.dtype, array.shape, array.stype, b"\x93NUMPY" + array.data[6:-8])


def objects(array):
    """A pickle in the clothes of an array."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    data = buffer.getvalue()
    return Array(array.dtype, array.shape, array.stype, data + b" " * max(0, len(array.data) - len(data)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, "1 missing"),
        (add, "nobody asked for"),
        (replace_first(lambda a: Array(a.numpy()[:1])), "of shape"),
        (replace_first(lambda a: Array(a.numpy().astype(np.float64))), "float64"),
        (replace_first(lambda a: Array(a.numpy() * np.nan)), "NaN"),
        (replace_first(lie), "bytes for|cannot be read"),
        (replace_first(objects), "cannot be read"),
        (replace_first(lambda a: Array(a.dtype, a.shape, a.stype, b"0" * 10**6)), "1000000 bytes"),
        (lambda content: content.pop("update-3"), "missing in the answer"),
        (lambda content: content["result-3"].update({"num-examples": 10**6}), "1000000 examples"),
        (lambda content: content["result-3"].update({"steps": 0}), "0 steps"),
    ],
)
def test_a_damaged_or_hostile_answer_is_refused(change, said):
    with pytest.raises(wire.BadReply, match=said):
        go(Grid(spoil=changed(change)))


def test_divergence_is_recorded_as_in_one_process(tmp_path):
    spec = parsed(local={**LOCAL, "lr": 1e30})
    failures = []
    for start in (
        lambda store: run(spec, device="cpu", store=store),
        lambda store: go(Grid(), spec, store=store),
    ):
        store = Store(tmp_path / str(len(failures)))
        with pytest.raises(RunFailed):
            start(store)
        failures.append(store.failure(spec.key()))
    assert failures[0] == failures[1]
    assert "NaN" in failures[0]["error"]


def test_clients_are_dealt_out_once():
    for clients in range(1, 9):
        for parts in range(1, clients + 1):
            dealt = [clients_of(p, parts, clients) for p in range(parts)]
            assert sorted(k for part in dealt for k in part) == list(range(clients))
            assert all(dealt)


def test_a_node_holds_its_own_examples_only():
    here = node.Node(parsed(), 1, 2, CPU)
    assert here.clients == [1, 3]
    assert [len(c) > 0 for c in here.fed.clients] == [False, True, False, True, False]
    state = here.slot.read()
    with pytest.raises(BadValue, match="client 0 is not held here"):
        here.train(state, {}, [0], 0)


def test_tensors_survive_the_wire_bit_for_bit():
    state = {
        "a": torch.tensor([[1.5, -0.0], [1e-45, 3.4e38]]),
        "b": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,  # not contiguous
        "c": torch.tensor(2.0, dtype=torch.float16),
    }
    kinds = {n: (tuple(t.shape), t.dtype) for n, t in state.items()}
    back = wire.unpack(over_the_wire(RecordDict({"x": wire.pack(state)}))["x"], kinds, "me", CPU)
    assert digest(back) == digest(state)
    with pytest.raises(FedloraError, match="bfloat16"):
        wire.pack({"a": torch.zeros(1, dtype=torch.bfloat16)})


def test_the_records_flower_carries_hold_no_code():
    assert ArrayRecord({"a": Array(np.zeros(2))})["a"].stype == "numpy.ndarray"
    with pytest.raises(wire.BadReply, match="pickle"):
        wire.unpack({"a": Array("float32", (2,), "pickle", b"x")}, {"a": ((2,), torch.float32)}, "x", CPU)
