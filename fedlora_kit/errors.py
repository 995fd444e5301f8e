"""The errors a user can meet: each names the thing that is wrong and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedloraError(Exception):
    """One clear error.

    Args:
        problem: what is wrong, naming the thing ("unknown task 'sst3'").
        remedy: what to do about it; shown on a line of its own.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem, remedy)

    def __str__(self) -> str:
        return f"{self.problem}\n  -> {self.remedy}" if self.remedy else self.problem


class UnknownName(FedloraError):
    """A name that is not in a registry: lists the known names, the nearest first."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}", f"{hint}known: {', '.join(names) or 'none'}")
        self.args = (kind, name, names)  # keeps the error picklable: workers send it to their parent


class BadValue(FedloraError):
    """A value that cannot be used: names the key, the value and what is allowed."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a notebook's stop button, while runs were trained; a notebook shows it as one line.

    Args:
        kept: what is not lost ("3 of 8 runs are finished and kept").
    """

    def __init__(self, kept: str) -> None:
        super().__init__(f"stopped: {kept}; run the cell again to go on")

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


class NothingMoved(FedloraError):
    """A local training changed no trained tensor: the typical silent failure of this field."""


class NonFinite(FedloraError):
    """A loss or an adapter became NaN or infinite; the run stops here.

    Args:
        what: what became non-finite ("loss").
        round_index: federated round, counted from 0; the message, as all that people read, counts from 1.
        client: client id, counted from 0; None where the global adapter was evaluated.
    """

    def __init__(self, what: str, round_index: int, client: int | None) -> None:
        where = "in the evaluation" if client is None else f"at client {client}"
        super().__init__(
            f"{what} became NaN or infinite in round {round_index + 1} {where}",
            "lower the learning rate, or clip the gradients",
        )
        self.round_index = round_index
        self.client = client
        self.args = (what, round_index, client)
