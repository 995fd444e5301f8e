"""Fed-HeLLo's released defects, one at a time, as data."""

import dataclasses

import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods.defects import AS_RELEASED, DEFECTS, frozen_by_substring
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.papers.fed_hello import released_vs_described as released
from fedlora_kit.papers.fed_hello.modes import MODES
from fedlora_kit.study.claims import judge_all

ALL = released.chosen_variants(None)


def mode_setting():
    return grid.setting(
        "item", grid.PROFILES, "smoke", seeds=1, mode="as_released", splits=["pat_10"], methods=["fed-hello"]
    )


def test_every_variant_switches_on_what_it_says_and_nothing_else():
    s = released.setting("smoke", seeds=1)
    made = {c.coords["variant"]: c.spec for c in released.cells(s, ALL)}
    assert set(made) == {*DEFECTS, "as_described", "constant_rate", "as_released"}
    assert len({spec.canonical() for spec in made.values()}) == len(made)
    assert made["as_released"] == grid.cells(mode_setting())[0].spec
    for variant, spec in made.items():
        on = spec.method.settings.get("defects", [])
        expected = AS_RELEASED if variant == "as_released" else [variant] if variant in DEFECTS else []
        assert list(on) == list(expected)
        constant = variant in {"constant_rate", "as_released"}
        assert (spec.local.lr, spec.local.lr_decay) == ((0.0099, 1.0) if constant else (0.01, 0.99))


def test_as_described_is_the_run_of_table_2():
    table2 = {c.spec.canonical() for c in grid.cells(grid.PROFILES["smoke"])}
    assert all(
        c.spec.canonical() in table2 for c in released.cells(released.setting("smoke"), ["as_described"])
    )


def test_the_claims():
    rows = [
        {
            "split": "pat_10",
            "variant": variant,
            "task": "digits",
            "seed": seed,
            "accuracy_best": 60.0 - 5 * (variant != "as_described") + 0.1 * seed * len(variant),
        }
        for variant in ALL
        for seed in range(3)
    ]
    judged = judge_all(released.claims(ALL), pd.DataFrame(rows))
    assert {j.verdict.status for j in judged} == {"reproduced"}
    assert len(judged) == len(ALL) - 1
    shallow = judge_all(released.claims(ALL, depth=4), pd.DataFrame(rows))
    untested = {j.claim.id: j.verdict.reason for j in shallow if j.verdict.status == "not testable"}
    assert set(untested) == {"costs_freeze_by_substring"}
    assert "4 layers" in untested["costs_freeze_by_substring"]
    deep = judge_all(released.claims(ALL, depth=12), pd.DataFrame(rows))
    assert {j.verdict.status for j in deep} == {"reproduced"}
    same = pd.DataFrame(rows).assign(accuracy_best=60.0)
    assert {j.verdict.status for j in judge_all(released.claims(ALL), same)} == {"not reproduced"}


@pytest.mark.parametrize(("depth", "acts"), [(4, False), (10, False), (11, True), (12, True)])
def test_freezing_by_substring_needs_eleven_layers(depth, acts):
    halves = [range(0, depth, 2), range(1, depth, 2), range(depth // 2), range(depth // 2, depth)]
    assert any(frozen_by_substring(layers, depth) for layers in halves) == acts


def test_parameters_are_checked():
    for bad, kind in ((["fixed"], UnknownName), ([], BadValue), (["as_released"] * 2, BadValue)):
        with pytest.raises(kind):
            released.chosen_variants(bad)
    assert "layer 10" in " ".join(released.deviations(released.setting("smoke")))
    assert "layer 10" not in " ".join(released.deviations(released.setting("paper")))


def test_the_released_mode_of_each_method():
    on = {}
    for cell in grid.cells(grid.setting("item", grid.PROFILES, "smoke", seeds=1, mode="as_released")):
        method, spec = cell.coords["method"], cell.spec
        assert (spec.local.lr, spec.local.lr_decay) == (0.0099, 1.0)
        on[method] = (spec.method.name, spec.method.settings.get("defects", []))
    layerwise = ["freeze_by_substring", "equal_weights"]
    assert on == {
        "straggler": ("straggler", layerwise),
        "exclusive": ("exclusive", ["equal_weights"]),
        "fedra": ("rgd-hla", layerwise),
        "hetlora": ("hetlora", []),
        "flexlora": ("flexlora", []),
        "fed-hello": ("fed-hello", list(AS_RELEASED)),
        "lora": ("lora", []),
    }
    with pytest.raises(UnknownName, match="mode"):
        grid.setting("item", grid.PROFILES, "smoke", mode="as_is")
    said = [" ".join(released.deviations(dataclasses.replace(grid.PROFILES["paper"], mode=m))) for m in MODES]
    assert "as we read the paper" in said[0]
    assert "mode=as_released: every" in said[1]
