"""FedLoRA-Optimizer: averaging by component, its stages, settings, and what each switch leaves out."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import federation

from fedlora_kit.adapter import AdapterSlot, digest
from fedlora_kit.errors import BadValue, NonFinite, UnknownName
from fedlora_kit.methods import ClientUpdate, FedLoRAOptimizer, Stage
from fedlora_kit.models.components import AXES, component_names, decompose, part_of, vector_dim
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings
from fedlora_kit.training.stages import stage_settings

A, B = "m.lora_A.weight", "m.lora_B.weight"
OFF = {"global_trains": None, "local_trains": None}
CLIENTS = {"global_data": "clients"}


def factors(rank, width, out, seed):
    g = torch.Generator().manual_seed(seed)
    return {A: torch.randn(rank, width, generator=g), B: torch.randn(out, rank, generator=g)}


def slow(method, before, updates):
    """Vector by vector in numpy: mean of the lengths, mean of the directions, put together."""
    result = {}
    for name in (A, B):
        rows = (name == A) == (method.axis == "rank")
        stack = [u.tensors[name].double().numpy() for u in updates]
        stack = stack if rows else [m.T for m in stack]
        out = np.zeros_like(stack[0])
        for i in range(len(out)):
            lengths = [np.linalg.norm(m[i]) for m in stack]
            weights = np.array([u.num_examples for u in updates], dtype=float)
            magnitude = (weights * lengths).sum() / weights.sum()
            mean = sum(w * m[i] / n for w, m, n in zip(weights, stack, lengths, strict=True)) / weights.sum()
            if method.renormalise:  # opposite directions cancel: the global adapter's stands
                old = before[name].double().numpy()
                mean = mean if np.linalg.norm(mean) > 1e-12 else (old if rows else old.T)[i]
                mean = mean / np.linalg.norm(mean)
            out[i] = magnitude * mean
        result[name] = torch.from_numpy(out if rows else out.T).float()
    return result


@settings(deadline=None, max_examples=40)
@given(
    rank=st.integers(1, 4),
    width=st.integers(1, 6),
    out=st.integers(1, 6),
    weights=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    axis=st.sampled_from(AXES),
    renormalise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_average_by_component_equals_the_slow_one(rank, width, out, weights, axis, renormalise, seed):
    m = FedLoRAOptimizer(axis=axis, renormalise=renormalise)
    updates = [ClientUpdate(k, n, factors(rank, width, out, seed + 7 * k)) for k, n in enumerate(weights)]
    before = factors(rank, width, out, seed=1000)
    result = m.aggregate(before, updates)
    for name, expected in slow(m, before, updates).items():
        torch.testing.assert_close(result[name], expected, atol=1e-5, rtol=1e-4)
    for order in itertools.islice(itertools.permutations(updates), 6):
        assert digest(m.aggregate(before, list(order))) == digest(result)
    assert digest(m.aggregate(before, updates[:1])) == digest(updates[0].tensors)  # one client: identity
    same = [ClientUpdate(k, n, updates[0].tensors) for k, n in enumerate(weights)]
    for name, t in m.aggregate(before, same).items():
        torch.testing.assert_close(t, updates[0].tensors[name])
    if renormalise:  # lengths are the means of the lengths, so that no disagreement shortens a vector
        dim = vector_dim(A, axis)
        mean = sum(n * u.tensors[A].double().norm(dim=dim) for n, u in zip(weights, updates, strict=True))
        torch.testing.assert_close(
            result[A].double().norm(dim=dim), mean / sum(weights), atol=1e-5, rtol=1e-4
        )


def test_a_vector_of_length_zero_has_no_say_in_the_direction():
    m = FedLoRAOptimizer()
    before = {A: torch.tensor([[0.0, 1.0]])}
    flat = ClientUpdate(0, 9, {A: torch.zeros(1, 2)})
    right = ClientUpdate(1, 1, {A: torch.tensor([[2.0, 0.0]])})
    torch.testing.assert_close(m.aggregate(before, [flat, right])[A], torch.tensor([[0.2, 0.0]]))
    left = ClientUpdate(2, 1, {A: torch.tensor([[-2.0, 0.0]])})
    # opposite directions cancel: the global adapter's stands
    torch.testing.assert_close(m.aggregate(before, [right, left])[A], torch.tensor([[0.0, 2.0]]))
    assert torch.equal(m.aggregate(before, [flat])[A], torch.zeros(1, 2))


def test_a_component_that_comes_alone_leaves_the_other():
    m = FedLoRAOptimizer()
    before = factors(2, 5, 3, seed=0)
    magnitude, direction = decompose(before[A], vector_dim(A, "rank"))
    turned = torch.flip(direction, dims=[1])
    result = m.aggregate(before, [ClientUpdate(0, 4, {component_names(A)[1]: turned})])
    torch.testing.assert_close(result[A].double(), magnitude * turned, atol=1e-6, rtol=1e-6)
    assert torch.equal(result[B], before[B])
    result = m.aggregate(before, [ClientUpdate(k, 4, {component_names(A)[0]: 3 * magnitude}) for k in (0, 1)])
    torch.testing.assert_close(result[A], 3 * before[A])


def moved(before, after, axis="rank"):
    """Which components differ between two adapters, beyond rounding."""
    found = set()
    for n, t in before.items():
        if part_of(n) in ("A", "B"):
            pairs = zip(
                decompose(t, vector_dim(n, axis)), decompose(after[n], vector_dim(n, axis)), strict=True
            )
            for c, (x, y) in zip("MD", pairs, strict=True):
                if not torch.allclose(x, y, atol=1e-6, rtol=1e-5):
                    found.add(f"{part_of(n)}_{c}")
    return found


def run(**changes):
    fed = federation("fedlora-optimizer", **{"rounds": FederationSettings(rounds=1), **changes})
    return fed, run_federation(fed)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("part", ["A_M", "A_D", "B_M", "B_D"])
@pytest.mark.parametrize("data", ["server", "clients"])
def test_the_global_optimiser_moves_its_component_alone(part, data, axis):
    # a small rate: a magnitude that crosses zero would turn the direction round
    rate = 0.003 if part.endswith("M") else 0.1
    base = {"axis": axis, "local_trains": None, "global_lr": rate}
    _, without = run(settings={**base, "global_trains": None})
    _, with_it = run(settings={**base, "global_trains": part, "global_data": data})
    assert moved(without.state, with_it.state, axis) == {part}
    assert with_it.personal == {}
    (stage,) = with_it.history[0]["stages"]
    assert stage["clients"] == ([] if data == "server" else [0, 1, 2])
    assert (stage["bytes_up"] > 0) == (data == "clients")
    assert with_it.history[0]["bytes_up"] == without.history[0]["bytes_up"] + stage["bytes_up"]


@pytest.mark.parametrize("part", ["A_M", "A_D", "B_M", "B_D"])
def test_local_optimisers_keep_their_component_and_leave_the_global_adapter(part):
    _, without = run(settings=OFF)
    fed, with_it = run(settings={"global_trains": None, "local_trains": part})
    assert digest(with_it.state) == digest(without.state)
    assert sorted(with_it.personal) == [0, 1, 2]
    for own in with_it.personal.values():
        assert {part_of(n) for n in own} == {part}
        assert moved(with_it.state, fed.method.personalised(with_it.state, own)) == {part}
    assert with_it.history[0]["stages"][0]["bytes_up"] == 0


def test_off_and_off_is_averaging_by_component_alone():
    _, outcome = run(settings=OFF)
    assert "stages" not in outcome.history[0]
    _, fedit = run(settings=OFF, sizes=(12,))
    assert digest(fedit.state) == digest(
        run_federation(federation("lora", (12,), rounds=FederationSettings(rounds=1))).state
    )


def test_the_joint_structure_shares_one_part_and_keeps_the_other():
    _, without = run(settings=OFF)
    fed, joint = run(settings={"structure": "joint"})
    assert [s["name"] for s in joint.history[0]["stages"]] == ["joint"]
    assert moved(without.state, joint.state) == {"A_D"}
    for own in joint.personal.values():
        assert {part_of(n) for n in own} == {"B_M"}
    assert fed.method.server_stage is False


def test_when_stages_run():
    def names(**given):
        method = FedLoRAOptimizer(**given)
        return [[s.name for s in method.stages(r, last=r == 2)] for r in range(3)]

    both, glob = ["global optimiser", "local optimisers"], ["global optimiser"]
    assert names() == [glob, glob, both]
    assert names(global_when="end") == [[], [], both]
    assert names(local_when="every_round") == [both, both, both]
    assert names(structure="joint") == [["joint"]] * 3
    assert names(structure="joint", global_when="end") == [[], [], ["joint"]]
    everyone = [s.everyone for s in FedLoRAOptimizer(local_when="every_round").stages(0, last=False)]
    assert everyone == [False, False]
    assert [s.everyone for s in FedLoRAOptimizer().stages(5, last=True)] == [False, True]


def test_in_the_last_round_everyone_gets_an_adapter():
    rounds = FederationSettings(rounds=1, cohort=1)
    _, outcome = run(rounds=rounds)
    assert sorted(outcome.personal) == [0, 1, 2]
    assert len(outcome.history[0]["cohort"]) == 1


def test_carried_magnitudes_start_where_they_were():
    given = {"local_when": "every_round", "global_trains": None}
    every = FederationSettings(rounds=2)
    _, fresh = run(settings=given, rounds=every)
    _, carried = run(settings={**given, "personal_start": "carried"}, rounds=every)
    _, at_the_end = run(settings={"global_trains": None}, rounds=every)
    # from the global adapter each time, what was kept in between changes nothing
    assert digest(fresh.state) == digest(at_the_end.state)
    assert {k: digest(o) for k, o in fresh.personal.items()} == {
        k: digest(o) for k, o in at_the_end.personal.items()
    }
    assert digest(carried.state) != digest(fresh.state)


def test_stage_settings_fall_back_on_the_local_ones():
    local = LocalSettings(optimizer="adamw", lr=0.5, lr_decay=0.5, steps=7, weight_decay=0.1)
    same = stage_settings(Stage("s", "server", ("A_D",)), local, 2)
    assert (same.steps, same.rate(2), same.weight_decay) == (7, 0.125, 0.0)
    other = stage_settings(Stage("s", "clients", ("A", "B"), steps=3, lr=0.01), local, 2)
    assert (other.steps, other.rate(2), other.weight_decay) == (3, 0.01, 0.1)


def test_a_stage_that_diverges_is_named():
    with pytest.raises(NonFinite, match="stage 'global optimiser'"):
        run(settings={"global_trains": "A_M", "global_lr": 1e300})
    with pytest.raises(NonFinite, match="stage 'local optimisers'") as error:
        run(settings={"global_trains": None, "local_lr": 1e300, "local_steps": 2})
    assert error.value.client == 0


def test_bad_settings():
    for chosen, kind, said in (
        ({"axis": "rows"}, UnknownName, "axis"),
        ({"renormalise": 1}, BadValue, "renormalise"),
        ({"structure": "both"}, UnknownName, "structure"),
        ({"global_trains": "A"}, UnknownName, "global_trains"),
        ({"local_trains": ["B_M", "B_M"]}, BadValue, "local_trains"),
        ({"local_trains": []}, BadValue, "local_trains"),
        ({"global_data": "hub"}, UnknownName, "global_data"),
        ({"global_when": "never"}, UnknownName, "global_when"),
        ({"global_steps": 0}, BadValue, "global_steps"),
        ({"local_lr": -1}, BadValue, "local_lr"),
        ({"personal_start": "own"}, UnknownName, "personal_start"),
        ({"structure": "joint", "local_trains": None}, BadValue, "joint"),
        ({"structure": "joint", "local_trains": "A_D"}, BadValue, "joint"),
    ):
        with pytest.raises(kind, match=said):
            FedLoRAOptimizer(**chosen)
    with pytest.raises(BadValue, match="no examples there"):
        run(server=None)
    run(server=None, settings=CLIENTS)
    for bad in (("A", "A_D"), (), ("A_D", "A_D")):
        with pytest.raises(BadValue, match="trains"):
            Stage("s", "clients", bad)
    with pytest.raises(BadValue, match="shares"):
        Stage("s", "clients", ("A_D",), shares=("B_M",))
    with pytest.raises(BadValue, match="server"):
        Stage("s", "server", ("A_D",), shares=("A_D",))


@pytest.mark.parametrize("kind", ["vit", "llama"])
def test_other_architectures_and_a_personal_head(kind):
    fed, outcome = run(kind=kind, lora=LoraSettings(rank=2, head="personal"))
    for own in outcome.personal.values():
        assert {part_of(n) for n in own} == {"B_M", None}
        AdapterSlot(fed.model).write(fed.method.personalised(outcome.state, own))
