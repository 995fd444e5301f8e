"""The training runs of an item as data: those that are known at once, and those that they choose.

Most items know their runs at once. Some choose a learning rate first: their table's runs are known only when
their grid is done, and until then it is known how many there are and how large they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.running.many import Finished
from fedlora_kit.study.grid import Cell

#: the finished grid -> the table's own cells
After = Callable[[Sequence[tuple[Cell, Finished]]], list[Cell]]


@dataclass(frozen=True)
class Runs:
    """The runs of one item at one profile.

    Attributes:
        first: runs that are needed whatever comes out of them; each once.
        after: the finished ``first`` -> the runs that are chosen by them; None for an item without a choice.
        note: a sentence for a reader, such as why there are none; may be empty.
    """

    first: tuple[Cell, ...] = ()
    after: After | None = None
    note: str = ""

    def specs(self) -> list[RunSpec]:
        """The runs that are needed whatever comes out of them, each once."""
        return _once(cell.spec for cell in self.first)

    def chosen(self, store: Store) -> list[RunSpec] | None:
        """The runs that the finished first ones choose, each once; None while one of those is missing.

        A first run that failed counts as finished, as it does in the notebook.
        """
        if self.after is None:
            return []
        done = []
        for cell in self.first:
            run = _stored(cell.spec, store)
            if run is None:
                return None
            done.append((cell, run))
        return _once(cell.spec for cell in self.after(done))

    def like_chosen(self) -> list[RunSpec]:
        """Stand-ins for the chosen runs, one each: equal to them but for the hyper-parameters chosen.

        Learning rate and clipping norm change nothing of what a run costs.
        """
        if self.after is None:
            return []
        nothing = [(cell, Finished(cell.spec, "", None)) for cell in self.first]
        return _once(cell.spec for cell in self.after(nothing))


def _once(specs: Iterable[RunSpec]) -> list[RunSpec]:
    return list({spec.canonical(): spec for spec in specs}.values())


def _stored(spec: RunSpec, store: Store) -> Finished | None:
    """A run that is over, well or badly, else None."""
    try:
        key = spec.key()
    except FedloraError:  # its data or its backbone are not on this machine: nor can the run be
        return None
    status = store.status(key)
    if status == "failed":
        return Finished(spec, key, None, store.failure(key))
    entry = store.load(key) if status == "finished" else None
    return None if entry is None else Finished(spec, key, entry)
