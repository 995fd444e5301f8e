"""ΔM and ΔD against the formulas vector by vector; reference points; the method's notebook parts."""

import doctest

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.data.batches import shuffled_batches
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.models.components import AXES, component_names, decompose, vector_dim, with_components
from fedlora_kit.papers.fedlora_optimizer import method, setting
from fedlora_kit.papers.fedlora_optimizer import variation as flo_variation
from fedlora_kit.papers.fedlora_optimizer.variation import client_adapters, variation
from fedlora_kit.study.claims import judge_all

A, B = "layers.3.q.lora_A.weight", "layers.3.q.lora_B.weight"


def test_doctests():
    assert doctest.testmod(flo_variation).failed == 0


def adapters(tasks, points, seed, rank=2, width=5, out=3):
    g = torch.Generator().manual_seed(seed)
    return {
        task: {
            p: {A: torch.randn(rank, width, generator=g), B: torch.randn(out, rank, generator=g)}
            for p in points
        }
        for task in tasks
    }


def slow(now, then, rows):
    """DoRA's formulas, one vector at a time; ``then`` is (lengths, directions)."""
    vectors = now.double().numpy() if rows else now.double().numpy().T
    dm = dd = 0.0
    for vector, length, direction in zip(vectors, *then, strict=True):
        dm += abs(np.linalg.norm(vector) - length)
        cosine = vector @ direction / np.linalg.norm(vector) / np.linalg.norm(direction)
        dd += 1 - cosine
    return dm / len(vectors), dd / len(vectors)


def parts(matrix, rows):
    vectors = matrix.double().numpy() if rows else matrix.double().numpy().T
    lengths = [np.linalg.norm(v) for v in vectors]
    return lengths, [v / n for v, n in zip(vectors, lengths, strict=True)]


@settings(deadline=None, max_examples=25)
@given(
    axis=st.sampled_from(AXES),
    reference=st.sampled_from(list(flo_variation.REFERENCES)),
    rank=st.integers(1, 3),
    width=st.integers(1, 5),
    out=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_variation_equals_the_formulas(axis, reference, rank, width, out, seed):
    points = (5, 10, 20)
    states = adapters(("qa", "ie"), points, seed, rank, width, out)
    frame = variation(states, axis, reference)
    assert len(frame) == 2 * 2 * (3 if reference == "tasks" else 2)
    for row in frame.to_dict("records"):
        name = A if row["factor"] == "A" else B
        rows = (row["factor"] == "A") == (axis == "rank")
        now = states[row["task"]][row["steps"]][name]
        if reference == "tasks":
            both = [parts(states[t][row["steps"]][name], rows) for t in states]
            then = tuple(np.mean([b[i] for b in both], axis=0) for i in (0, 1))
            if min(np.linalg.norm(v) for v in then[1]) < 1e-9:
                continue  # the tasks' directions cancel
        else:
            place = points.index(row["steps"])
            before = points[0] if reference == "first" else points[place - 1]
            then = parts(states[row["task"]][before][name], rows)
        magnitude, direction = slow(now, then, rows)
        assert row["magnitude"] == pytest.approx(magnitude, abs=1e-9)
        assert row["direction"] == pytest.approx(direction, abs=1e-9)
        assert row["layer"] == 3


def test_a_change_of_one_component_is_seen_in_that_one_alone():
    start = adapters(("qa",), (1,), seed=0)["qa"][1]
    magnitude, _ = decompose(start[B], vector_dim(B, "rank"))
    longer = with_components(start, {component_names(B)[0]: magnitude + 0.5}, "rank")
    frame = variation({"qa": {1: start, 2: longer}}, "rank", "first").set_index("factor")
    assert frame.loc["B", "magnitude"] == pytest.approx(0.5, abs=1e-6)
    assert frame.loc["B", "direction"] == pytest.approx(0, abs=1e-9)
    assert frame.loc["A", ["magnitude", "direction"]].tolist() == pytest.approx([0, 0], abs=1e-9)


def test_what_has_no_direction_or_no_reference_is_refused(tmp_path):
    states = adapters(("qa",), (0, 5), seed=0)
    states["qa"][0][B] = torch.zeros(3, 2)
    with pytest.raises(BadValue, match="B starts at 0"):
        variation(states, "rank", "first")
    with pytest.raises(BadValue, match="only one"):
        variation(states, "rank", "tasks")
    with pytest.raises(BadValue, match="only one"):
        variation(adapters(("qa", "ie"), (5,), seed=0), "rank", "previous")
    with pytest.raises(UnknownName, match="first"):
        variation(states, "rank", "start")
    with pytest.raises(BadValue, match="local-only"):
        client_adapters(tmp_path)


def test_a_longer_training_begins_with_the_batches_of_a_shorter_one():
    """So that runs of 5 and of 20 steps are two points of one trajectory."""
    few, many = (
        [b.tolist() for b in shuffled_batches(23, 4, steps, np.random.default_rng(1))] for steps in (5, 20)
    )
    assert many[:5] == few


def test_the_methods_claims_and_figure():
    start = adapters(("qa",), (1,), seed=3)["qa"][1]
    module = A.removesuffix(".lora_A.weight")
    _, direction = decompose(start[A], vector_dim(A, "rank"))
    magnitude, _ = decompose(start[B], vector_dim(B, "rank"))
    turned = with_components(start, {component_names(A)[1]: direction.flip(1)}, "rank")
    longer = with_components(start, {component_names(B)[0]: 2 * magnitude}, "rank")
    good = pd.concat(
        [
            method.step_frame(start, turned, "rank").assign(stage="global optimiser"),
            method.step_frame(start, longer, "rank").assign(stage="local optimiser of client 0"),
        ]
    )
    assert {j.verdict.status for j in judge_all(method.claims(), good)} == {"reproduced"}
    negative = with_components(start, {component_names(B)[0]: -2 * magnitude}, "rank")
    changes = method.step_frame(start, negative, "rank").set_index("component")["change"]
    assert changes["B_M"] == pytest.approx(float(3 * magnitude.max()), rel=1e-5)
    assert changes.drop("B_M").max() < 1e-6
    both = method.step_frame(start, {**turned, B: longer[B]}, "rank").assign(stage="global optimiser")
    judged = [j.verdict.status for j in judge_all(method.claims(), both)]
    assert judged == ["not reproduced", "not testable"]
    shapes = method.shapes(start, module, "vector").set_index("tensor")["shape"]
    assert shapes.to_dict() == {
        "A": "2 × 5",
        "A_M": "1 × 5",
        "A_D": "2 × 5",
        "B": "3 × 2",
        "B_M": "3 × 1",
        "B_D": "3 × 2",
    }
    said = [
        t.get_text() for ax in method.figure(start, module).findobj() if hasattr(ax, "get_text") for t in [ax]
    ]
    assert {"global optimiser", "local optimisers", "$A_D$   (unit vectors)"} <= set(said)


def test_settings():
    for profile in setting.PROFILES:
        s = setting.setting("fedlora-optimizer/method", profile)
        spec = setting.spec(s, "fedlora-optimizer", 1, axis="vector")
        assert spec.data.server_examples > 0
        assert spec.data.client_holdout > 0
        assert s.backbone in " ".join(setting.deviations(s))
    for bad in ({"rounds": 0}, {"lr": -1.0}, {"seeds": 0}):
        with pytest.raises(BadValue, match=next(iter(bad))):
            setting.setting("fedlora-optimizer/method", "smoke", **bad)
