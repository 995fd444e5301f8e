"""Partitioners of Flower's ``flwr-datasets``, by their class's name: ``flwr:DirichletPartitioner``.

The library is not part of the kit, and its releases up to 0.6 ask for an older `datasets` than the kit does;
the partitioners do without: ``python -m pip install --no-deps flwr-datasets``.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.partition.base import Indices, Partitioner, register_family

#: what the kit fills in
_FILLED = ("num_partitions", "seed", "self")


@dataclass(frozen=True)
class FromFlwr(Partitioner):
    """A partitioner of ``flwr-datasets``: it sees a data set with the columns "label" and "group".

    The examples are shuffled by the kit's seed first, as Flower's ``FederatedDataset`` does, and the seed is
    handed on where a class takes one.

    Args:
        num_clients: what Flower calls ``num_partitions``. A class that takes the number from the data, as
            NaturalIdPartitioner does, must find as many.
        kind: the class's name.
        settings: its further arguments, as JSON; ``partition_by`` is "label" if not given.
        seed: of the shuffling and of the class.

    Raises:
        FedloraError: ``flwr-datasets`` is not installed.
        UnknownName: no such class or argument.
        BadValue: the class refuses its arguments or the data, or makes another number of parts.
    """

    name: ClassVar[str] = "flwr"
    library: ClassVar[str] = "flwr-datasets"

    kind: str = "IidPartitioner"
    settings: str = "{}"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._made()

    def _made(self) -> Any:
        """The library's own partitioner."""
        try:
            from flwr_datasets import partitioner as module
        except ModuleNotFoundError as error:
            raise FedloraError(
                f"partitioner 'flwr:{self.kind}' is of flwr-datasets, which is not installed",
                "python -m pip install --no-deps flwr-datasets",
            ) from error
        base = module.Partitioner
        known = {n for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base)}
        if self.kind not in known - {base.__name__}:
            raise UnknownName("partitioner of flwr-datasets", self.kind, known - {base.__name__})
        cls = getattr(module, self.kind)
        takes = set(inspect.signature(cls.__init__).parameters) - {"self"}
        given: dict[str, Any] = {"partition_by": "label"} if "partition_by" in takes else {}
        given |= json.loads(self.settings)
        for setting in given:
            if setting not in takes or setting in _FILLED:
                raise UnknownName(f"setting of flwr:{self.kind}", setting, takes - set(_FILLED))
        given |= {"num_partitions": self.num_clients} if "num_partitions" in takes else {}
        given |= {"seed": self.seed} if "seed" in takes else {}
        try:
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise BadValue(f"flwr:{self.kind}: {error}", "see the class's documentation") from error

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        import datasets

        order = self._rng().permutation(labels.size)
        columns: dict[str, Any] = {"row": order, "label": labels[order]}
        if groups is not None:
            columns["group"] = groups[order]
        dealt = self._made()
        dealt.dataset = datasets.Dataset.from_dict(columns)
        try:
            number = int(dealt.num_partitions)
            if number != self.num_clients:
                raise BadValue(
                    f"flwr:{self.kind} makes {number} parts of these data, for {self.num_clients} clients",
                    f"give num_clients={number}",
                )
            parts = [dealt.load_partition(client)["row"] for client in range(number)]
        except (ValueError, KeyError, IndexError) as error:
            raise BadValue(
                f"flwr:{self.kind} cannot split these data: {error}", "change its settings"
            ) from error
        return [np.asarray(list(part), dtype=np.int64) for part in parts]


@register_family("flwr")
def from_flwr(kind: str, *, num_clients: int, seed: int = 0, **settings: Any) -> FromFlwr:
    """``partitioner("flwr:<kind>", ...)``: the settings are those of the library's class."""
    try:
        told = json.dumps(settings, sort_keys=True)
    except TypeError as error:
        raise BadValue(f"settings of flwr:{kind}: {error}", "give numbers, texts and lists") from error
    return FromFlwr(num_clients, kind=kind, settings=told, seed=seed)
