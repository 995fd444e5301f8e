"""Fed-HeLLo's costs by group, counted on modules of ViT-B/16's shape without weights."""

import pytest
import torch
from tiny import backbone

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.targets import layer_index
from fedlora_kit.papers.fed_hello import grid, resources
from fedlora_kit.planning.step_costs import step_cost
from fedlora_kit.study.claims import judge_all


@pytest.fixture(scope="module")
def costs():
    return resources.costs(rounds=2)


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
    for name in ("hetlora", "flexlora", "flora"):  # ranks 1, 4 and 16 of 16
        assert [table.loc[(name, g), "trained_parameters"] for g in resources.GROUPS] == [
            12 * layer // 16,
            12 * layer // 4,
            12 * layer,
        ]
    assert (costs["sent_bytes"] == 4 * costs["trained_parameters"]).all()
    assert (costs["training_bytes"] == 16 * costs["trained_parameters"]).all()  # value, gradient, two moments


def test_what_goes_down_by_hand(costs):
    got = costs.set_index(["method", "group"])["received_bytes"]
    layer = 4 * resources.LAYER_PARAMETERS
    assert set(got["lora"]) == set(got["fed-hello"]) == {12 * layer}  # all layers pass through all clients
    assert got["fedra"].tolist() == [6 * layer, 9 * layer, 12 * layer]  # absent layers are not sent
    assert got["hetlora"].tolist() == [12 * layer // 16, 12 * layer // 4, 12 * layer]
    assert set(got["flora"]) == {12 * layer * (3 * 1 + 3 * 4 + 4 * 16) // 16}  # the stack, to everybody


def test_steps_cost_what_the_layers_say(costs):
    table = costs.set_index(["method", "group"])
    full = table.loc[("lora", "strong")]
    assert full["forward_flops"] == pytest.approx(35.3e9, rel=0.01)  # 2 x 17.6e9 of ViT-B/16, and LoRA's
    assert (table.loc["exclusive"].loc[["weak", "middle"], "activation_bytes"] == 0).all()
    fedra = table.loc["fedra"]
    half = (fedra.loc["weak", "forward_flops"] - fedra.loc["strong", "forward_flops"] / 2) / 1e9
    assert 0 < half < 0.3  # six layers and the patches
    for name in ("fed-hello", "fedra", "hetlora"):
        for column in ("activation_bytes", "backward_flops"):
            cost = table.loc[name][column]  # layers are drawn: a middle client may be lucky in two rounds
            assert cost["weak"] < cost["strong"]
            assert cost["middle"] < cost["strong"]
    flora, hetlora = table.loc["flora"], table.loc["hetlora"]  # merged into the base, the stack costs nothing
    assert flora["forward_flops"].tolist() == hetlora["forward_flops"].tolist()
    assert flora["activation_bytes"].tolist() == hetlora["activation_bytes"].tolist()
    straggler = table.loc["straggler"]
    assert straggler["backward_flops"].nunique() == 1
    # layer 0 trains: the backward pass reaches as far down as that of a client that trains everything
    assert straggler["backward_flops"].iloc[0] > 0.97 * full["backward_flops"]


@pytest.mark.parametrize("lowest", [0, 1, 3])
def test_a_step_without_weights_costs_what_a_real_one_does(lowest):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    costs = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            model = attach_lora(backbone("vit", num_hidden_layers=4), LoraSettings(rank=2), seed=0).train()
        slot = AdapterSlot(model)
        slot.set_trainable([n for n in slot.names if layer_index(n) >= lowest])
        with sdpa_kernel(SDPBackend.MATH):
            costs.append(step_cost(model, torch.zeros(5, 1, 4, 4, device=device)))
    assert costs[0] == costs[1]
    assert costs[0].backward_flops > 0


def test_a_cohort_sends_by_the_sizes_of_the_groups(costs):
    table = resources.per_round(costs).set_index("method")
    assert table.loc["exclusive", "1:1:1"] == pytest.approx(3.4 * 2.359296)
    assert table.loc["exclusive", "6:3:1"] == pytest.approx(2.359296)
    assert table.loc["lora", "1:1:1"] == table.loc["lora", "6:3:1"] == pytest.approx(23.59296)


def test_the_claims(costs):
    assert {j.verdict.status for j in judge_all(resources.claims(), costs)} == {"reproduced"}
    wrong = costs.assign(sent_bytes=costs["sent_bytes"] + 4, trained_parameters=1, backward_flops=1.0)
    assert {j.verdict.status for j in judge_all(resources.claims(), wrong)} == {"not reproduced"}
    missing = judge_all(resources.claims(), costs[costs["method"] == "lora"])
    assert {j.verdict.status for j in missing} == {"not testable"}


def test_a_smaller_model_costs_less():
    small = resources.costs(["lora"], {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 4})
    assert small["trained_parameters"].tolist() == [4 * 2 * 2 * 16 * 96] * 3


def test_parameters_are_checked():
    assert resources.checked("smoke", None) == [*grid.METHODS, "flora"]
    with pytest.raises(UnknownName, match="profile"):
        resources.checked("tiny", None)
    with pytest.raises(UnknownName, match="method"):
        resources.checked("smoke", ["ffa-lora"])
    with pytest.raises(BadValue):
        resources.checked("smoke", ["lora", "lora"])
