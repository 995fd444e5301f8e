"""The ClientApp: each message names the run, the round and what to do; `node` does it.

Flower starts a process for each message, so what a message does not need is not imported.

A SuperNode is started with ``--node-config 'partition-id=0 num-partitions=2'``, and ``device="cuda:0"`` if it
shall not choose itself. What stays with its clients lies in Flower's context of the run, in this SuperNode's
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedlora_kit.errors import FedloraError, NonFinite, NothingMoved

if TYPE_CHECKING:
    from fedlora_kit.adapter import State
    from fedlora_kit.flower.node import Node

app = ClientApp()


def part_of(context: Any) -> tuple[int, int]:
    """(partition-id, num-partitions) of this SuperNode.

    Raises:
        FedloraError: it was started without them.
    """
    config = context.node_config
    try:
        return int(config["partition-id"]), int(config["num-partitions"])
    except (KeyError, TypeError, ValueError):
        raise FedloraError(
            "this SuperNode does not know which part of the federation it is",
            "start it with --node-config 'partition-id=0 num-partitions=2' (ids from 0)",
        ) from None


def hello(message: Any, context: Any) -> Any:
    """Tell which part of the federation this is."""

    def answer() -> dict[str, Any]:
        part, parts = part_of(context)
        return {"node": ConfigRecord({"partition-id": part, "num-partitions": parts})}

    return _reply(message, answer)


def train(message: Any, context: Any) -> Any:
    """Train the clients that the order names, from the global adapter."""
    from fedlora_kit.flower.wire import pack

    def answer() -> dict[str, Any]:
        order, here, state = _understood(message, context)
        memory = _Memory(context, here)
        memory.must_be_of(int(order["previous"]))
        found = here.train(
            state, memory.personal, order["clients"], int(order["round"]), _scores(message.content)
        )
        memory.keep(int(order["round"]))
        content: dict[str, Any] = {}
        for one in found:
            content[f"update-{one.client}"] = pack(one.payload)
            content[f"result-{one.client}"] = MetricRecord(
                {
                    "num-examples": here.sizes[one.client],
                    "loss": float(one.result.loss),
                    "examples": one.result.examples,
                    "steps": one.result.steps,
                }
            )
        return content

    return _reply(message, answer)


def evaluate(message: Any, context: Any) -> Any:
    """Score this node's own adapters: on the task's scored parts, on held-out examples, or both."""

    def answer() -> dict[str, Any]:
        order, here, state = _understood(message, context)
        memory = _Memory(context, here)
        memory.must_be_of(int(order["previous"]))
        content: dict[str, Any] = {}
        next_round = int(order["round"])
        if order["scored-parts"]:
            for k, scores in here.score_own(state, memory.personal, next_round).items():
                for name, values in scores.items():
                    content[f"scores-{k}-{name}"] = MetricRecord(values)
        if order["held-out"]:
            table = here.score_held_out(state, memory.personal, next_round) or {"clients": []}
            metrics = [name for name in table if name != "clients"]
            for i, k in enumerate(table["clients"]):
                content[f"held-out-{k}"] = MetricRecord({name: table[name][i] for name in metrics})
        return content

    return _reply(message, answer)


app.query()(hello)
app.train()(train)
app.evaluate()(evaluate)


class _Memory:
    """What stays with this node's clients from round to round."""

    def __init__(self, context: Any, here: Node) -> None:
        from fedlora_kit.flower.wire import unpack

        self._records, self._here = context.state, here
        self.personal: dict[int, State] = {}
        for k in here.clients:
            record = self._records.get(f"own-{k}")
            if record is not None:
                kinds = {n: kind for n, kind in here.layout.items() if n in record}  # in model order
                self.personal[k] = unpack(record, kinds, f"the memory of client {k}", here.fed.device)

    def must_be_of(self, round_index: int) -> None:
        """Refuse to go on from another round than the server believes: tensors of clients would be lost."""
        record = self._records.get("trained")
        last = int(record["round"]) if record is not None else -1
        if last != round_index:
            raise FedloraError(
                f"this SuperNode has trained up to round {last + 1}, by the server up to {round_index + 1}",
                "it was started anew and has lost what its clients keep: run again from the first round",
            )

    def keep(self, round_index: int) -> None:
        """Put away what stays with the clients, as of a round."""
        from fedlora_kit.flower.wire import pack

        for k, own in self.personal.items():
            self._records[f"own-{k}"] = pack(own)
        self._records["trained"] = ConfigRecord({"round": round_index})


def _understood(message: Any, context: Any) -> tuple[Mapping[str, Any], Node, State]:
    """The order, this node as the order's run needs it, and the global adapter."""
    from fedlora_kit.flower.node import check_ingredients, ingredients, node
    from fedlora_kit.flower.support import read
    from fedlora_kit.flower.wire import unpack

    order: Mapping[str, Any] = message.content["order"]
    spec = read(str(order["spec"]))
    check_ingredients(ingredients(spec), dict(message.content["ingredients"]))
    part, parts = part_of(context)
    here = node(spec.canonical(), part, parts, str(context.node_config.get("device", "auto")))
    return order, here, unpack(message.content["global"], here.layout, "the server", here.fed.device)


def _scores(content: Any) -> tuple[list[float], int] | None:
    if "layer-scores" not in content:
        return None
    record = content["layer-scores"]
    return list(record["scores"]), int(record["round"])


def _reply(message: Any, answer: Callable[[], dict[str, Any]]) -> Any:
    """The answer as a message; one of the kit's errors travels as data, so that the server can name it."""
    try:
        content = answer()
    except FedloraError as error:
        said: dict[str, Any] = {"problem": error.problem, "remedy": error.remedy, "kind": "error"}
        if isinstance(error, NonFinite):
            said |= {"kind": "non-finite", "what": str(error.args[0]), "round": error.round_index}
            said |= {} if error.client is None else {"client": error.client}
        elif isinstance(error, NothingMoved):
            said["kind"] = "nothing-moved"
        content = {"error": ConfigRecord(said)}
    return Message(RecordDict(content), reply_to=message)
