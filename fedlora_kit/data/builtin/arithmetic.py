"""Built-in word problems: the causal stand-in for GSM8K, and the text its backbone is pre-trained on.

The task ``arithmetic``: a story of two changes and a question; the answer is worked line by line and ends as
GSM8K's do, in ``#### n``:

    Mia had 7 eggs. She bought 5 and then lost 3. How many eggs does Mia have now?
    7+5=12
    12-3=9
    #### 9

The pre-training text (`corpus`) holds the same nouns, verbs and small sums, but never a question and never a
sum that ends in ``####``: sums and chains of sums; statements of one or two changes with their sums
("Tom had 4 pens. He found 3. / 4+3=7 / Tom has 7 pens now."); and now and then headings that count
("#### 7 / #### 8"), so that the sign is a known one. What the federated adapter has to learn is to answer: to
find the numbers in sentences of another form, and to write the solution down as it is wanted.
Numbers stay between 0 and 20.
"""

from __future__ import annotations

import itertools

import numpy as np

from fedlora_kit.data.task import Examples
from fedlora_kit.errors import UnknownName

#: split -> (seed, examples); seeds differ, and no question of one split is in another (see `examples`)
PARTS = {"train": (71, 1500), "test": (72, 400)}
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Zoe", "Max")
NOUNS = ("eggs", "pens", "apples", "books", "coins", "cards", "shells", "stamps")
GAINS = ("bought", "found", "got", "won")
LOSSES = ("lost", "sold", "ate", "gave away")
_FEMALE = {"Mia", "Ana", "Eva", "Zoe"}
_MOST = 20

#: the last two put the numbers where the pre-training text never has them
_STORIES = (
    "{name} had {a} {noun}. {they} {first} {b} and then {second} {c}. How many {noun} has {name} now?",
    "At first there were {a} {noun}. {name} {first} {b}. Then {name} {second} {c}. How many are left?",
    "There were {a} {noun} before {name} {first} {b} and {second} {c}. How many are there now?",
    "{name} {first} {b} {noun} and then {second} {c}. At first there were {a}. How many are there now?",
)

#: what may stand between a story and its sums in the pre-training text: numbers are not found by their place
_ASIDES = (
    " How many {noun} there are now is not hard to say.",
    " {name} wants to know how many are left.",
    " So much for the {noun} of {name}.",
    " Now it is known how many {noun} {name} has.",
)


def examples(split: str) -> Examples:
    """The word problems of a split: question and worked answer; labels are all 0.

    Raises:
        UnknownName: for a split that is neither ``train`` nor ``test``.
    """
    if split not in PARTS:
        raise UnknownName("split of arithmetic", split, PARTS)
    seen: set[str] = set()
    for part, (seed, n) in PARTS.items():
        rng = np.random.default_rng(seed)
        questions: list[str] = []
        answers: list[str] = []
        while len(questions) < n:
            question, answer = problem(rng)
            if question not in seen:
                seen.add(question)
                questions.append(question)
                answers.append(answer)
        if part == split:
            return Examples((questions, answers), np.zeros(n, dtype=np.int64))
    raise AssertionError(split)


def problem(rng: np.random.Generator) -> tuple[str, str]:
    """One word problem and its worked answer."""
    name, noun = rng.choice(NAMES), rng.choice(NOUNS)
    a = int(rng.integers(3, 16))
    first, b, middle = _change(a, rng)
    second, c, end = _change(middle, rng)
    they = "She" if name in _FEMALE else "He"
    question = str(rng.choice(_STORIES)).format(
        name=name, noun=noun, a=a, b=b, c=c, first=first, second=second, they=they
    )
    return question, f"{_sum(a, middle)}\n{_sum(middle, end)}\n#### {end}"


def corpus(lines: int, seed: int) -> list[tuple[str, str]]:
    """Pre-training text: pairs of a context (which may be empty) and what follows from it.

    A fifth are sums and chains of sums, a twentieth headings that count, the others statements of one or two
    changes.
    """
    rng = np.random.default_rng(seed)
    return [_line(rng) for _ in range(lines)]


def _line(rng: np.random.Generator) -> tuple[str, str]:
    values = [int(rng.integers(0, _MOST))]
    changes = []
    for _ in range(int(rng.integers(1, 3))):
        verb, amount, end = _change(values[-1], rng)
        changes.append(f"{verb} {amount}")
        values.append(end)
    sums = "\n".join(_sum(x, y) for x, y in itertools.pairwise(values))
    kind = rng.random()
    if kind < 0.05:
        return "", "\n".join(f"#### {values[0] + i}" for i in range(3))
    if kind < 0.25:
        return "", sums
    name, noun = str(rng.choice(NAMES)), str(rng.choice(NOUNS))
    they = "She" if name in _FEMALE else "He"
    start = str(rng.choice((f"{name} had {values[0]} {noun}.", f"At first there were {values[0]} {noun}.")))
    joined = str(rng.choice((". Then ", " and then ", f". {they} "))).join(changes)
    who = they if name in start else name
    aside = str(rng.choice(_ASIDES)).format(name=name, noun=noun) if rng.random() < 0.7 else ""
    return f"{start} {who} {joined}.{aside}\n", f"{sums}\n{name} has {values[-1]} {noun} now."


def _change(start: int, rng: np.random.Generator) -> tuple[str, int, int]:
    """A change of ``start`` that stays between 0 and 20: verb, amount (1 to 9), result."""
    up = bool(rng.random() < 0.5) if 1 <= start < _MOST else start < 1
    amount = int(rng.integers(1, min(9, _MOST - start if up else start) + 1))
    verb = str(rng.choice(GAINS if up else LOSSES))
    return verb, amount, start + amount if up else start - amount


def _sum(start: int, end: int) -> str:
    return f"{start}{'+' if end > start else '-'}{abs(end - start)}={end}"
