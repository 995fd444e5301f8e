"""What a method is: which tensors train, which are sent, and how updates become the next adapter.

A method holds no tensors and runs no loops; the round loop (`training.rounds`) calls it. It must pass
the shared conformance suite (tests/test_methods.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

from fedlora_kit.adapter import State
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.methods.stages import Stage
from fedlora_kit.randomness import Streams


@dataclass(frozen=True)
class ClientUpdate:
    """What one client sends after its local training.

    Attributes:
        client: client id.
        num_examples: n_k, examples the client holds (never batches): its weight.
        tensors: the sent tensors by canonical name.
    """

    client: int
    num_examples: int
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What a method may know about the federation it serves.

    Attributes:
        num_clients: clients of the federation.
        depth: transformer layers that carry LoRA.
        rank: r of the adapter.
        streams: the run's random streams; a method draws from "allocation" only.
    """

    num_clients: int
    depth: int
    rank: int
    streams: Streams


class Method(ABC):
    """A federated-LoRA method. Subclasses say what trains and what is sent; many need nothing more.

    ``round_index`` counts from 0, as in the records of a run; what people read counts rounds from 1.

    Attributes:
        keeps_factors: whether `aggregate` hands back averages of the factors A and B themselves; if not, new
            factors of the averaged product, of which the product alone has a meaning.
        merges: whether rounds are merged into the base weights; each adapted module then has a tensor more,
            ``lora_residual``, which holds what was merged (`models.residual`).
        proxy_examples: examples that `refresh` reads; no client trains on them.
        proxy: where they come from: "random" or "balanced" training examples, or the task's "external" ones.
        score_one_logit: score as Fed-HeLLo's released code (see `defects`).
        one_global: whether the global adapter is whole by itself. If not (some of LoRA stays with its
            client), the task's scored parts see each client's own adapter, and the mean over all
            clients is given; one that was not drawn yet has what it would start from.
        sends_head: whether an aggregated head is sent; if not, it stays with its client.
        penalises: whether `penalty` gives a term.
        not_private: why the method cannot run under DP; empty if it can.
        server_stage: whether a stage trains at the server, on examples set aside for it.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    source: ClassVar[str] = ""
    keeps_factors: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    proxy_examples: int = 0
    proxy: str = "random"
    score_one_logit: bool = False
    one_global: ClassVar[bool] = True
    sends_head: ClassVar[bool] = True
    penalises: bool = False
    not_private: str = ""
    server_stage: bool = False
    _context: Context | None = None

    def bind(self, context: Context) -> None:
        """Learn about the federation, and forget every run before: called before the first round."""
        self._context = context

    @property
    def context(self) -> Context:
        """The federation that the method serves.

        Raises:
            FedloraError: `bind` was not called.
        """
        if self._context is None:
            raise FedloraError(f"method {self.name!r} serves no federation yet", "call bind(context) first")
        return self._context

    def takes_part(self, client: int, round_index: int) -> bool:
        """Whether a client of the cohort trains at all; if not, it sends nothing, and the head stays too."""
        return True

    @abstractmethod
    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        """Whether the LoRA tensor called ``tensor`` trains at this client in this round.

        Head tensors are not asked for: the head policy decides about them.
        """

    def rank(self, client: int) -> int | None:
        """Rank that a client trains, None for the adapter's own.

        Below it, tensors keep their full shape: rows of A and columns of B beyond the rank are set to zero
        before the first local step and again after each. What travels does not include them.
        """
        return None

    def received_rank(self, client: int, cohort: Sequence[int]) -> int | None:
        """Directions of each module that the server sends to a client, None for the adapter's own rank.

        Args:
            cohort: clients whose updates made up what is sent.
        """
        return self.rank(client)

    def penalty(self, tensors: Mapping[str, torch.Tensor], client: int) -> torch.Tensor | None:
        """A term to add to the loss of each local step, () shaped, or None.

        Args:
            tensors: the adapter as it trains; the term is differentiated with respect to it.
        """
        return None

    def after_training(self, client: int, received: State, trained: Mapping[str, torch.Tensor]) -> None:
        """Learn from a client's local training; the rank of what it sends is asked for after this.

        Args:
            received: what it started from.
            trained: the tensors that trained.
        """
        return

    def memory(self) -> dict[str, Any] | None:
        """What the method has learned and must know again after a resumption: plain data, or None."""
        return None

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take back what `memory` gave, after a `bind`."""
        return

    def present_layers(self, client: int, round_index: int) -> frozenset[int] | None:
        """Layers that stay in the client's model, None for all; its forward pass skips the others."""
        return None

    def refreshes(self, round_index: int) -> bool:
        """Whether the method wants importance scores (see `refresh`) before this round."""
        return False

    def refresh(self, scores: Sequence[float], round_index: int) -> None:
        """Take the importance scores of a round, one a layer, by layer index.

        They are kept until the next call or `bind`. After a resumption the last ones are given again.
        """
        return

    def sends(self, tensor: str) -> bool:
        """Whether a trained LoRA tensor is sent to the server (else it stays with its client)."""
        return True

    def sends_untrained(self, tensor: str, client: int, round_index: int) -> bool:
        """Whether a tensor that did not train is sent all the same, as it came (a defect, see `defects`)."""
        return False

    def local_start(self, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> State:
        """The adapter in which a client's local training starts.

        Args:
            own: what stays with the client: the tensors that it trained and did not send, and what its stages
                left (there also components, see `models.components`).
        """
        return {**global_state, **own}

    def stages(self, round_index: int, last: bool) -> Sequence[Stage]:
        """What follows the aggregation of this round, in order; ``last`` in the last round."""
        return ()

    def stage_start(
        self, stage: Stage, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> State:
        """The adapter in which a stage starts at a client; by default the client's own."""
        return self.personalised(global_state, own)

    def personalised(
        self, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> State:
        """A client's own adapter: the one that its own held-out examples score."""
        return {**global_state, **own}

    def aggregate(self, global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        """The next global adapter: a pure function of the last one and the updates.

        The default is FedAvg: each tensor becomes the mean over the clients that sent it, weighted by
        their numbers of examples; a tensor that no client sent stays as it was, bit for bit.

        Args:
            global_state: canonical name -> tensor, the whole adapter.
            updates: at least one.
        """
        return {**global_state, **weighted_mean(updates)}


def weighted_mean(updates: Sequence[ClientUpdate]) -> State:
    """FedAvg per tensor: sum_k n_k t_k / sum_k n_k over the clients k that sent the tensor.

    Summed in float64 in order of client id, so that the order in which updates arrive changes nothing.

    >>> one = ClientUpdate(0, 1, {"w": torch.tensor([0.0])})
    >>> two = ClientUpdate(1, 3, {"w": torch.tensor([4.0])})
    >>> weighted_mean([two, one])["w"]
    tensor([3.])

    Raises:
        FedloraError: no update, or a client without examples.
    """
    if not updates:
        raise FedloraError("no client sent an update", "the cohort of a round must not be empty")
    ordered = sorted(updates, key=lambda u: u.client)
    empty = [u.client for u in ordered if u.num_examples < 1]
    if empty:
        raise FedloraError(
            f"client {empty[0]} sent an update but holds no example", "leave it out of the cohort"
        )
    alike: dict[tuple[tuple[int, ...], torch.dtype], list[str]] = {}  # summed side by side
    for name in dict.fromkeys(n for u in ordered for n in u.tensors):
        senders = tuple(i for i, u in enumerate(ordered) if name in u.tensors)
        alike.setdefault((senders, ordered[senders[0]].tensors[name].dtype), []).append(name)
    means: State = {}
    for (senders, dtype), names in alike.items():
        total = sum(ordered[i].num_examples for i in senders)
        first = [ordered[senders[0]].tensors[n] for n in names]
        mean = torch.zeros(sum(t.numel() for t in first), dtype=torch.float64, device=first[0].device)
        for i in senders:
            flat = torch.cat([ordered[i].tensors[n].reshape(-1) for n in names]).double()
            mean.add_(flat, alpha=ordered[i].num_examples / total)
        parts = torch.split(mean.to(dtype), [t.numel() for t in first])
        means |= {n: part.view(t.shape) for n, part, t in zip(names, parts, first, strict=True)}
    return {n: means[n] for n in dict.fromkeys(n for u in ordered for n in u.tensors)}


METHODS: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound=type[Method])


def register(cls: _M) -> _M:
    """Class decorator: make a method known by its ``name``.

    Raises:
        BadValue: the class has no name, or another class has taken it.
    """
    if not cls.name:
        raise BadValue(f"{cls.__name__} has no name", "set the class attribute `name`")
    if METHODS.get(cls.name, cls).__qualname__ != cls.__qualname__:
        raise BadValue(f"a method called {cls.name!r} is registered already", "choose another name")
    METHODS[cls.name] = cls
    return cls


def method(name: str, /, **settings: Any) -> Method:
    """The method called ``name``, with its settings.

    Raises:
        UnknownName: no such method; the message lists the known ones.
        BadValue: a setting the method does not have.
    """
    if name not in METHODS:
        error = UnknownName("method", name, METHODS)
        error.remedy += "; one of your own: --with its file (docs/own_paper.md)"
        raise error
    make: Callable[..., Method] = METHODS[name]
    try:
        return make(**settings)
    except TypeError as error:
        given = ", ".join(settings)
        raise BadValue(f"method {name!r} cannot take {given}: {error}", "see its docstring") from error
