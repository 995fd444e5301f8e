"""Fed-HeLLo's costs by group, counted on modules of ViT-B/16's shape without weights."""

import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers import fed_hello_grid as grid
from fedlora_kit.papers import fed_hello_resources as resources
from fedlora_kit.papers.claims import judge_all


@pytest.fixture(scope="module")
def costs():
    return resources.costs()


def test_the_counts_by_hand(costs):
    table = costs.set_index(["method", "group"])
    layer = resources.LAYER_PARAMETERS
    assert layer == 49_152
    for name in ("fedra", "fed-hello"):
        assert [table.loc[(name, g), "trained_parameters"] for g in resources.GROUPS] == [
            6 * layer,
            9 * layer,
            12 * layer,
        ]
    for name in ("hetlora", "flexlora"):  # ranks 1, 4 and 16 of 16
        assert [table.loc[(name, g), "trained_parameters"] for g in resources.GROUPS] == [
            12 * layer // 16,
            12 * layer // 4,
            12 * layer,
        ]
    assert (costs["sent_bytes"] == 4 * costs["trained_parameters"]).all()
    assert (costs["training_bytes"] == 16 * costs["trained_parameters"]).all()  # value, gradient, two moments


def test_a_cohort_sends_by_the_sizes_of_the_groups(costs):
    table = resources.per_round(costs).set_index("method")
    assert table.loc["exclusive", "1:1:1"] == pytest.approx(3.4 * 2.359296)
    assert table.loc["exclusive", "6:3:1"] == pytest.approx(2.359296)
    assert table.loc["lora", "1:1:1"] == table.loc["lora", "6:3:1"] == pytest.approx(23.59296)


def test_the_claims(costs):
    assert {j.verdict.status for j in judge_all(resources.claims(), costs)} == {"reproduced"}
    wrong = costs.assign(sent_bytes=costs["sent_bytes"] + 4, trained_parameters=1)
    assert {j.verdict.status for j in judge_all(resources.claims(), wrong)} == {"not reproduced"}
    missing = judge_all(resources.claims(), costs[costs["method"] == "lora"])
    assert {j.verdict.status for j in missing} == {"not testable"}


def test_a_smaller_model_costs_less():
    small = resources.costs(["lora"], {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 4})
    assert small["trained_parameters"].tolist() == [4 * 2 * 2 * 16 * 96] * 3


def test_parameters_are_checked():
    assert resources.checked("smoke", None) == list(grid.METHODS)
    with pytest.raises(UnknownName, match="profile"):
        resources.checked("tiny", None)
    with pytest.raises(UnknownName, match="method"):
        resources.checked("smoke", ["ffa-lora"])
    with pytest.raises(BadValue):
        resources.checked("smoke", ["lora", "lora"])
