"""What each client can afford: groups of clients, and the share of layers or ranks that each can train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fedlora_kit.errors import BadValue

_REMEDY = (
    'give resources={"groups": [6, 3, 1], "layers": [0.5, 0.75, 1.0]}: one number a group, "groups" the '
    'relative sizes, "layers" and "ranks" the fractions that a client of the group can train'
)


class Resources(BaseModel):
    """Groups of clients by what they can train (Fed-HeLLo's resource configuration, RoC).

    Attributes:
        groups: relative sizes of the groups, weakest first: (1, 1, 1) or (6, 3, 1).
        layers: fraction of the model's layers that a client of each group can train, in [0, 1]; all by
            default.
        ranks: fraction of the LoRA rank that a client of each group can train, in (0, 1]; all by default.

    The default is one group that can train everything: then every method equals FedIT.

    >>> roc = Resources(groups=(1, 1, 1), layers=(0.5, 0.75, 1.0))
    >>> [roc.group(k, num_clients=100) for k in (0, 32, 33, 65, 66, 99)]
    [0, 0, 1, 1, 2, 2]
    >>> [roc.num_layers(g, 12) for g in range(3)], [roc.num_layers(g, 4) for g in range(3)]
    ([6, 9, 12], [2, 3, 4])
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    groups: tuple[float, ...] = (1.0,)
    layers: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _all_by_default(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        full = [1.0] * len(given.get("groups", (1.0,)))
        return {**given, "layers": given.get("layers") or full, "ranks": given.get("ranks") or full}

    @model_validator(mode="after")
    def _usable(self) -> Resources:
        if not self.groups or min(self.groups) <= 0:
            raise ValueError(f"groups={self.groups}: every group needs a size above 0")
        for key, values, allowed in (("layers", self.layers, "[0, 1]"), ("ranks", self.ranks, "(0, 1]")):
            if len(values) != len(self.groups):
                raise ValueError(f"{key} has {len(values)} entries for {len(self.groups)} groups")
            if not all(0 <= v <= 1 for v in values) or (key == "ranks" and 0 in values):
                raise ValueError(f"{key}={values}: fractions in {allowed}")
        if not any(self.layers):
            raise ValueError("layers: no group can train any layer")
        return self

    @classmethod
    def of(cls, value: Resources | Mapping[str, Any] | None) -> Resources:
        """Resources from a method's setting; None gives everything to everyone.

        Raises:
            BadValue: an unknown key or an impossible value.
        """
        if isinstance(value, Resources):
            return value
        try:
            return cls.model_validate(value if value is not None else {})
        except (ValidationError, TypeError) as error:
            words = str(error)
            if isinstance(error, ValidationError):
                words = "; ".join(
                    ".".join(map(str, e["loc"])) + (": " if e["loc"] else "") + e["msg"]
                    for e in error.errors(include_url=False)
                ).replace("Value error, ", "")
            raise BadValue(f"resources cannot be used: {words}", _REMEDY) from error

    def only(self, kind: Literal["layers", "ranks"], method: str) -> Resources:
        """These resources, for a method that can share out ``kind`` alone.

        Raises:
            BadValue: the other kind is limited too; the method would silently ignore it.
        """
        other = "ranks" if kind == "layers" else "layers"
        limits = self.ranks if kind == "layers" else self.layers
        if set(limits) != {1.0}:
            raise BadValue(
                f"method {method!r} shares out {kind}, it cannot keep to {other}={list(limits)}",
                f"leave {other!r} out of its resources",
            )
        return self

    @property
    def equal(self) -> bool:
        """Whether every client can train everything."""
        return set(self.layers) == set(self.ranks) == {1.0}

    def group_sizes(self, num_clients: int) -> list[int]:
        """Clients of each group: the integer part of its share, the last group takes the rest.

        >>> Resources(groups=(1, 1, 1)).group_sizes(100), Resources(groups=(6, 3, 1)).group_sizes(100)
        ([33, 33, 34], [60, 30, 10])
        """
        total = math.fsum(self.groups)
        sizes = [int(num_clients * share / total + 1e-9) for share in self.groups[:-1]]
        return [*sizes, num_clients - sum(sizes)]

    def group(self, client: int, num_clients: int) -> int:
        """Group of a client. Ids are dealt in order: the weakest group has the smallest ids (as released)."""
        for group, size in enumerate(self.group_sizes(num_clients)):
            if client < size:
                return group
            client -= size
        raise BadValue(f"there is no client {client + num_clients}", f"ids run from 0 to {num_clients - 1}")

    def num_layers(self, group: int, depth: int) -> int:
        """Layers of a model with ``depth`` layers that a client of the group trains.

        The nearest whole number (halves up), at least 1 where the fraction is above 0.
        """
        return _part(self.layers[group], depth)

    def rank(self, group: int, full: int) -> int:
        """Rank that a client of the group trains, of an adapter of rank ``full``; at least 1."""
        return _part(self.ranks[group], full)


def _part(fraction: float, whole: int) -> int:
    return max(1, math.floor(fraction * whole + 0.5)) if fraction > 0 else 0


ROC_111 = Resources(groups=(1, 1, 1), layers=(0.5, 0.75, 1.0))
"""Fed-HeLLo's RoC 1:1:1: thirds of the clients train 6, 9 and 12 of 12 layers."""
ROC_631 = Resources(groups=(6, 3, 1), layers=(0.5, 0.75, 1.0))
"""Fed-HeLLo's RoC 6:3:1."""
HETLORA_111 = Resources(groups=(1, 1, 1), ranks=(1 / 16, 1 / 4, 1.0))
"""Ranks 1, 4 and 16 of 16: those of the official HETLoRA logs (read off their update norms)."""
