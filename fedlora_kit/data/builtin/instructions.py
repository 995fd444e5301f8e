"""Built-in instruction tasks: the stand-in for Dolly and Natural Instructions, and its backbone's text.

The task ``instructions`` has eight kinds of instruction (the categories), each with an input and a response
of one to six words that follows from the input alone:

    Repeat the last word.              dog red house tree                        house
    Reverse the words.                 dog red tree                              tree red dog
    Give the opposites.                big hot                                   small cold
    Put the numbers in order.          7 3 9 1                                   1 3 7 9
    Who is it about?                   Mia gave Tom a blue pen.                  Mia and Tom
    Good or bad?                       the soup was awful                        it is bad
    What has Ben?                      Ann has a red ball. Ben has a blue book.  Ben has a blue book
    Count the words.                   dog dog dog red                           three dog and one red

The pre-training text (`corpus`) has the same words and the same relations between them, but never an
instruction and never an input with its response right after it, but whole statements: "Other than big hot is
small cold.", "Backwards dog red tree reads tree red dog.". There are few words, so that
about half of the test part's inputs stand in some statement together with what is to be said of them. What
the federated adapter has to learn is which instruction asks for which of these skills, and how the response
is wanted. A response may be partly right: two of three words in order, the thing but not its colour. So
ROUGE-L says more than exact match.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedlora_kit.data.class_names import INSTRUCTIONS
from fedlora_kit.data.examples import Examples
from fedlora_kit.errors import UnknownName

#: split -> (seed, examples of each kind); seeds differ, and no input of one split is in another
PARTS = {"train": (81, 200), "test": (82, 25)}
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Zoe", "Max")
COLOURS = ("red", "blue", "green", "black")
THINGS = ("ball", "book", "pen", "cup", "hat", "coin", "card", "shell")
WORDS = ("dog", "cat", "tree", "house", "river", "stone", "bird", "fish", "cloud", "horse", "flower", "boat")
OPPOSITES = (
    ("big", "small"),
    ("hot", "cold"),
    ("old", "new"),
    ("fast", "slow"),
    ("long", "short"),
    ("full", "empty"),
    ("dark", "bright"),
    ("wet", "dry"),
)
GOOD = ("great", "lovely", "tasty", "nice", "superb", "fine")
BAD = ("awful", "poor", "nasty", "dull", "horrid", "weak")
SUBJECTS = ("soup", "film", "song", "game", "meal", "story", "trip", "show")
NUMBERS = ("one", "two", "three", "four", "five")

#: instruction, input, response
Item = tuple[str, str, str]


def examples(split: str) -> Examples:
    """The instructions of a split; labels are the kinds, the examples of all kinds mixed.

    Raises:
        UnknownName: for a split that is neither ``train`` nor ``test``.
    """
    if split not in PARTS:
        raise UnknownName("split of instructions", split, PARTS)
    seen: set[tuple[str, str]] = set()
    for part, (seed, n) in PARTS.items():
        rng = np.random.default_rng(seed)
        rows: list[tuple[Item, int]] = []
        for label, kind in enumerate(INSTRUCTIONS):
            kept: list[tuple[Item, int]] = []
            while len(kept) < n:
                item = KINDS[kind](rng)
                if item[:2] not in seen:
                    seen.add(item[:2])
                    kept.append((item, label))
            rows += kept
        if part == split:
            order = rng.permutation(len(rows))
            columns = tuple([rows[i][0][column] for i in order] for column in range(3))
            return Examples(columns, np.array([rows[i][1] for i in order], dtype=np.int64))
    raise AssertionError(split)


def _some(rng: np.random.Generator, words: tuple[str, ...], least: int, most: int) -> list[str]:
    return [str(word) for word in rng.choice(words, int(rng.integers(least, most + 1)), replace=False)]


def _last_word(rng: np.random.Generator) -> Item:
    words = _some(rng, WORDS + COLOURS, 3, 5)
    return "Repeat the last word.", " ".join(words), words[-1]


def _reverse(rng: np.random.Generator) -> Item:
    words = _some(rng, WORDS + COLOURS, 3, 4)
    return "Reverse the words.", " ".join(words), " ".join(reversed(words))


def _opposite(rng: np.random.Generator) -> Item:
    pairs = [OPPOSITES[i] for i in rng.choice(len(OPPOSITES), int(rng.integers(2, 4)), replace=False)]
    sides = [int(side) for side in rng.integers(0, 2, len(pairs))]
    given = [pair[side] for pair, side in zip(pairs, sides, strict=True)]
    wanted = [pair[1 - side] for pair, side in zip(pairs, sides, strict=True)]
    return "Give the opposites.", " ".join(given), " ".join(wanted)


def _sort(rng: np.random.Generator) -> Item:
    digits = [int(d) for d in rng.choice(9, int(rng.integers(3, 5)), replace=False) + 1]
    return "Put the numbers in order.", " ".join(map(str, digits)), " ".join(map(str, sorted(digits)))


def _names(rng: np.random.Generator) -> Item:
    first, second = _some(rng, NAMES, 2, 2)
    thing = f"a {rng.choice(COLOURS)} {rng.choice(THINGS)}"
    verb = str(rng.choice(("gave", "sold", "showed")))
    return "Who is it about?", f"{first} {verb} {second} {thing}.", f"{first} and {second}"


def _sentiment(rng: np.random.Generator) -> Item:
    good = bool(rng.random() < 0.5)
    first, second = _some(rng, GOOD if good else BAD, 2, 2)
    text = f"the {rng.choice(SUBJECTS)} was {first} and {second}"
    return "Good or bad?", text, "it is good" if good else "it is bad"


def _facts(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """Two or three facts as sentences, and one of them: who, and what they have."""
    names = _some(rng, NAMES, 2, 3)
    things = _some(rng, THINGS, len(names), len(names))
    had = [f"a {rng.choice(COLOURS)} {thing}" for thing in things]
    asked = int(rng.integers(len(names)))
    sentences = [f"{name} has {thing}." for name, thing in zip(names, had, strict=True)]
    return sentences, names[asked], had[asked]


def _fact(rng: np.random.Generator) -> Item:
    sentences, name, thing = _facts(rng)
    return f"What has {name}?", " ".join(sentences), f"{name} has {thing}"


def _count(rng: np.random.Generator) -> Item:
    words = _some(rng, WORDS + COLOURS + THINGS, 2, 2)
    counts = [int(n) for n in rng.integers(1, len(NUMBERS) + 1, 2)]
    given = [word for word, n in zip(words, counts, strict=True) for _ in range(n)]
    said = [f"{NUMBERS[n - 1]} {word}" for word, n in zip(words, counts, strict=True)]
    return "Count the words.", " ".join(given), " and ".join(said)


#: kind -> draws one example
KINDS: dict[str, Callable[[np.random.Generator], Item]] = {
    "last_word": _last_word,
    "reverse": _reverse,
    "opposite": _opposite,
    "sort": _sort,
    "names": _names,
    "sentiment": _sentiment,
    "fact": _fact,
    "count": _count,
}


#: kind -> what stands before an input in the pre-training text, and between it and what follows
STATEMENTS: dict[str, tuple[str, str]] = {
    "last_word": ("At its end", "has"),
    "reverse": ("Backwards", "reads"),
    "opposite": ("Other than", "is"),
    "sort": ("In rising order", "makes"),
    "names": ("People in", "are"),
    "sentiment": ("In short", "means that"),
    "fact": ("Of {name}, from", "we know that"),
    "count": ("In all", "comes to"),
}


def corpus(lines: int, seed: int) -> list[tuple[str, str]]:
    """Pre-training text: pairs of a context (drawn at random) and what follows from it.

    Now and then a line breaks where a statement's parts meet: the sign is a known one.
    """
    rng = np.random.default_rng(seed)
    return [_statement(rng) for _ in range(lines)]


def _statement(rng: np.random.Generator) -> tuple[str, str]:
    kind = str(rng.choice(INSTRUCTIONS))
    instruction, given, said = KINDS[kind](rng)
    before, between = STATEMENTS[kind]
    before = before.format(name=instruction.removeprefix("What has ").removesuffix("?"))
    first, second, third = ("\n" if rng.random() < 0.3 else " " for _ in range(3))
    return f"{before}{first}{given}{second}{between}{third}", f"{said}."
