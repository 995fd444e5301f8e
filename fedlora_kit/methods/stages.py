"""What may follow a round's aggregation: stages, each with what it trains, where, on what, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.models.components import AXES, PARTS

#: when a stage runs: after every round's aggregation, or after the last one's only
WHEN = ("every_round", "end")


@dataclass(frozen=True)
class Stage:
    """A training after a round's aggregation. The head, and what ``trains`` does not name, stay as they are.

    At the server, the global adapter trains on the server's examples. At clients, each of them trains on its
    own examples, in the adapter `Method.stage_start` gives it; then the tensors in ``shares`` are sent and
    become the next global adapter by `Method.aggregate`, and the others stay with the client.

    Attributes:
        name: its name in the history, and of its random draws.
        where: "server" or "clients".
        trains: of "A", "B" (whole factors) and "A_M", "A_D", "B_M", "B_D" (magnitudes and directions).
        shares: those of ``trains`` that clients send; at the server all of them are global.
        everyone: all clients train, not the round's cohort only.
        steps: optimiser steps; None takes the local training's.
        lr: learning rate; None takes the local training's of the round.
        axis: of magnitude and direction (see `models.components`).
        pull: strength of the proximal term, pull / 2 |v - w|² with w the global adapter (Ditto's lambda).
    """

    name: str
    where: Literal["server", "clients"]
    trains: tuple[str, ...]
    shares: tuple[str, ...] = ()
    everyone: bool = False
    steps: int | None = None
    lr: float | None = None
    axis: str = "rank"
    pull: float = 0.0

    def __post_init__(self) -> None:
        checked_parts(f"stage {self.name!r}", self.trains)
        if self.axis not in AXES:
            raise UnknownName("axis of magnitude and direction", self.axis, AXES)
        if not set(self.shares) <= set(self.trains):
            raise BadValue(
                f"stage {self.name!r} shares {list(self.shares)} and trains {list(self.trains)}",
                "share what trains",
            )
        if self.where == "server" and self.shares:
            raise BadValue(f"stage {self.name!r} is at the server", "share nothing there: all is global")

    @property
    def factors(self) -> tuple[str, ...]:
        """Factors that train by their components: "A", "B"."""
        return tuple(sorted({part[0] for part in self.trains if "_" in part}))


def checked_parts(what: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """``parts`` if they can train together.

    Raises:
        UnknownName: no such part.
        BadValue: none; one twice; or a factor as a whole and by a component.
    """
    for part in parts:
        if part not in PARTS:
            raise UnknownName(f"part that {what} trains", part, PARTS)
    clash = {p for p in parts if len(p) == 1} & {p[0] for p in parts if len(p) > 1}
    if not parts or len(set(parts)) < len(parts) or clash:
        raise BadValue(
            f"{what} trains {list(parts)}",
            "name at least one part, each once, and a factor either whole or by its components",
        )
    return parts
