"""A text task of sixteen unequal classes, in the words of the built-in text: the topic of a sentence.

A topic is a deed and a thing ("fix my bike"), each said in one of two words (``repair``, ``bicycle``).
The sentence asks about its topic, and mentions another thing, or another deed and thing, in an aside: ``the
boat was sold but how can i repair my bike``. So the words of a sentence as a bag do not tell its topic; what
is asked does. The topics are unequally frequent, the commonest about seven times as frequent as the rarest,
so that macro and micro F1 differ.

Training and validation examples are disjoint: a hash of the text decides. No sentence stands in the
pre-training corpus of ``kit/text-tiny``, where nothing has such an aside.
"""

from __future__ import annotations

import random

import numpy as np

from fedlora_kit.data.builtin import grammar as g
from fedlora_kit.data.builtin.text import is_evaluation
from fedlora_kit.data.class_names import TOPICS
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, UnknownName

SIZES = {"train": 4000, "validation": 600}
_FORMS = ("{aside} but {asked}", "although {aside} , {asked}", "{asked} although {aside}")


def topic_shares() -> list[float]:
    """How frequent each topic is; they sum to 1."""
    # 7 shares no factor with 16: every weight occurs once, and neighbours (a deed's topics) are unlike
    weights = [1.0 / (2.5 + 7 * label % len(TOPICS)) for label in range(len(TOPICS))]
    return [weight / sum(weights) for weight in weights]


def topics(split: str) -> Examples:
    """The task's ``train`` or ``validation`` part: one column of different sentences, labels 0 to 15.

    Raises:
        UnknownName: no such part.
    """
    if split not in SIZES:
        raise UnknownName("part of topics", split, SIZES)
    rng = random.Random(f"topics|{split}")
    seen: dict[str, int] = {}
    edges = np.cumsum(topic_shares())
    while len(seen) < SIZES[split]:
        label = min(int(np.searchsorted(edges, rng.random(), side="right")), len(TOPICS) - 1)
        text = _fresh(rng, label, split == "validation", seen)
        seen[text] = label
    return Examples((list(seen),), np.array(list(seen.values()), dtype=np.int64))


def _fresh(rng: random.Random, label: int, evaluation: bool, seen: dict[str, int]) -> str:
    for _ in range(1000):
        text = _sentence(rng, label)
        if is_evaluation("topics", (text,)) == evaluation and text not in seen:
            return text
    raise BadValue(f"there are no more sentences on {TOPICS[label]}", "ask for fewer")


def _sentence(rng: random.Random, label: int) -> str:
    deed, good = g.DEEDS[label // len(g.GOODS)], g.GOODS[label % len(g.GOODS)]
    asked = g.pick(rng, g.ASKINGS).format(g.pick(rng, deed), g.pick(rng, good))
    thing = g.pick(rng, g.other(rng, g.GOODS, good))
    if g.chance(rng, 0.5):
        aside = f"the {thing} was {g.pick(rng, g.pick(rng, g.DONE))}"
    else:
        aside = f"people {g.pick(rng, g.other(rng, g.DEEDS, deed))} the {thing}"
    return g.pick(rng, _FORMS).format(asked=asked, aside=aside)
