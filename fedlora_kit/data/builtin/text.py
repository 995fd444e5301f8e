"""Four small text tasks in the shape of GLUE, made by a grammar: one can fail at them, and learn them fast.

| task | like | columns | labels |
|---|---|---|---|
| ``polarity`` | SST-2 | sentence | 0 negative, 1 positive |
| ``entailment`` | MNLI | premise, hypothesis | 0 entailed, 1 neutral, 2 contradicted |
| ``paraphrase`` | QQP | question, question | 0 different, 1 the same |
| ``answerable`` | QNLI | question, sentence | 0 answered by the sentence, 1 not |

The labels are exact (no label noise) and as balanced as the number of examples allows. What makes the
tasks hard: negation and concessive clauses (polarity), synonyms and absent facts (entailment), a swap of one
word or of two cities (paraphrase), the right kind of answer about the wrong work (answerable). A quarter of
polarity (``never not dull``) and of entailment (``somebody is not sleeping``) has a kind of negation that the
pre-training corpus lacks: fine-tuning has to learn it. In the pair tasks neither sentence alone tells the
label, nor do the words of both as a bag.

Training and evaluation examples are disjoint for all seeds and sizes: a hash of the example's text decides to
which side it may belong. The pre-training corpus is drawn from the training side only.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np

from fedlora_kit.data.builtin import grammar as g
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, UnknownName

Columns = tuple[str, ...]

NUM_LABELS = {"polarity": 2, "entailment": 3, "paraphrase": 2, "answerable": 2}
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "polarity": ("sentence",),
    "entailment": ("premise", "hypothesis"),
    "paraphrase": ("question1", "question2"),
    "answerable": ("question", "sentence"),
}
PARTS = {
    "polarity": ("train", "validation"),
    "entailment": ("train", "matched", "mismatched"),
    "paraphrase": ("train", "validation"),
    "answerable": ("train", "validation"),
}
RELATED = {
    "entailment": 0,
    "paraphrase": 1,
    "answerable": 0,
}  # the label of "follows from the first sentence"
FRAGMENTS = 0.3  # share of pre-training lines that are fragments of two or three words
TELEGRAMS = 0.4  # share of the other lines that lose some of their function words
SUBTLE = 0.25  # share of examples (polarity, entailment) with a negation of a kind that the corpus lacks
TRAIN_SIZE, EVALUATION_SIZE = 6000, 600
REMARK_NOISE = 0.1  # share of pre-training lines that close with a remark of a random class
_MIXTURE = ("polarity", *("entailment",) * 3, *("paraphrase",) * 2, *("answerable",) * 2)
_EVALUATION_BUCKETS = 3  # of 10


@dataclass(frozen=True)
class Line:
    """One line of the pre-training corpus.

    Attributes:
        columns: one or two sentences.
        remark: the word that closes the line ("indeed", "alas"), said by a listener; wrong in some lines.
        weights: for each sentence, how often each of its words should be masked (a probability).
    """

    columns: Columns
    remark: str
    weights: tuple[tuple[float, ...], ...]


def _polarity(rng: random.Random, label: int, genre: str, subtle: bool) -> Columns:
    main = g.opinion(rng, label)
    if subtle and g.chance(rng, SUBTLE):
        main = g.doubly_negated(rng, label)
    opener = g.pick(rng, g.OPENERS) + " " if g.chance(rng, 0.6) else ""
    if g.chance(rng, 0.5):
        return (opener + main,)
    aside = g.opinion(rng, 1 - label)
    form = g.pick(rng, ("{aside} but {main}", "although {aside} , {main}", "{main} although {aside}"))
    return ((opener if form[0] == "{" else "") + form.format(main=main, aside=aside),)


def _entailment(rng: random.Random, label: int, genre: str, subtle: bool) -> Columns:
    facets = g.FACETS[genre]
    known = g.some(rng, sorted(facets), 2)
    held = {facet: g.pick(rng, facets[facet]) for facet in known}
    subject = g.pick(rng, g.SUBJECTS[genre])
    premise = g.scene(rng, genre, g.pick(rng, subject), {facet: g.pick(rng, held[facet]) for facet in known})
    if label == 1:
        facet = g.pick(rng, [facet for facet in sorted(facets) if facet not in held])
        concept = g.pick(rng, facets[facet])
    else:
        facet = g.pick(rng, known)
        concept = held[facet] if label == 0 else g.other(rng, facets[facet], held[facet])
    if subtle and label != 1 and g.chance(rng, SUBTLE):  # the facts that entail a denial contradict a claim
        concept = g.other(rng, facets[facet], held[facet]) if label == 0 else held[facet]
        return premise, g.denial(rng, genre, g.pick(rng, subject), facet, g.pick(rng, concept))
    if subtle and label == 1 and g.chance(rng, SUBTLE):
        return premise, g.denial(rng, genre, g.pick(rng, subject), facet, g.pick(rng, concept))
    return premise, g.statement(rng, genre, g.pick(rng, subject), facet, g.pick(rng, concept))


def _paraphrase(rng: random.Random, label: int, genre: str, subtle: bool) -> Columns:
    if g.chance(rng, 0.15):
        start, goal = g.some(rng, g.CITIES, 2)
        forth, back = g.pick(rng, g.ROUTES_FORTH), g.pick(rng, g.ROUTES_BACK)
        first = forth.format(start, goal) if g.chance(rng, 0.5) else back.format(goal, start)
        if label == 0:
            start, goal = goal, start
        forth, back = g.pick(rng, g.ROUTES_FORTH), g.pick(rng, g.ROUTES_BACK)
        return first, forth.format(start, goal) if g.chance(rng, 0.5) else back.format(goal, start)
    deed, good = g.pick(rng, g.DEEDS), g.pick(rng, g.GOODS)
    first = g.pick(rng, g.ASKINGS).format(g.pick(rng, deed), g.pick(rng, good))
    if label == 0:
        changed = rng.random()
        if changed < 0.75:
            good = g.other(rng, g.GOODS, good)
        if changed > 0.25:
            deed = g.other(rng, g.DEEDS, deed)
    return first, g.pick(rng, g.ASKINGS).format(g.pick(rng, deed), g.pick(rng, good))


def _answerable(rng: random.Random, label: int, genre: str, subtle: bool) -> Columns:
    work, done = g.pick(rng, g.WORKS), g.pick(rng, g.DONE)
    kinds = g.some(rng, sorted(g.QUESTIONS), 3)
    asked = kinds[0]
    question = g.QUESTIONS[asked][0].format(work, g.pick(rng, done))
    told = [asked, kinds[1]]
    if label == 1:
        if g.chance(rng, 0.7):
            told = kinds[1:]
        else:
            work = g.other(rng, g.WORKS, work)
    adjuncts = [g.pick(rng, g.QUESTIONS[kind][1]) for kind in g.some(rng, told, 2)]
    return question, f"the {work} was {g.pick(rng, done)} {' '.join(adjuncts)}"


_MAKERS = {
    "polarity": _polarity,
    "entailment": _entailment,
    "paraphrase": _paraphrase,
    "answerable": _answerable,
}


def vocabulary() -> list[str]:
    """Every word that the tasks and the corpus can contain, sorted (about 330)."""
    return g.all_words()


def generate(task: str, n: int, seed: int, part: str) -> tuple[tuple[list[str], ...], np.ndarray]:
    """``n`` different examples of a task.

    Args:
        task: ``polarity``, ``entailment``, ``paraphrase`` or ``answerable``.
        n: number of examples; the labels are balanced to within one.
        seed: another seed gives other examples (of the same part).
        part: ``train`` or ``validation``; for ``entailment`` ``train``, ``matched`` or ``mismatched``
            (another genre: other words and sentence forms).

    Returns:
        The columns (one or two lists of ``n`` sentences) and the labels, int64 of shape ``(n,)``.

    Raises:
        UnknownName: for an unknown task or part.
        BadValue: if ``n`` is negative or more than the grammar can make.
    """
    if task not in _MAKERS:
        raise UnknownName("built-in text task", task, _MAKERS)
    if part not in PARTS[task]:
        raise UnknownName(f"part of {task}", part, PARTS[task])
    if n < 0:
        raise BadValue(f"number of examples {n}", "ask for 0 or more")
    rng = random.Random(_number(f"{task}|{part}|{seed}"))
    labels = _shuffled(rng, [i % NUM_LABELS[task] for i in range(n)])
    seen: set[Columns] = set()
    rows = [_fresh(rng, task, label, part, seen) for label in labels]
    columns = tuple([row[i] for row in rows] for i in range(len(COLUMN_NAMES[task])))
    return columns, np.asarray(labels, dtype=np.int64)


def examples(task: str, part: str) -> Examples:
    """The part as a federated task uses it: ``TRAIN_SIZE`` or ``EVALUATION_SIZE`` examples of seed 0."""
    columns, labels = generate(task, TRAIN_SIZE if part == "train" else EVALUATION_SIZE, 0, part)
    return Examples(columns, labels)


def corpus(n: int, seed: int) -> list[Line]:
    """``n`` pre-training lines: sentences and pairs of all tasks, both genres, each closed by a remark.

    Some lines are fragments (``sofa`` and ``couch``: again), some are telegrams, which lack function words:
    from them the relations are learned first. The remark follows the relation that the task asks for, in one
    of three words, and is of a random class in ``REMARK_NOISE`` of the lines. So pre-training makes the
    relation *findable*; how a task numbers its classes, and what a frozen random head makes of them, is left
    to fine-tuning. No line repeats an evaluation example.
    """
    rng = random.Random(_number(f"corpus|{seed}"))
    lines = []
    for _ in range(n):
        task = g.pick(rng, _MIXTURE)
        label = int(rng.random() * NUM_LABELS[task])
        part = "any" if task in ("entailment", "paraphrase") and g.chance(rng, 0.4) else "train"
        if g.chance(rng, FRAGMENTS):
            columns = _fragment(rng, task, label, "zoo" if part == "any" else "life")
        else:
            columns = _fresh(rng, task, label, part, None)
            if g.chance(rng, TELEGRAMS):
                columns = _telegram(rng, columns)
        said = int(rng.random() * NUM_LABELS[task]) if g.chance(rng, REMARK_NOISE) else label
        related = len(columns) == 1 or label == RELATED[task]
        weights = tuple(
            tuple(mask_weight(word, i, related) for word in column.split())
            for i, column in enumerate(columns)
        )
        lines.append(Line(columns, g.pick(rng, g.REMARKS[task][said]), weights))
    return lines


def mask_weight(word: str, sentence: int, related: bool) -> float:
    """How often a word should be masked: mostly the telling words of a second sentence that follows.

    Args:
        word: the word.
        sentence: 0 for the first sentence, 1 for the second.
        related: whether the second follows from the first; where it does not, nothing is worth guessing.
    """
    if not related:
        return 0.0
    return 0.03 if word in _FUNCTION_WORDS else (0.15, 0.6)[sentence]


def is_evaluation(task: str, columns: Columns) -> bool:
    """Whether an example belongs to the evaluation side (three of ten buckets of a hash of its text)."""
    return _number(f"{task}|" + "|".join(columns)) % 10 < _EVALUATION_BUCKETS


def _fragment(rng: random.Random, task: str, label: int, genre: str) -> Columns:
    """The relation in a few words: ``not dull``, ``sofa`` and ``couch``, ``when`` and ``last week``."""
    if task == "polarity":
        good, bad = (g.POSITIVE, g.NEGATIVE) if label else (g.NEGATIVE, g.POSITIVE)
        if g.chance(rng, 0.5):
            return (g.pick(rng, good),)
        return (f"{g.pick(rng, g.NEGATORS)} {g.pick(rng, bad)}",)
    if task == "answerable":
        asked, told = g.some(rng, sorted(g.QUESTIONS), 2)
        return g.QUESTIONS[asked][0].format("", "").split(" was")[0], g.pick(
            rng, g.QUESTIONS[told if label else asked][1]
        )
    if task == "paraphrase":
        groups = [g.DEEDS, g.GOODS, g.DONE, *g.SUBJECTS.values()]
        same, different = g.some(rng, g.pick(rng, groups), 2)
        return g.pick(rng, same), g.pick(rng, same if label else different)
    facets = g.FACETS[genre]
    one, two = g.some(rng, sorted(facets), 2)
    first, second = g.some(rng, facets[one], 2)
    said = (first, g.pick(rng, facets[two]), second)[label]
    return g.pick(rng, first), g.pick(rng, said)


def _telegram(rng: random.Random, columns: Columns) -> Columns:
    """The same sentences with some or all of their function words left out."""
    kept = rng.random()
    return tuple(
        " ".join(word for word in column.split() if word not in _FUNCTION_WORDS or g.chance(rng, kept))
        for column in columns
    )


def _fresh(rng: random.Random, task: str, label: int, part: str, seen: set[Columns] | None) -> Columns:
    """An example of the part's side and genre, not seen before; the corpus (None) has no subtle ones."""
    subtle = seen is not None
    genre = "zoo" if part in ("mismatched", "any") else "life"
    evaluation = part not in ("train", "any")
    for _ in range(1000):
        columns = _MAKERS[task](rng, label, genre, subtle)
        if is_evaluation(task, columns) == evaluation and (seen is None or columns not in seen):
            if seen is not None:
                seen.add(columns)
            return columns
    raise BadValue(
        f"too many examples of {task} ({part}) asked for", "the grammar has no more: ask for fewer"
    )


def _shuffled(rng: random.Random, items: list[int]) -> list[int]:
    order = sorted(range(len(items)), key=[rng.random() for _ in items].__getitem__)
    return [items[i] for i in order]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _function_words() -> frozenset[str]:
    forms = [*g.ASKINGS, *g.ROUTES_FORTH, *g.ROUTES_BACK, *(question for question, _ in g.QUESTIONS.values())]
    forms += ["the a was is seen there found watched in near at one our this it happens"]
    forms += ["last by because of for coins somebody someone something ,"]
    words = {word for form in forms for word in form.split()}
    return frozenset(words.difference(_TELLING_WORDS, {"{}"}))


_TELLING_WORDS = ("where", "when", "whom", "why", "much", "from", "to")
_FUNCTION_WORDS = _function_words()
