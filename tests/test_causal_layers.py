"""Fed-HeLLo's machinery on causal language models: Fisher scores, and layers left out."""

import numpy as np
import pytest
import torch
from tiny_causal import CPU, causal_data, causal_model
from torch.nn import functional as F

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.errors import FedloraError
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.models.targets import layer_index
from fedlora_kit.randomness import Streams
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.fisher import fisher_scores
from fedlora_kit.training.generation import generate
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

LIMITED = {"groups": [1, 1, 1], "layers": [0.5, 0.5, 1.0]}


def adapted():
    """A Llama of 2 layers with an adapter whose B is not zero."""
    model = attach_lora(causal_model(), LoraSettings(rank=2, alpha=3, dropout=0.2), seed=0)
    slot = AdapterSlot(model)
    generator = torch.Generator().manual_seed(1)
    slot.write({n: torch.randn(t.shape, generator=generator) * 0.3 for n, t in slot.read().items()})
    slot.set_trainable(slot.names)
    return model.train(), slot


def test_fisher_scores_are_of_the_log_likelihood_of_the_response():
    model, slot = adapted()
    data = causal_data(4)
    found = fisher_scores(model, slot, data, CPU)
    assert model.training
    model.eval()
    squares = {n: torch.zeros_like(slot.parameters[n]) for n in slot.names}
    for i in range(4):  # the slow loop: token by token, from the plain ids
        tokens = data.tokens[data.offsets[i] : data.offsets[i + 1]].tolist()
        model.zero_grad()
        logits = model(input_ids=torch.tensor([tokens])).logits[0]
        total = torch.zeros(())
        for place in range(data.prompt_lengths[i], len(tokens)):
            total = total + F.log_softmax(logits[place - 1], dim=0)[tokens[place]]
        total.backward()
        for name in slot.names:
            squares[name] += slot.parameters[name].grad ** 2 / 4
    expected = [
        sum(float(square.norm()) for name, square in squares.items() if layer_index(name) == layer)
        for layer in range(2)
    ]
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0


def test_a_response_has_no_one_logit():
    model, slot = adapted()
    with pytest.raises(FedloraError, match="no one logit"):
        fisher_scores(model, slot, causal_data(2), CPU, one_logit=True)


@pytest.mark.parametrize("kept", [{0}, {1}, {0, 1}])
def test_a_model_without_a_layer_is_the_model_with_that_layer_as_identity(kept):
    model, _ = adapted()
    model.eval()
    inputs, _ = causal_data(5).batch(np.arange(5), CPU)
    with torch.no_grad():
        whole = model(**inputs).logits
        with only_layers(model, kept):
            part = model(**inputs).logits
        hooks = [
            layer.register_forward_hook(lambda module, args, output: args[0])
            for i, layer in enumerate(model.base_model.model.model.layers)
            if i not in kept
        ]
        expected = model(**inputs).logits
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(model(**inputs).logits, whole)
    torch.testing.assert_close(part, expected)
    assert torch.equal(part, whole) == (kept == {0, 1})


def test_answers_come_from_the_whole_model_before_and_after():
    model, _ = adapted()
    before = generate(model, causal_data(3), CPU, 10_000)
    with only_layers(model, {1}):
        pass
    assert generate(model, causal_data(3), CPU, 10_000) == before


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("straggler", {"resources": LIMITED}),
        ("exclusive", {"resources": LIMITED}),
        ("fedra", {"resources": LIMITED}),
        ("hetlora", {"resources": {"groups": [1, 1, 1], "ranks": [0.5, 0.5, 1.0]}}),
        ("flexlora", {"resources": {"groups": [1, 1, 1], "ranks": [0.5, 0.5, 1.0]}}),
        ("fed-hello", {"resources": LIMITED, "start": 1, "every": 1, "proxy_examples": 3}),
    ],
)
def test_the_methods_for_unequal_clients_train_causal_models(name, settings):
    fed = Federation(
        model=attach_lora(causal_model(), LoraSettings(rank=4, alpha=4), seed=1),
        method=method(name, **settings),
        clients=[causal_data(n, seed=k) for k, n in enumerate((6, 4, 5))],
        evals={"test": causal_data(3, seed=9)},
        rounds=FederationSettings(rounds=2),
        local=LocalSettings(optimizer="adamw", lr=0.01, steps=1, batch_size=3),
        streams=Streams(0),
        proxy=causal_data(3, seed=7) if name == "fed-hello" else None,
    )
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    assert any(not torch.equal(tensor, start[n]) for n, tensor in outcome.state.items())
    assert all(np.isfinite(h["eval"]["test"]["loss"]) for h in outcome.history)
    if name == "fed-hello":
        assert len(outcome.history[-1]["layer_scores"]) == 2
