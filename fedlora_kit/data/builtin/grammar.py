"""The words of the built-in text and how sentences are made of them.

Everything here is invented for the kit: about 300 words in groups. A *concept* is a pair of words that mean
the same (``sofa`` and ``couch``); a *facet* is a list of concepts of which only one can hold at a time (one
cannot both sleep and swim). The tasks of :mod:`fedlora_kit.data.builtin.text` ask about facets and concepts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Concept = tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _concepts(text: str) -> tuple[Concept, ...]:
    return tuple(tuple(pair.split("/")) for pair in text.split())


POSITIVE = _words(
    "superb brilliant charming delightful wonderful elegant gripping moving clever witty fresh honest "
    "splendid graceful vivid tender lively rich warm bold"
)
NEGATIVE = _words(
    "dull awful clumsy boring dreadful tedious shallow stale lazy messy hollow crude "
    "bland weak silly tiresome lifeless pointless cheap flat"
)
REVIEWED = _words(
    "film plot acting script cast music ending dialogue opening hero villain novel story song play"
)
DEGREES = ("very", "quite", "rather", "truly", "simply")
OPENERS = ("we thought", "critics said", "i felt", "viewers agreed", "everyone knew", "they told us")
NEGATORS = ("not", "hardly", "never")


# One genre is everyday life (train and matched), the other the reports of a zoo (mismatched).
FACETS: dict[str, dict[str, tuple[Concept, ...]]] = {
    "life": {
        "action": _concepts("sleeping/napping running/sprinting eating/dining reading/studying"),
        "place": _concepts("kitchen/pantry garden/yard street/road beach/shore"),
        "mood": _concepts("happy/glad sad/gloomy angry/furious tired/weary"),
        "time": _concepts("dawn/sunrise noon/midday dusk/sunset night/midnight"),
    },
    "zoo": {
        "action": _concepts("swimming/bathing climbing/scrambling hunting/stalking resting/lounging"),
        "place": _concepts("pond/pool barn/shed cave/den hill/slope"),
        "mood": _concepts("hungry/starving nervous/anxious playful/frisky sick/ill"),
        "time": _concepts("spring/springtime autumn/fall winter/wintertime summer/midsummer"),
    },
}
SUBJECTS: dict[str, tuple[Concept, ...]] = {
    "life": _concepts("man/guy woman/lady boy/lad girl/lass doctor/physician teacher/tutor"),
    "zoo": _concepts("otter/weasel bear/grizzly monkey/ape lion/lioness wolf/hound seal/walrus"),
}
ANYONE = {"life": ("somebody", "someone"), "zoo": ("something", "it")}

DEEDS = _concepts("fix/repair buy/purchase clean/wash paint/decorate")
GOODS = _concepts("bike/bicycle phone/mobile sofa/couch boat/ship")
CITIES = ("paris", "rome", "berlin", "madrid", "vienna", "oslo")
ASKINGS = (
    "how can i {} my {}",
    "how do i {} the {}",
    "what is the best way to {} a {}",
    "is there an easy way to {} a {}",
    "can you show me how to {} the {}",
    "who can help me to {} my {}",
    "where do people go to {} a {}",
    "should i {} the {} on my own",
)
ROUTES_FORTH = (
    "how do i get from {} to {}",
    "what is the way from {} to {}",
    "is there a train from {} to {}",
)
ROUTES_BACK = (
    "how do i get to {} from {}",
    "what is the way to {} from {}",
    "is there a train to {} from {}",
)

WORKS = ("bridge", "statue", "tower", "church", "castle", "museum", "theatre", "harbour")
DONE = _concepts("erected/raised restored/renewed destroyed/ruined sold/auctioned")
# Question words (for a work and a deed), and the adjuncts that answer them.
QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "where": ("where was the {} {}", tuple(f"in {city}" for city in CITIES)),
    "when": (
        "when was the {} {}",
        ("last monday", "last week", "last month", "last year", "yesterday", "recently"),
    ),
    "who": (
        "by whom was the {} {}",
        tuple(f"by the {who}" for who in ["king", "queen", "mayor", "bishop", "merchant", "count"]),
    ),
    "why": (
        "why was the {} {}",
        tuple(f"because of the {why}" for why in ["storm", "fire", "flood", "war", "debt", "plague"]),
    ),
    "cost": (
        "for how much was the {} {}",
        tuple(f"for {many} coins" for many in ["ten", "twenty", "fifty", "hundred", "thousand", "million"]),
    ),
}

# The closing remarks of pre-training lines: what a listener says after the one or two sentences.
REMARKS: dict[str, tuple[Concept, ...]] = {
    "polarity": (("alas", "sigh", "pity"), ("bravo", "hooray", "cheers")),
    "entailment": (
        ("indeed", "surely", "certainly"),
        ("perhaps", "maybe", "possibly"),
        ("nonsense", "impossible", "wrong"),
    ),
    "paraphrase": (("another", "different", "separate"), ("again", "same", "twice")),
    "answerable": (("thanks", "settled", "answered"), ("unknown", "unclear", "unsaid")),
}


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One item. Only ``random()`` is used: its sequence is the one that Python promises never to change."""
    return items[int(rng.random() * len(items))]


def some(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
    """``count`` different items in random order."""
    pool = list(items)
    return [pool.pop(int(rng.random() * len(pool))) for _ in range(count)]


def other(rng: random.Random, items: Sequence[T], not_this: T) -> T:
    """One item that is not ``not_this``."""
    return pick(rng, [item for item in items if item != not_this])


def chance(rng: random.Random, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability


def opinion(rng: random.Random, label: int) -> str:
    """A clause with sentiment ``label`` (1 positive), plain or by negating the opposite."""
    noun = pick(rng, REVIEWED)
    good, bad = (POSITIVE, NEGATIVE) if label else (NEGATIVE, POSITIVE)
    if chance(rng, 0.25):
        return f"the {noun} was {pick(rng, NEGATORS)} {pick(rng, bad)}"
    if chance(rng, 0.4):
        return f"the {noun} was {pick(rng, DEGREES)} {pick(rng, good)}"
    return f"the {noun} was {pick(rng, good)}"


def doubly_negated(rng: random.Random, label: int) -> str:
    """A clause with sentiment ``label`` that says it by negating twice."""
    adjective = pick(rng, POSITIVE if label else NEGATIVE)
    return f"the {pick(rng, REVIEWED)} was {pick(rng, ('never', 'hardly'))} not {adjective}"


def scene(rng: random.Random, genre: str, subject: str, facts: dict[str, str]) -> str:
    """A sentence that states the given facts (facet to word) of a subject, in the words of the genre."""
    who = " ".join([facts.get("mood", ""), subject]).strip()
    action, place, time = facts.get("action"), facts.get("place"), facts.get("time")
    if genre == "life":
        middle = f"is {action}" if action else pick(rng, ("is seen", "is there"))
        tail = [f"in the {place}" if place else "", f"at {time}" if time else ""]
        words = [pick(rng, ("a", "the")), who, middle, *some(rng, tail, 2)]
    else:
        middle = f"was {action}" if action else pick(rng, ("was found", "was watched"))
        words = [f"one {time}" if time else "", pick(rng, ("our", "this")), who, middle]
        words += [f"near the {place}" if place else ""]
    return " ".join(word for word in words if word)


def statement(rng: random.Random, genre: str, subject: str, facet: str, word: str) -> str:
    """A short sentence that claims one fact of a subject."""
    who = f"the {subject}" if chance(rng, 0.5) else pick(rng, ANYONE[genre])
    be, near = ("is", "in") if genre == "life" else ("was", "near")
    if facet == "time":
        return f"it {be} {word}" if chance(rng, 0.5) else f"this happens at {word}"
    if facet == "place":
        return f"{who} {be} {near} the {word}"
    return f"{who} {be} {word}"


def denial(rng: random.Random, genre: str, subject: str, facet: str, word: str) -> str:
    """A short sentence that denies one fact of a subject: a statement with ``not`` after its verb."""
    claim = statement(rng, genre, subject, facet, word)
    if claim.startswith("this happens"):
        return claim.replace("this happens", "this happens not")
    be = "is" if genre == "life" else "was"
    return claim.replace(f" {be} ", f" {be} not ", 1)


def all_words() -> list[str]:
    """Every word of the grammar, sorted."""
    text: list[str] = [*POSITIVE, *NEGATIVE, *REVIEWED, *DEGREES, *NEGATORS, *OPENERS, *CITIES, *WORKS]
    text += [*ASKINGS, *ROUTES_FORTH, *ROUTES_BACK]
    text += [
        "the",
        "a",
        "was",
        "is",
        "seen",
        "there",
        "found",
        "watched",
        "with",
        "holding",
        "in",
        "near",
        "at",
        "one",
        "our",
        "this",
        "it",
        "happens",
        "has",
    ]
    text += ["but", "although", ","]
    for question, adjuncts in QUESTIONS.values():
        text += [question, *adjuncts]
    groups = [*SUBJECTS.values(), DEEDS, GOODS, DONE, *REMARKS.values()]
    groups += [concepts for facets in FACETS.values() for concepts in facets.values()]
    text += [word for group in groups for concept in group for word in concept]
    text += [word for words in ANYONE.values() for word in words]
    return sorted({word for piece in text for word in piece.split() if word != "{}"})
