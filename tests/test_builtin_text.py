"""The built-in text and digits: shapes, balance, disjointness, labels against an oracle, difficulty."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit.data.builtin import digits as d
from fedlora_kit.data.builtin import grammar as g
from fedlora_kit.data.builtin import text as b
from fedlora_kit.errors import BadValue, UnknownName

TASKS = sorted(b.NUM_LABELS)
CASES = [(task, part) for task in TASKS for part in b.PARTS[task]]


def rows(task, n, seed, part):
    columns, labels = b.generate(task, n, seed, part)
    return list(zip(*columns, strict=True)), labels


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CASES), st.integers(0, 80), st.integers(0, 10**6))
def test_shapes_balance_length_and_vocabulary(case, n, seed):
    task, part = case
    columns, labels = b.generate(task, n, seed, part)
    assert len(columns) == len(b.COLUMN_NAMES[task])
    assert labels.shape == (n,)
    assert labels.dtype == np.int64
    counts = np.bincount(labels, minlength=b.NUM_LABELS[task])
    assert len(counts) == b.NUM_LABELS[task]
    assert counts.max() - counts.min() <= 1
    words = set(b.vocabulary())
    for column in columns:
        assert len(column) == n
        for sentence in column:
            assert 1 <= len(sentence.split()) <= 15
            assert set(sentence.split()) <= words


@pytest.mark.parametrize(("task", "part"), CASES)
def test_deterministic_unique_and_seeded(task, part):
    first, labels = rows(task, 300, 3, part)
    again, same = rows(task, 300, 3, part)
    assert first == again
    assert (labels == same).all()
    assert len(set(first)) == 300
    assert set(first) != set(rows(task, 300, 4, part)[0])


def test_the_same_in_another_process():
    code = "from fedlora_kit.data.builtin import text as b; print(b.generate('entailment', 5, 0, 'train')[0])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip().splitlines()[-1] == str(b.generate("entailment", 5, 0, "train")[0])


@pytest.mark.parametrize("task", TASKS)
def test_train_and_evaluation_are_disjoint_for_any_seeds(task):
    train = {row for seed in (0, 1) for row in rows(task, 3000, seed, "train")[0]}
    for part in b.PARTS[task][1:]:
        for seed in (0, 1):
            assert not train & set(rows(task, 600, seed, part)[0])


def test_the_sizes_that_the_federated_tasks_use_can_be_had():
    for task, part in CASES:
        examples = b.examples(task, part)
        wanted = b.TRAIN_SIZE if part == "train" else b.EVALUATION_SIZE
        assert len(examples) == wanted


def test_the_corpus_holds_no_evaluation_example():
    lines = {line.columns for line in b.corpus(5000, 0)}
    for task, part in CASES:
        if part != "train":
            assert not lines & set(rows(task, 1000, 0, part)[0])


def test_the_corpus_lacks_the_subtle_cases_and_the_tasks_have_them():
    for line in b.corpus(5000, 0):
        assert "not" not in line.columns[-1].split()[1:] or len(line.columns) == 1
        assert "never not" not in line.columns[0]
    for task, mark in (("polarity", r"(never|hardly) not"), ("entailment", r"\bnot\b")):
        examples, labels = rows(task, 2000, 0, "train")
        subtle = np.array([bool(re.search(mark, row[-1])) for row in examples])
        for label in range(b.NUM_LABELS[task]):
            assert 0.15 < subtle[labels == label].mean() < 0.35


# --- labels against oracles that parse the sentence ------------------------------------------------


def clause_sentiment(clause):
    words = clause.split()
    (adjective,) = [w for w in words if w in g.POSITIVE + g.NEGATIVE]
    return int(adjective in g.POSITIVE) ^ (sum(w in g.NEGATORS for w in words) % 2)


def polarity_oracle(sentence):
    if " but " in sentence:
        return clause_sentiment(sentence.split(" but ")[1])
    if sentence.startswith("although"):
        return clause_sentiment(sentence.split(" , ")[1])
    return clause_sentiment(sentence.split(" although ")[0])


def entailment_oracle(premise, hypothesis):
    where = {
        w: (facet, i)
        for facets in g.FACETS.values()
        for facet, concepts in facets.items()
        for i, concept in enumerate(concepts)
        for w in concept
    }
    facts = dict(where[w] for w in premise.split() if w in where)
    ((facet, concept),) = {where[w] for w in hypothesis.split() if w in where}
    if facet not in facts:
        return 1
    return 0 if (facts[facet] == concept) != ("not" in hypothesis.split()) else 2


def meaning(question):
    if any(city in question for city in g.CITIES):
        return (
            re.search(r"from (\w+)", question)[1],
            re.search(r"(?:(?<=get)|(?<=way)|(?<=train)|(?<=\w)) to (\w+)", question)[1],
        )
    content = {w: concept for group in (g.DEEDS, g.GOODS) for concept in group for w in concept}
    return frozenset(content[w] for w in question.split() if w in content)


def answerable_oracle(question, sentence):
    kind = next(k for k, (form, _) in g.QUESTIONS.items() if question.startswith(form.split(" was")[0]))
    work = next(w for w in g.WORKS if w in question)
    told = any(adjunct in sentence for adjunct in g.QUESTIONS[kind][1])
    return int(not (told and work in sentence))


ORACLES = {
    "polarity": polarity_oracle,
    "entailment": entailment_oracle,
    "paraphrase": lambda one, two: int(meaning(one) == meaning(two)),
    "answerable": answerable_oracle,
}


@pytest.mark.parametrize(("task", "part"), CASES)
def test_labels_follow_from_the_text(task, part):
    examples, labels = rows(task, 400, 7, part)
    assert [ORACLES[task](*row) for row in examples] == labels.tolist()


@pytest.mark.parametrize("task", [t for t in TASKS if t != "polarity"])
def test_a_bag_of_words_does_not_solve_the_pair_tasks(task):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    def features(rows):
        return [" ".join(f"{i}_{w}" for i, c in enumerate(row) for w in c.split()) for row in rows]

    train, labels = rows(task, 3000, 0, "train")
    test, truth = rows(task, 600, 0, b.PARTS[task][1])
    counts = CountVectorizer(token_pattern=r"\S+").fit(features(train))
    model = LogisticRegression(max_iter=300).fit(counts.transform(features(train)), labels)
    accuracy = model.score(counts.transform(features(test)), truth)
    assert accuracy < 1 / b.NUM_LABELS[task] + 0.12


def test_the_two_genres_share_no_telling_word():
    def telling(part):
        sentences = [s for c in b.generate("entailment", 300, 0, part)[0] for s in c]
        return {w for s in sentences for w in s.split() if b.mask_weight(w, 1, True) > 0.1} - {"not"}

    assert not telling("matched") & telling("mismatched")
    assert telling("matched") <= telling("train")


# --- corpus -----------------------------------------------------------------------------------------


def test_corpus_lines():
    lines = b.corpus(2000, 5)
    assert [line.columns for line in lines] == [line.columns for line in b.corpus(2000, 5)]
    words, remarks = set(b.vocabulary()), {w for c in g.REMARKS.values() for ws in c for w in ws}
    for line in lines:
        assert line.remark in remarks
        for column, weights in zip(line.columns, line.weights, strict=True):
            assert len(column.split()) == len(weights) >= 1
            assert set(column.split()) <= words
            assert all(0 <= w <= 1 for w in weights)
    assert {w for line in b.corpus(20_000, 0) for c in line.columns for w in c.split()} >= {
        "sofa",
        "den",
        "rome",
    }


def test_remarks_never_occur_inside_the_tasks():
    remarks = {w for c in g.REMARKS.values() for ws in c for w in ws}
    for task, part in CASES:
        for column in b.generate(task, 200, 0, part)[0]:
            assert not remarks & {w for s in column for w in s.split()}


# --- bad input ----------------------------------------------------------------------------------------


def test_bad_input():
    with pytest.raises(UnknownName, match="polarty"):
        b.generate("polarty", 5, 0, "train")
    with pytest.raises(UnknownName, match="matched"):
        b.generate("polarity", 5, 0, "matched")
    with pytest.raises(BadValue, match="-1"):
        b.generate("polarity", -1, 0, "train")
    with pytest.raises(BadValue, match="fewer"):
        b.generate("paraphrase", 10**6, 0, "train")


# --- digits -------------------------------------------------------------------------------------------


def test_digits_parts():
    parts = {part: d.digits(part) for part in d.PARTS}
    assert sum(len(labels) for _, labels in parts.values()) == 1797
    keys = [{image.tobytes() for image in images} for images, _ in parts.values()]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    for images, labels in parts.values():
        assert images.dtype == np.float32
        assert images.shape == (len(labels), 1, 8, 8)
        assert images.min() >= -1
        assert images.max() <= 1
        assert set(labels.tolist()) == set(range(10))
    with pytest.raises(UnknownName):
        d.digits("valid")


def test_digits_turn():
    upright, labels = d.digits("train")
    turned, same = d.digits("train", 1)
    assert (labels == same).all()
    assert (np.rot90(upright[3, 0]) == turned[3, 0]).all()
    assert not (upright[3] == turned[3]).all()
    assert (d.examples("train").columns[0] == turned).all()
    assert (d.examples("validation").labels == d.digits("test")[1]).all()
