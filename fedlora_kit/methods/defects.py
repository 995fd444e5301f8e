"""Peculiarities of Fed-HeLLo's released code, by name: off as we read the paper, on to do as the code did.

Most are defects; that clients weigh the same is a rule of which the paper's own is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedlora_kit.errors import BadValue, UnknownName

FREEZE_BY_SUBSTRING = "freeze_by_substring"
SCORE_ONE_LOGIT = "score_one_logit"
UNORDERED_LEVELS = "unordered_levels"
FORGET_SCORES = "forget_scores"
EQUAL_WEIGHTS = "equal_weights"

DEFECTS: dict[str, str] = {
    FREEZE_BY_SUBSTRING: "a layer freezes when the number of an unallocated layer occurs in its own (without "
    "1, 10 and 11 freeze); it is sent all the same, unchanged, and averaged in",
    SCORE_ONE_LOGIT: "layers are scored by the raw logit of one proxy example, not the log-likelihood of all",
    UNORDERED_LEVELS: "the importance levels are in an arbitrary order, that of k-means' labels",
    FORGET_SCORES: "scores count in the round of their refresh only",
    EQUAL_WEIGHTS: "clients weigh the same in the average, however many examples they hold",
}
AS_RELEASED = tuple(DEFECTS)
"""All of them: the released code. (Its other peculiarities are settings of a run: lr 0.0099 without decay,
AdamW with weight decay 0.01, a frozen head, one step a round.)"""


def checked_defects(names: Sequence[str], allowed: Sequence[str]) -> frozenset[str]:
    """The defects to switch on.

    Raises:
        UnknownName: a defect that there is not, or that the method cannot have.
        BadValue: not a list of names.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise BadValue(f"defects={names!r} cannot be used", f"give a list, of: {', '.join(allowed)}")
    for name in names:
        if name not in allowed:
            raise UnknownName("defect of the released code", name, allowed)
    return frozenset(names)


def frozen_by_substring(allocated: Iterable[int], num_layers: int) -> tuple[int, ...]:
    """The allocated layers that freeze although they should train.

    >>> frozen_by_substring([0, 2, 4, 6, 8, 10], 12)  # layer 1 is not allocated, and "1" is in "10"
    (10,)
    >>> frozen_by_substring(range(12), 12)
    ()
    """
    kept = sorted(set(allocated))
    absent = [str(layer) for layer in range(num_layers) if layer not in set(kept)]
    return tuple(layer for layer in kept if any(digits in str(layer) for digits in absent))
