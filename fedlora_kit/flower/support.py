"""Which runs can be spread over machines: what cannot is refused, with the reason."""

from __future__ import annotations

import json

from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments import own_code
from fedlora_kit.experiments.own_parts import external
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.methods import method
from fedlora_kit.methods.base import Context
from fedlora_kit.randomness import Streams


def read(text: str) -> RunSpec:
    """A run's description, as the server or a node gets it; what is the user's own there is imported first.

    Raises:
        FedloraError: it is no JSON, or names what this machine does not know.
        BadValue: see `RunSpec.parse`.
    """
    own_code.modules()
    try:
        return RunSpec.parse(json.loads(text))
    except json.JSONDecodeError as error:
        raise FedloraError(f"the run config's spec is no JSON: {error}", "write the app anew") from error
    except UnknownName as error:
        raise FedloraError(
            f"{error.problem} on this machine",
            f"{error.remedy}; for one of your own start each SuperLink and SuperNode with "
            f"{own_code.VARIABLE}=/path/to/the/file.py",
        ) from error


def why_not(spec: RunSpec) -> str:
    """Why a run cannot be spread over machines; empty if it can."""
    chosen = method(spec.method.name, **spec.method.settings)
    if external(spec):
        return "it names a task, method or partitioner that a notebook's cell defines"
    chosen.bind(Context(spec.split.clients, 1, spec.model.lora.rank, Streams(spec.seed)))
    last = spec.rounds.rounds - 1
    if any(chosen.stages(r, last=r == last) for r in range(spec.rounds.rounds)):
        return f"method {chosen.name!r} trains in stages after the aggregation, and these are not sent"
    if chosen.memory() is not None:
        return f"method {chosen.name!r}, as set, learns at its clients, and what it learns is not sent"
    return ""


def check_support(spec: RunSpec, nodes: int) -> None:
    """Refuse a run that cannot be spread over ``nodes`` SuperNodes.

    Raises:
        BadValue: the run cannot be spread at all, or there are more nodes than clients.
    """
    problem = why_not(spec)
    if problem:
        raise BadValue(
            f"the run cannot be spread over machines: {problem}", "run it in one process: fedlora_kit run()"
        )
    if not 1 <= nodes <= spec.split.clients:
        raise BadValue(
            f"{nodes} nodes for {spec.split.clients} clients", f"choose 1 to {spec.split.clients} nodes"
        )


def clients_of(part: int, parts: int, num_clients: int) -> list[int]:
    """The clients that a node holds: k with k % parts == part.

    >>> clients_of(1, 2, 5)
    [1, 3]
    """
    return list(range(part, num_clients, parts))
