"""Verdicts that are looked at again, with other seeds: every look has a level of its own.

The two-sided intervals of the first look leave out α = 5 %, those of the second α / 2, of the third α / 4,
and so on without an end: 95 %, 97.5 %, 98.75 %, … That is alpha spending (Lan and DeMets, Biometrika 70,
1983) by Bonferroni's inequality over the looks, without the joint distribution of their statistics. So it
holds for every test that gives an interval, for any number of seeds at any number of looks, and whatever
makes somebody look again. The boundaries of Pocock (1977) and of O'Brien and Fleming (1979) are narrower, but
want normal means, looks at equal steps and the last one fixed beforehand.

What it guarantees: on either side the looks together spend 2.5 % + 1.25 % + … ≤ 5 %. So, at whichever look,

- a claim that does not hold is ever called reproduced with a chance of at most 5 %;
- a claim of "better" or "steadier" that holds is ever called contradicted with a chance of at most 5 %.
  (One of "similar" with 10 %, if its margin is far below the noise.)

Where the truth lies on the margin itself no claim of "better" holds, so that only the first is an error; that
one of the looks decides at all has a chance of at most 10 % there. The first look alone spends half of it: a
table that nobody adds seeds to is judged as if there were no looks. This is of one claim, not of all of an
item's, and it assumes what the claim's own test assumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ALPHA = 0.05
"""What a first look's intervals leave out, on both sides together; also what all looks spend on one side."""

_look: ContextVar[int] = ContextVar("look", default=1)


def confidence(further: int = 0) -> float:
    """Of the two-sided intervals at the present look, or so many looks later.

    >>> confidence(), confidence(1), confidence(2)
    (0.95, 0.975, 0.9875)
    """
    return 1 - ALPHA * 0.5 ** (_look.get() - 1 + further)


def interval_name(further: int = 0) -> str:
    """Such an interval in words; its look is named from the second one on.

    >>> with at_look(3):
    ...     interval_name()
    'look 3, 98.75 % interval'
    """
    look = _look.get() + further
    return (f"look {look}, " if look > 1 else "") + f"{100 * confidence(further):g} % interval"


@contextmanager
def at_look(number: int) -> Iterator[None]:
    """Within the block intervals are those of look ``number``, counted from 1; elsewhere it is 1."""
    token = _look.set(number)
    try:
        yield
    finally:
        _look.reset(token)
