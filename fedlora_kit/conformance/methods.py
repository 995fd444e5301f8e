"""The invariants of a federated-LoRA method, each as a function of its registered name.

They run a method on tiny models (`conformance.tiny`); all of `CHECKS` take a few seconds. What a method
says of itself (``keeps_factors``, ``merges``, ``one_global``, ``not_private``) decides what is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from fedlora_kit.adapter import AdapterSlot, State, digest
from fedlora_kit.conformance.tiny import data
from fedlora_kit.conformance.tiny import federation as tiny_federation
from fedlora_kit.data.batches import shuffled_batches
from fedlora_kit.errors import BadValue
from fedlora_kit.methods import METHODS, ClientUpdate, Method, method
from fedlora_kit.models.components import component_names
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.federation import Federation, Outcome, is_sent, trained_names
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

Shapes = dict[str, tuple[int, ...]]

SHAPES: Shapes = {"m.lora_A.weight": (2, 5), "m.lora_B.weight": (3, 2), "head.bias": (4,)}
"""An adapter of rank 2 on a non-square Linear 5 -> 3, and a piece of a head."""
WITHOUT_STAGES: dict[str, dict[str, Any]] = {
    "fedlora-optimizer": {"global_trains": None, "local_trains": None}
}
"""Settings in which a method does nothing beside local training and aggregation."""


def federation(name: str, *sizes: tuple[int, ...], **given: Any) -> Federation:
    """`tiny.federation` under way, where B is not zero: what must hold holds there, too, and a method may
    begin with A alone. One that merges its rounds begins each with B = 0.
    """
    return tiny_federation(name, *sizes, under_way=not METHODS[name].merges, **given)


def shapes(m: Method) -> Shapes:
    """`SHAPES` as this method's adapter has them."""
    return {**SHAPES, "m.lora_residual.weight": (3, 5)} if m.merges else SHAPES


def sent_shapes(m: Method) -> Shapes:
    """Those of `SHAPES` that client 0 sends in round 0."""
    return {n: s for n, s in SHAPES.items() if ".lora_" not in n or (m.trains(n, 0, 0) and m.sends(n))}


def random_updates(
    names: Mapping[str, Sequence[int]], weights: Iterable[int], seed: int
) -> list[ClientUpdate]:
    """An update a client with normal random tensors of these shapes; ``weights``: examples of each client."""
    generator = torch.Generator().manual_seed(seed)
    return [
        ClientUpdate(k, n, {name: torch.randn(tuple(s), generator=generator) for name, s in names.items()})
        for k, n in enumerate(weights)
    ]


def product(state: Mapping[str, torch.Tensor], module: str) -> torch.Tensor:
    """B A of one module, (out, in); LoRA's shapes are A (r, in), B (out, r)."""
    return state[f"{module}.lora_B.weight"] @ state[f"{module}.lora_A.weight"]


def meaning(name: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What two adapters of a method must share: the tensors, or for some methods only the products B A."""
    if METHODS[name].keeps_factors:
        return dict(state)
    modules = [n.removesuffix(".lora_A.weight") for n in state if ".lora_A" in n]
    rest = {n: t for n, t in state.items() if ".lora_" not in n}
    both = {m: product(state, m) for m in modules if f"{m}.lora_B.weight" in state}
    merged = {m: state.get(f"{m}.lora_residual.weight", 0.0) for m in both}  # in the base weights already
    return {**{m: both[m] + merged[m] for m in both}, **rest}


def whole(fed: Federation, outcome: Outcome, client: int = 0) -> State:
    """The adapter that a method's training made: the global one, or a client's where there is none."""
    own = outcome.personal.get(client, {})
    return outcome.state if fed.method.one_global else fed.method.personalised(outcome.state, own)


def aggregates_purely(
    name: str, weights: Sequence[int] = (5, 1, 90), seed: int = 0, order: Sequence[int] = (2, 0, 1)
) -> None:
    """The aggregate is a function of the set of updates: of neither their order nor the scale of the weights;
    it leaves its inputs alone and gives a whole adapter.

    Args:
        order: of the clients, the second time.
    """
    m = method(name)
    start = {n: torch.full(s, 0.25) for n, s in shapes(m).items()}
    updates = random_updates(sent_shapes(m), weights, seed)
    before = digest(start), [digest(u.tensors) for u in updates]
    result = m.aggregate(start, updates)
    unchanged = (digest(start), [digest(u.tensors) for u in updates]) == before
    _hold(unchanged, "aggregate changes its inputs; make new tensors")
    again = m.aggregate(start, [updates[k] for k in order])
    _hold(digest(again) == digest(result), "another order of the clients gives another aggregate")
    found = {n: tuple(t.shape) for n, t in result.items()}
    _hold(found == shapes(m), f"aggregate gives {found}, and should give a whole adapter, {shapes(m)}")
    scaled = [ClientUpdate(u.client, u.num_examples * 7, u.tensors) for u in updates]
    for n, t in m.aggregate(start, scaled).items():
        _close(t, result[n], f"{n}: seven times as many examples at every client changes the aggregate")


def keeps_equal_updates(name: str) -> None:
    """If all clients send the same, that is the aggregate."""
    m = method(name)
    start = {n: torch.zeros(s) for n, s in shapes(m).items()}
    one = random_updates(sent_shapes(m), [5], seed=1)[0]
    result = meaning(name, m.aggregate(start, [ClientUpdate(k, 5 + k, one.tensors) for k in range(4)]))
    for n, t in meaning(name, one.tensors).items():
        _close(result[n], t, f"{n}: all clients sent the same, and the aggregate is another")


def leaves_the_rest(name: str) -> None:
    """A tensor that no client sent stays as it was, bit for bit."""
    m = method(name)
    start = {n: torch.randn(s) for n, s in shapes(m).items()}
    result = m.aggregate(start, random_updates({"head.bias": (4,)}, [1, 2], seed=0))
    for n in start.keys() - {"head.bias"}:
        _hold(torch.equal(result[n], start[n]), f"{n} was not sent by any client, and has changed")


def is_local_training_with_one_client(name: str, kind: str = "roberta") -> None:
    """A federation of one client for R rounds of S steps is R fresh optimisers on the same batches.

    Args:
        kind: architecture, one of `tiny.ARCHITECTURES`.
    """
    # new factors of the same product train in another way from then on: such a method is followed for 1 round
    rounds = 2 if METHODS[name].keeps_factors else 1
    plain: dict[str, Any] = {"kind": kind, "settings": WITHOUT_STAGES.get(name)}
    fed = federation(name, (12,), rounds=FederationSettings(rounds=rounds), **plain)
    adapter = whole(fed, run_federation(fed))
    fed = federation(name, (12,), **plain)
    slot = AdapterSlot(fed.model)
    fed.model.train()
    for r in range(rounds):
        slot.set_trainable(trained_names(fed, slot, 0, r))
        optimizer = torch.optim.SGD([slot.parameters[n] for n in slot.trainable], lr=0.1)
        for batch in shuffled_batches(12, 4, 3, fed.streams.generator("data", r, 0)):
            inputs, labels = fed.clients[0].batch(batch, torch.device("cpu"))
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(fed.model(**inputs).logits, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    result = meaning(name, adapter)
    for n, t in meaning(name, slot.read()).items():
        _close(
            result[n], t, f"{n}: one client alone does not get what plain local training gives", 1e-6, 1e-5
        )


def counts_equal_clients_as_one(name: str) -> None:
    """Clients with the same data, in full batches, give what one of them alone gives."""
    clients = [data("roberta", 8, seed=7)] * 3
    fed = federation(name, clients=clients, local=LocalSettings(lr=0.1, steps=2, batch_size=8))
    alone = federation(name, clients=clients[:1], local=fed.local)
    result = meaning(name, whole(fed, run_federation(fed), client=2))
    for n, t in meaning(name, whole(alone, run_federation(alone))).items():
        _close(result[n], t, f"{n}: three clients with the same data are not like one", 1e-6, 1e-5)


def moves_what_it_trains(name: str, privacy: PrivacySettings | None = None) -> None:
    """Exactly what the method says trains has moved after two rounds, and exactly what it sends has moved in
    the global adapter. A method that cannot run under DP refuses to.
    """
    fed = federation(name, privacy=privacy)
    if privacy is not None and METHODS[name].not_private:
        try:
            run_federation(fed)
        except BadValue as error:
            _hold(f"{name}' cannot run under DP" in error.problem, f"it refuses DP with: {error.problem}")
            return
        raise AssertionError(f"{name} says `not_private`, and runs under DP")
    start = AdapterSlot(fed.model).read()
    outcome = run_federation(fed)
    slot, clients = AdapterSlot(fed.model), range(len(fed.clients))
    trained = {n for r in range(fed.rounds.rounds) for k in clients for n in trained_names(fed, slot, k, r)}
    moves = {n for n in start if ".lora_residual" in n} if fed.method.merges else trained
    for n, t in whole(fed, outcome).items():
        _hold(torch.equal(t, start[n]) == (n not in moves), f"{n} moved, or should have: see `trains`")
    for n, t in outcome.state.items():
        stays = n not in moves or not is_sent(fed, n)
        _hold(torch.equal(t, start[n]) == stays, f"{n} moved in the global adapter, or should: see `sends`")


def moves_what_it_trains_under_dp(name: str) -> None:
    """`moves_what_it_trains` with clipping and noise."""
    moves_what_it_trains(name, PrivacySettings(sigma=0.5, clip=1.0))


def keeps_what_is_the_clients(name: str, head: str = "aggregated") -> None:
    """What is not sent is in no update; a client's own adapter is the global one but for what it keeps.

    Args:
        head: head policy, "aggregated" or "personal".
    """
    fed = federation(name, lora=LoraSettings.model_validate({"rank": 2, "head": head}))
    kept = {n for n in AdapterSlot(fed.model).names if not is_sent(fed, n)}
    seen: set[str] = set()
    aggregate = fed.method.aggregate

    def spy(global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        seen.update(n for u in updates for n in u.tensors)
        return aggregate(global_state, updates)

    object.__setattr__(fed.method, "aggregate", spy)  # also where the method is a frozen dataclass
    outcome = run_federation(fed)
    _hold(not kept & seen, f"{sorted(kept & seen)} should stay at the client, and reached the server")
    _hold(set(outcome.state) == set(AdapterSlot(fed.model).names), "the global adapter is not whole")
    for client, own in outcome.personal.items():
        adapter = fed.method.personalised(outcome.state, own)
        AdapterSlot(fed.model).write(adapter)  # it fits: keys and shapes
        for n in outcome.state:
            if not {n, *component_names(n)} & own.keys():
                same = torch.equal(adapter[n], outcome.state[n])
                _hold(same, f"{n} of client {client} is neither its own nor the global one")
    keepers = [digest(fed.method.personalised(outcome.state, own)) for own in outcome.personal.values()]
    _hold(len(set(keepers)) == len(keepers), "clients with different data have the same own adapter")


def leaves_the_backbone(name: str) -> None:
    """No frozen weight moves."""
    fed = federation(name, lora=LoraSettings(rank=2, head="aggregated"))

    def frozen() -> dict[str, torch.Tensor]:
        return {n: p for n, p in fed.model.named_parameters() if ".lora_" not in n and "classifier" not in n}

    before = digest({n: p.clone() for n, p in frozen().items()})
    run_federation(fed)
    _hold(digest(frozen()) == before, "a weight of the backbone has moved")


CHECKS: tuple[Callable[[str], None], ...] = (
    aggregates_purely,
    keeps_equal_updates,
    leaves_the_rest,
    is_local_training_with_one_client,
    counts_equal_clients_as_one,
    moves_what_it_trains,
    moves_what_it_trains_under_dp,
    keeps_what_is_the_clients,
    leaves_the_backbone,
)
"""All that a method must hold; each takes its registered name."""

OF_AN_AVERAGE: tuple[Callable[[str], None], ...] = (keeps_equal_updates, is_local_training_with_one_client)
"""Those of `CHECKS` that hold only where the aggregate is an average of the updates. A server that steps
further than to the average breaks them: the test of such a method leaves these out and says so. A server that
remembers between rounds (momentum, in `Method.memory`) breaks `aggregates_purely`, too, which asks one
object for several aggregates of the same round.
"""


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _close(
    found: torch.Tensor, expected: torch.Tensor, otherwise: str, atol: float = 1e-5, rtol: float = 1.3e-6
) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol, msg=lambda m: f"{otherwise}\n{m}")
