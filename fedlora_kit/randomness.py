"""One seed, many independent random streams.

A run draws at random for several purposes: the split, the cohort of a round, the order of the data, the
noise. With one generator for all of them, a method that draws once more than another gets another split
and other cohorts at the same seed, and the comparison is between different experiments. Here every
purpose has a stream of its own, derived from the seed and the stream's name alone: what one stream
consumes never moves another.

The derivation is SHA-256 over a plain text, so it does not depend on platform, process or Python's hash
seed; numpy's PCG64 and torch's generators take over from there.
"""

from __future__ import annotations

import hashlib
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from fedlora_kit.errors import BadValue, UnknownName

if TYPE_CHECKING:
    import torch

STREAMS: frozenset[str] = frozenset(
    {"partition", "cohort", "allocation", "init", "data", "noise", "dropout", "pretrain", "subset", "augment"}
)
"""The purposes there are. A fixed set, so that a misspelt name is an error and not a new stream."""

_VERSION = "fedlora-kit streams 1"  # part of every digest: a change of the derivation is a change of all runs


@dataclass(frozen=True)
class Streams:
    """The random streams of one run.

    Args:
        seed: the run's seed, a non-negative integer of any size.

    Raises:
        BadValue: the seed is not a non-negative integer.

    Each method takes the stream's name and any number of ids (integers or strings): the data order of
    client 2 in round 7 is ``("data", 7, 2)``. Ids of different type or number name different streams.

    >>> streams = Streams(0)
    >>> streams.generator("data", 7, 2).integers(100, size=3).tolist()
    [55, 50, 20]
    >>> streams.seed("init") == Streams(0).seed("init") != Streams(1).seed("init")
    True
    """

    seed_value: int

    def __init__(self, seed: int = 0) -> None:
        object.__setattr__(self, "seed_value", checked_seed(seed))

    def _digest(self, purpose: str, name: str, ids: tuple[int | str, ...]) -> bytes:
        if name not in STREAMS:
            raise UnknownName("random stream", name, STREAMS)
        # repr keeps 1 and "1" apart, and quotes a string: no two lists of ids give the same text.
        text = "\n".join([_VERSION, purpose, repr(self.seed_value), name, *map(_id_text, ids)])
        return hashlib.sha256(text.encode()).digest()

    def generator(self, name: str, *ids: int | str) -> np.random.Generator:
        """A fresh numpy generator at the start of the stream.

        Raises:
            UnknownName: no such stream.
            BadValue: an id is neither an integer nor a string.
        """
        entropy = int.from_bytes(self._digest("numpy", name, ids), "big")
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def seed(self, name: str, *ids: int | str) -> int:
        """A seed in [0, 2**63) for whatever takes an integer. Same errors as :meth:`generator`."""
        return int.from_bytes(self._digest("seed", name, ids)[:8], "big") >> 1

    def torch(self, name: str, *ids: int | str, device: str | torch.device = "cpu") -> torch.Generator:
        """A fresh torch generator on ``device``, seeded with :meth:`seed`.

        torch's CPU generator looks at the low 32 bits of its seed only: among n streams some two are equal
        with a probability of about n²/2³³ (1 in 860 for 3 clients × 1000 rounds). Numbers drawn on a GPU
        differ from those drawn on the CPU.
        """
        import torch

        generator = torch.Generator(device=device)
        generator.manual_seed(self.seed(name, *ids))
        return generator


def checked_seed(seed: object) -> int:
    """``seed`` as a Python integer; BadValue if it is not a non-negative integer."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise BadValue(f"seed {seed!r} cannot be used", "give an integer of 0 or more")
    return int(seed)


#: seeds of one item, at most: a number far above is a seed that somebody meant, not how many of them
MOST_SEEDS = 1000


def checked_seeds(seeds: object) -> range:
    """So many seeds, from 0: ``range(seeds)``; BadValue if it is no whole number from 1 to `MOST_SEEDS`."""
    whole = isinstance(seeds, numbers.Integral) and not isinstance(seeds, bool)
    if not whole or not 1 <= cast(int, seeds) <= MOST_SEEDS:
        raise BadValue(
            f"seeds={seeds!r} cannot be used",
            f"give the number of seeds, 1 to {MOST_SEEDS} (they are counted from 0; claims need at least 2)",
        )
    return range(int(cast(int, seeds)))


def _id_text(value: object) -> str:
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return repr(int(value))
    raise BadValue(
        f"id {value!r} of a random stream has type {type(value).__name__}", "give integers or strings as ids"
    )
