"""The server's side of the messages: asks the SuperNodes, waits, and checks each answer before it is used."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.errors import BadValue, FedloraError, NonFinite, NothingMoved
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.flower.node import ingredients
from fedlora_kit.flower.support import clients_of
from fedlora_kit.flower.wire import BadReply, cut, layout, pack, padded, unpack
from fedlora_kit.training.cohort import Hooks
from fedlora_kit.training.federation import Federation, Snapshot, is_sent, trained_names
from fedlora_kit.training.local import LocalResult
from fedlora_kit.training.rounds import Answer
from fedlora_kit.training.scores import Scores, global_scores, mean_scores, scores_own

_POLL_SECONDS = 0.25
_LOOK_SECONDS = 10.0  # how often it is asked whether a node that owes an answer is still there


class NodeLost(FedloraError):
    """A SuperNode is gone, or does not answer in time."""


class Peers:
    """The SuperNodes of a run: `training.rounds.Clients` that are elsewhere.

    Args:
        grid: Flower's ``Grid``.
        fed, slot: the federation as the server built it; its method must be bound.
        nodes: how many SuperNodes there must be.
        timeout: seconds for an answer.
        wait: seconds for all nodes to connect.
    """

    def __init__(
        self,
        grid: Any,
        spec: RunSpec,
        fed: Federation,
        slot: AdapterSlot,
        *,
        nodes: int,
        timeout: float,
        wait: float,
    ) -> None:
        self._grid, self._spec, self._fed, self._slot = grid, spec, fed, slot
        self._parts, self._timeout, self._wait = nodes, timeout, wait
        self._layout = layout(slot)
        self._ingredients = ConfigRecord(ingredients(spec))
        self._ids: dict[int, int] = {}  # part -> Flower's id of the node
        self._trained = dict.fromkeys(range(nodes), -1)  # part -> last round in which it trained
        self._learned: Any = None  # the method's last scores of the layers
        self._own, self._held = scores_own(fed), any(held is not None and len(held) for held in fed.held_out)
        self.hooks = Hooks(fed, slot)

    def gather(self) -> None:
        """Wait for the SuperNodes, and learn which part each of them is.

        Raises:
            NodeLost: too few connect in time.
            BadValue: the parts that they were started with are not 0 to nodes - 1, each once.
        """
        deadline = time.monotonic() + self._wait
        while len(found := sorted(self._grid.get_node_ids())) < self._parts:
            if time.monotonic() > deadline:
                raise NodeLost(
                    f"{len(found)} of {self._parts} SuperNodes are connected after {self._wait:g} s",
                    "start the others, or ask for fewer nodes",
                )
            time.sleep(_POLL_SECONDS)
        names = {node: f"the SuperNode with Flower's id {node}" for node in found}
        said = self._ask("query", {node: (node, RecordDict()) for node in found}, names)
        parts = {
            node: (int(reply["node"]["partition-id"]), int(reply["node"]["num-partitions"]))
            for node, reply in said.items()
        }
        if sorted(parts.values()) != [(i, self._parts) for i in range(self._parts)]:
            raise BadValue(
                f"the SuperNodes are parts {sorted(parts.values())} (partition-id, num-partitions)",
                f"start exactly {self._parts}, with partition-id=0 to {self._parts - 1} and "
                f"num-partitions={self._parts}",
            )
        self._ids = {part: node for node, (part, _) in parts.items()}

    def train(
        self, now: Snapshot, clients: Sequence[int], round_index: int, scores: Sequence[float] | None
    ) -> list[Answer]:
        """The local trainings of ``clients``, each at its node, in the order of ``clients``: the result
        does not depend on who answers first.

        Raises:
            BadReply: an answer that is not what the method sends.
            NodeLost: a node is gone or late.
            NonFinite, NothingMoved: a local training failed.
        """
        held = self._by_part(clients)
        shared = {"global": pack(now.state), "ingredients": self._ingredients}
        if scores is not None:
            self._learned = MetricRecord({"scores": [float(s) for s in scores], "round": round_index})
        if self._learned is not None:
            shared["layer-scores"] = self._learned
        orders = {}
        for part, own in held.items():
            order = self._order(part, round_index) | {"clients": own}
            orders[part] = RecordDict({**shared, "order": ConfigRecord(order)})
        replies = self._ask_parts("train", orders)
        answers: dict[int, Answer] = {}
        for part, reply in replies.items():
            self._trained[part] = round_index
            for k in held[part]:
                answers[k] = self._answer(reply, part, k, round_index)
        return [answers[k] for k in clients]

    def evaluate(self, now: Snapshot) -> tuple[Scores, dict[str, list[Any]] | None]:
        """As `training.rounds.Clients.evaluate`; clients that have not trained yet are scored here."""
        own: dict[int, Scores] = {}
        table: dict[str, list[Any]] = {"clients": []}
        if self._own or self._held:
            own, table = self._ask_for_scores(now)
        others = global_scores(self._fed, self._slot, now) if len(own) < len(self._fed.clients) else None
        return mean_scores(own, len(self._fed.clients), others), table if table["clients"] else None

    def _ask_for_scores(self, now: Snapshot) -> tuple[dict[int, Scores], dict[str, list[Any]]]:
        """Own adapters of the clients: scores of those that have one, and the table of `local_scores`."""
        shared = {"global": pack(now.state), "ingredients": self._ingredients}
        asked = {"scored-parts": self._own, "held-out": self._held}
        orders = {
            part: RecordDict({**shared, "order": ConfigRecord(self._order(part, now.next_round) | asked)})
            for part in range(self._parts)
        }
        replies = self._ask_parts("evaluate", orders)
        own: dict[int, Scores] = {}
        table: dict[str, list[Any]] = {"clients": []}
        for k in range(len(self._fed.clients)):
            part = k % self._parts
            reply, who = replies[part], f"SuperNode {part}"
            names = [n for n in self._fed.evals if f"scores-{k}-{n}" in reply]
            if names and names != list(self._fed.evals):
                raise BadReply(f"{who} scored client {k} on {names} only", "run the same version everywhere")
            if names:
                own[k] = {n: _metrics(reply[f"scores-{k}-{n}"], who) for n in names}
            if f"held-out-{k}" in reply:
                table["clients"].append(k)
                for name, value in _metrics(reply[f"held-out-{k}"], who).items():
                    table.setdefault(name, []).append(value)
        return own, table

    def _by_part(self, clients: Sequence[int]) -> dict[int, list[int]]:
        mine = set(clients)
        held = {p: clients_of(p, self._parts, len(self._fed.clients)) for p in range(self._parts)}
        own = {part: [k for k in all_of_it if k in mine] for part, all_of_it in held.items()}
        return {part: some for part, some in own.items() if some}

    def _order(self, part: int, round_index: int) -> dict[str, Any]:
        return {"spec": self._spec.canonical(), "round": round_index, "previous": self._trained[part]}

    def _answer(self, reply: Any, part: int, k: int, round_index: int) -> Answer:
        """What client ``k`` sent, in full shape, if it is what its method sends in this round."""
        fed, who = self._fed, f"SuperNode {part}, client {k}"
        if f"update-{k}" not in reply or f"result-{k}" not in reply:
            raise BadReply(f"{who} is missing in the answer", "run the same version everywhere")
        names = [n for n in trained_names(fed, self._slot, k, round_index) if is_sent(fed, n)]
        more = [n for n in self._slot.names if fed.method.sends_untrained(n, k, round_index)]
        sizes = cut(self._layout, fed.method.rank(k))
        expected = {name: sizes[name] for name in dict.fromkeys([*names, *more])}
        sent = unpack(reply[f"update-{k}"], expected, who, fed.device)
        said = reply[f"result-{k}"]
        held, steps = int(said["num-examples"]), int(said["steps"])
        result = LocalResult(float(said["loss"]), int(said["examples"]), steps)
        if held != len(fed.clients[k]) or steps != fed.local.steps or result.examples < 0:
            raise BadReply(
                f"{who} has {held} examples and took {steps} steps; the server expects "
                f"{len(fed.clients[k])} and {fed.local.steps}",
                "all machines must build the federation from the same description and data",
            )
        if result.examples and not math.isfinite(result.loss):
            raise NonFinite("loss", round_index, k)
        return Answer(k, padded(sent, self._layout), sent, result)

    def _ask_parts(self, kind: str, orders: Mapping[int, Any]) -> dict[int, Any]:
        names = {part: f"SuperNode {part} (of {self._parts})" for part in orders}
        return self._ask(kind, {part: (self._ids[part], order) for part, order in orders.items()}, names)

    def _ask(
        self, kind: str, orders: Mapping[int, tuple[int, Any]], names: Mapping[int, str]
    ) -> dict[int, Any]:
        """Send each order to its node; the contents of the answers, in the order of ``orders``."""
        messages = [
            Message(content, dst_node_id=node, message_type=kind, ttl=max(60.0, 2 * self._timeout))
            for node, content in orders.values()
        ]
        sent = list(self._grid.push_messages(messages))
        if len(sent) != len(orders) or any(not one for one in sent):
            raise NodeLost("the SuperLink did not take a message", "see its log; is the adapter above 2 GiB?")
        waiting = dict(zip(sent, orders, strict=True))
        answers: dict[int, Any] = {}
        failed: list[FedloraError] = []
        now = time.monotonic()
        deadline, look = now + self._timeout, now + _LOOK_SECONDS
        while waiting:
            for reply in self._grid.pull_messages(list(waiting)):
                key = waiting.pop(reply.metadata.reply_to_message_id, None)
                if key is None:
                    continue
                try:
                    answers[key] = _content(reply, names[key])
                except (NonFinite, NothingMoved) as error:
                    failed.append(error)
            now = time.monotonic()
            if waiting and now > look:
                look = now + _LOOK_SECONDS
                there = set(self._grid.get_node_ids())
                gone = [key for key in waiting.values() if orders[key][0] not in there]
                if gone:
                    raise NodeLost(f"{names[gone[0]]} is gone", "see its log; then run again")
            if waiting and now > deadline:
                late = ", ".join(names[key] for key in waiting.values())
                raise NodeLost(
                    f"no answer from {late} within {self._timeout:g} s",
                    "see its log; if it is only slow, give a longer --timeout",
                )
            if waiting:
                time.sleep(_POLL_SECONDS)
        if failed:  # whoever answers first, it is the client that fails first in one process
            raise min(failed, key=lambda e: (getattr(e, "client", None) or 0, str(e)))
        return {key: answers[key] for key in orders}


def _content(reply: Any, who: str) -> Any:
    """The content of an answer; an error in it is raised here, as what it was."""
    if reply.has_error():
        raise NodeLost(f"{who} failed: {reply.error.reason}", "see the log of this SuperNode; then run again")
    if "error" not in reply.content:
        return reply.content
    said = reply.content["error"]
    if said["kind"] == "non-finite":
        client = int(said["client"]) if "client" in said else None
        raise NonFinite(str(said["what"]), int(said["round"]), client)
    if said["kind"] == "nothing-moved":
        raise NothingMoved(str(said["problem"]), str(said["remedy"]))
    raise FedloraError(f"{who}: {said['problem']}", str(said["remedy"]))


def _metrics(record: Any, who: str) -> dict[str, Any]:
    values = dict(record)
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values.values()):
        raise BadReply(f"{who} sent a score that is no finite number", "lower the learning rate")
    return values
