"""A fixed number of classes a client, each in one domain only: the split of Fed-HeLLo on DomainNet-121."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue
from fedlora_kit.partition.base import Indices, Partitioner, choice, register, whole
from fedlora_kit.partition.pathological import class_holders


@register
@dataclass(frozen=True)
class PathologicalDomains(Partitioner):
    """Every client holds ``classes_per_client`` classes, and sees each of them in a single domain.

    Args:
        num_clients: number of clients.
        classes_per_client: classes that a client holds.
        leftovers: ``"deal"`` shares out all examples of a class in a domain among the holders who got that
            domain (sizes within 1). ``"drop"`` gives each of them ``|class| // domains // holders``, or an
            equal part of what the domain has if that is less, and nobody gets the rest.
        seed: seed of the dealing and the cuts.

    Classes are dealt as in `Pathological`. Then the holders of a class get its domains, in random order: each
    domain once, and as many more, drawn at random, as there are holders left. So a client's domains differ
    from class to class. Where a class has fewer examples in a domain than holders there, some of them
    get none, and hold a class less. The domain of each example is the ``groups`` argument of ``split``.

    Source: Fed-HeLLo (arXiv 2506.12213) as released, the branch of its partitioner for data with domains,
    which drops the leftovers. There the domains of all classes count, here those that a class has. There the
    holders with the lowest numbers get each domain once, and the others share with them, so that low numbers
    hold more; as the numbers decide about the resources, too, that is not done here.

    Raises:
        BadValue: no groups; more classes a client than there are; a class that nobody would hold; fewer
            holders of a class than it has domains.

    >>> labels, domains = np.arange(24) % 2, np.arange(24) // 12
    >>> parts = PathologicalDomains(4, 1, seed=1).split(labels, groups=domains)
    >>> [(set(labels[part].tolist()), set(domains[part].tolist()), len(part)) for part in parts]
    [({1}, {1}, 6), ({0}, {1}, 6), ({1}, {0}, 6), ({0}, {0}, 6)]
    """

    name: ClassVar[str] = "pathological_domains"

    classes_per_client: int
    leftovers: str = "deal"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("classes_per_client", whole("classes_per_client", self.classes_per_client, least=1))
        self._set(
            "leftovers",
            choice("leftovers of partitioner 'pathological_domains'", self.leftovers, ("deal", "drop")),
        )

    def deals_all(self) -> bool:
        return self.leftovers == "deal"

    def _deal(self, labels: Indices, groups: npt.NDArray[Any] | None) -> list[Indices]:
        if groups is None:
            raise BadValue(
                "partitioner 'pathological_domains' needs the domain of each example, and there is none",
                "split a task with a group_column (such as domainnet), or use partitioner 'pathological'",
            )
        rng = self._rng()
        parts: list[list[Indices]] = [[] for _ in range(self.num_clients)]
        held = class_holders(labels, self.num_clients, self.classes_per_client, rng)
        for label, clients in held.items():
            rows = np.flatnonzero(labels == label)
            domains, member = np.unique(groups[rows], return_inverse=True)
            assigned = self._domains(label, domains.size, len(clients), rng)
            for domain in range(domains.size):
                mine = rng.permutation(rows[member == domain])
                there = rng.permutation(np.array(clients)[assigned == domain])  # the first get one more
                pieces = np.array_split(mine, len(there))
                if self.leftovers == "drop":
                    most = rows.size // domains.size // len(there)
                    pieces = [piece[: min(most, mine.size // len(there))] for piece in pieces]
                for client, piece in zip(there, pieces, strict=True):
                    parts[client].append(piece)
        return [np.concatenate(part) for part in parts]

    def _domains(self, label: int, domains: int, holders: int, rng: np.random.Generator) -> Indices:
        """(holders,) the domain of each holder of a class."""
        if holders < domains:
            raise BadValue(
                f"class {label} has {domains} domains and only {holders} holders: some domain is left over",
                "give more clients or a larger classes_per_client",
            )
        extra = rng.integers(domains, size=holders - domains)
        return rng.permutation(np.concatenate([np.arange(domains), extra]))
