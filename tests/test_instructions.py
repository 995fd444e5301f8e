"""Instruction tasks: prompts, ROUGE-L, encoding, the built-in task, Dolly and NI from a mirror."""

import collections
import doctest
import json
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer
from tiny_causal import CPU, causal_model, tokenizer

from fedlora_kit.data import get_task, load_task
from fedlora_kit.data import prompts as prompts_module
from fedlora_kit.data.builtin.instructions import PARTS, corpus
from fedlora_kit.data.builtin.instructions import examples as instructions
from fedlora_kit.data.class_names import DOLLY, INSTRUCTIONS, NATURAL_INSTRUCTIONS
from fedlora_kit.data.encoded_causal import IGNORED, encode_causal
from fedlora_kit.data.held_out import part
from fedlora_kit.data.natural_instructions import MOST_INSTANCES, chosen_tasks
from fedlora_kit.data.prompts import PROMPTS, template
from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.training import any_script, scoring
from fedlora_kit.training.any_script import AnyScript
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.generation import generate
from fedlora_kit.training.objective import example_losses
from fedlora_kit.training.scoring import answer_scores, right_answers, rouge_l

ALL = np.arange(6)


def test_doctests():
    assert doctest.testmod(prompts_module).failed == 0
    assert doctest.testmod(scoring).failed == 0
    assert doctest.testmod(any_script).failed == 0


# --- prompts ---------------------------------------------------------------------------------------------


def test_a_prompt_with_and_without_an_input():
    alpaca = template("alpaca")
    alone = alpaca.fill("Sort.")
    assert alone.endswith("### Instruction:\nSort.\n\n### Response:")
    assert "Input" not in alone
    assert alpaca.fill("Sort.", " \n") == alone
    both = alpaca.fill("Sort.", "b a")
    assert both.endswith("### Instruction:\nSort.\n\n### Input:\nb a\n\n### Response:")
    assert "paired with an input" in both


def test_places_in_the_texts_are_left_alone():
    for made in PROMPTS.values():
        text = made.fill("{input} {instruction} {x}", "{instruction}")
        assert text.count("{instruction}") == 2
        assert text.count("{input}") == text.count("{x}") == 1


# --- ROUGE-L ---------------------------------------------------------------------------------------------


def by_hand(answer, reference):
    """The textbook: longest common subsequence of words, by a full table; lower case, no stemming."""
    a, b = answer.lower().split(), reference.lower().split()
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i in range(len(a)):
        for j in range(len(b)):
            longest = max(table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else longest
    common = table[-1, -1]
    return 0.0 if common == 0 else 2 * common / (len(a) + len(b))


def test_rouge_l_of_hand_made_pairs():
    pairs = [
        ("dog red tree", "dog red tree", 1.0),
        ("tree red dog", "dog red tree", 1 / 3),
        ("dog tree", "dog red tree", 4 / 5),
        ("A, dog!", "a dog", 1.0),  # case and marks do not count
        ("dogs", "dog", 1.0),  # stemmed
        ("", "dog", 0.0),
        ("?", "dog", 0.0),
        ("fish", "dog", 0.0),
    ]
    for answer, reference, expected in pairs:
        assert rouge_l([answer], [[reference]]) == [pytest.approx(expected)], (answer, reference)


def test_rouge_l_equals_the_textbook_where_no_word_has_a_suffix():
    rng = np.random.default_rng(0)
    words = ["dog", "red", "tree", "big", "cat"]
    for _ in range(40):
        answer, reference = (" ".join(rng.choice(words, rng.integers(1, 7))) for _ in range(2))
        assert rouge_l([answer], [[reference]])[0] == pytest.approx(by_hand(answer, reference))


@hypothesis.given(st.text(st.characters(max_codepoint=126), max_size=60))
def test_words_of_ascii_are_rouge_scores_own(text):
    assert AnyScript().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("我爱北京", "我爱上海", 0.5),
        ("Это красный дом", "это красный", 0.8),
        ("Müller café", "M ller caf", 0.0),
        ("１２３", "123", 1.0),
        ("ที่นี่", "ที่นี้", 0.5),  # a letter with another mark is another one
        ("हिन्दी भाषा", "हिन्दी", 2 / 3),
        ("cafe\u0301", "café", 1.0),
        ("…", "…", 0.0),
    ],
)
def test_rouge_l_of_any_script(answer, reference, expected):
    scores = answer_scores([answer, answer], [[reference], [answer]], "rouge_l_any_script")
    assert scores["rouge_l"] == pytest.approx((expected + (answer != "…")) / 2)
    assert scores["accuracy"] >= 0.5


def test_the_best_reference_counts():
    references = [["dog", "red tree"], ["dog", "red tree"]]
    assert rouge_l(["red tree", "big tree"], references) == [1.0, 0.5]
    assert right_answers([" red tree\n", "Red tree"], references, "rouge_l") == [True, False]
    scores = answer_scores(["red tree", "big tree"], references, "rouge_l")
    assert scores == {"accuracy": 0.5, "rouge_l": 0.75}
    assert set(answer_scores(["#### 1"], [["#### 1"]], "final_number")) == {"accuracy"}


# --- encoding and generation -------------------------------------------------------------------------------


def some(n=6):
    """Instructions with and without an input, responses of unequal length."""
    asked = [f"Say {'it ' * (i % 3)}twice." for i in range(n)]
    given = ["" if i % 2 else "so" + " on" * i for i in range(n)]
    said = ["word" + " too" * (i % 4) for i in range(n)]
    return Examples((asked, given, said), np.arange(n) % 2, tuple((text, "same") for text in said))


def encoded(**extra):
    options = {"prompt": "plain", "max_length": 200, "max_new_tokens": 9, "metric": "rouge_l", **extra}
    return encode_causal(some(), tokenizer(), **options)


def test_the_loss_counts_the_response_only():
    data = encoded(prompt="alpaca", max_length=500)
    inputs, labels = data.batch(ALL, CPU)
    for i, (asked, given, said) in enumerate(zip(*some().columns, strict=True)):
        row = inputs["input_ids"][i][inputs["attention_mask"][i].bool()].tolist()
        prompt = data.tokenizer(PROMPTS["alpaca"].fill(asked, given))["input_ids"]
        response = data.tokenizer(said, add_special_tokens=False)["input_ids"]
        assert row == [*prompt, *response, data.end]
        assert labels[i][labels[i] != IGNORED].tolist() == [*response, data.end]
    assert data.labels.tolist() == [0, 1] * 3
    chosen = data.subset(np.array([4, 1]))
    assert chosen.references == (("word", "same"), ("word too", "same"))
    assert chosen.metric == "rouge_l"


def test_a_response_does_not_depend_on_its_neighbours():
    model, data = causal_model(), encoded()
    together = generate(model, data, CPU, max_tokens=10_000)
    assert together == generate(model, data, CPU, max_tokens=1)
    assert len(set(together)) > 1


def test_scores_of_a_model(monkeypatch):
    model, data = causal_model(), encoded()
    said = ["word", "word too", "same", "word", "nothing", "word"]
    monkeypatch.setattr("fedlora_kit.training.evaluation.generate", lambda *_: said)
    scores = evaluate(model, data, CPU, max_tokens=60)
    assert set(scores) == {"accuracy", "rouge_l", "loss", "examples"}
    assert scores["accuracy"] == 0.5
    expected = [1, 1, 1, 2 / 5, 0, 2 / 3]
    assert scores["rouge_l"] == pytest.approx(np.mean(expected))
    with torch.no_grad():
        inputs, labels = data.batch(ALL, CPU)
        assert scores["loss"] == pytest.approx(
            float(example_losses(model(**inputs).logits, labels).mean()), rel=1e-5
        )


def test_what_is_too_long_is_left_out_and_counted_or_an_error():
    lengths = encoded().lengths
    limit = int(np.sort(lengths)[-3])
    with pytest.raises(BadValue, match=f"2 of 6 examples are longer than max_length={limit}"):
        encoded(max_length=limit)
    data = encoded(max_length=limit, too_long="leave_out")
    kept = np.flatnonzero(lengths <= limit)
    assert data.left_out == 2
    assert data.references == encoded().subset(kept).references
    assert np.array_equal(data.tokens, encoded().subset(kept).tokens)
    with pytest.raises(BadValue, match="6 of 6 examples are longer"):
        encoded(max_length=5, too_long="leave_out")
    empty = Examples((["a"], ["b"], [" "]), np.zeros(1, np.int64))
    with pytest.raises(BadValue, match="1 answers are empty"):
        encode_causal(empty, tokenizer(), prompt="plain", max_length=99, max_new_tokens=4, metric="rouge_l")


# --- the built-in task ---------------------------------------------------------------------------------


def answer_by_rule(kind, instruction, given):
    """What each kind of instruction asks for, worked out from the input alone."""
    words = given.split()
    if kind == "last_word":
        return words[-1]
    if kind == "reverse":
        return " ".join(words[::-1])
    if kind == "sort":
        return " ".join(sorted(words))
    if kind == "names":
        return f"{words[0]} and {words[2]}"
    if kind == "count":
        numbers = ["", "one", "two", "three", "four", "five"]
        counted = collections.Counter(words)
        return " and ".join(f"{numbers[n]} {word}" for word, n in counted.items())
    if kind == "fact":
        name = instruction.removeprefix("What has ").removesuffix("?")
        return next(s for s in given.removesuffix(".").split(". ") if s.startswith(f"{name} "))
    return None


def test_the_built_in_responses_are_right_and_the_parts_are_apart():
    train, test = instructions("train"), instructions("test")
    assert np.bincount(train.labels).tolist() == [PARTS["train"][1]] * len(INSTRUCTIONS)
    assert np.bincount(test.labels).tolist() == [PARTS["test"][1]] * len(INSTRUCTIONS)
    asked = [set(zip(*e.columns[:2], strict=True)) for e in (train, test)]
    assert not asked[0] & asked[1]
    assert len(asked[0]) == len(train)
    opposites = {}
    for *texts, said, label in zip(*train.columns, train.labels, strict=True):
        expected = answer_by_rule(INSTRUCTIONS[label], *texts)
        assert said == (expected or said)
        assert 1 <= len(said.split()) <= 6
        if INSTRUCTIONS[label] == "opposite":
            opposites |= dict(zip(texts[1].split(), said.split(), strict=True))
    assert all(opposites[opposites[word]] == word for word in opposites)
    with pytest.raises(UnknownName, match="split of instructions"):
        instructions("validation")


def test_the_pre_training_text_has_the_words_but_no_instruction():
    lines = [context + rest for context, rest in corpus(2000, 0)]
    data = instructions("train")
    assert not any(instruction in line for instruction in set(data.columns[0]) for line in lines)
    shown = {f"{given}\n{said}" for given, said in zip(*data.columns[1:], strict=True)}
    assert not any(pair in line for pair in shown for line in lines)
    known = {word.strip(".,:?") for line in lines for word in line.split()}
    used = {word.strip(".") for column in data.columns[1:] for text in column for word in text.split()}
    assert used <= known


# --- a test part of the kit's own --------------------------------------------------------------------------


def rows(n=40):
    asked = [f"question {i}" for i in range(n)]
    return Examples((asked, [""] * n, [f"answer {i}" for i in range(n)]), np.arange(n) % 2)


def test_the_held_out_part_depends_on_the_texts_alone():
    data = rows()
    mixed = data.take(np.random.default_rng(1).permutation(len(data)))
    train, test = part(data, "train", 2), part(data, "test", 2)
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert len(train) + len(test) == len(data)
    assert set(part(mixed, "test", 2).columns[0]) == set(test.columns[0])
    assert not set(train.columns[0]) & set(test.columns[0])
    assert np.bincount(part(data, "test", 99).labels).tolist() == [3, 3]  # at most a sixth
    with pytest.raises(UnknownName, match="split"):
        part(data, "validation", 2)


def test_no_prompt_is_in_both_parts():
    data, test = rows(), part(rows(), "test", 2)
    twice = [*data.columns[0], *test.columns[0]]
    more = Examples((twice, [""] * 44, ["x"] * 44), np.append(data.labels, test.labels))
    train = part(more, "train", 2)
    assert len(train) == 36
    assert not set(train.columns[0]) & set(part(more, "test", 2).columns[0])


def test_of_equal_prompts_the_same_example_is_held_out_in_any_order():
    """Ten prompts with four answers each: some answer is held out, and no order of the rows changes it."""
    asked = [f"question {i % 10}" for i in range(40)]
    answers = [f"answer {i}" for i in range(40)]
    data = Examples((asked, [""] * 40, answers), [0] * 40, [[a, f"or {a}"] for a in answers])
    found = [
        part(data.take(np.random.default_rng(seed).permutation(40)), "test", 5).columns[-1]
        for seed in range(9)
    ]
    assert len(found[0]) == 1
    assert {tuple(answer) for answer in found} == {tuple(found[0])}


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60), st.integers(1, 9)
)
def test_every_class_keeps_something_to_train_on(pairs, per_class):
    """Whatever prompts classes share; and of a class at most a sixth of its prompts is asked, or one."""
    labels, asked = map(list, zip(*pairs, strict=True))
    texts = ([f"question {i}" for i in asked], [f"answer {i}" for i in range(len(asked))])
    data = Examples(texts, labels)
    train, test = part(data, "train", per_class), part(data, "test", per_class)
    assert set(train.labels) == set(labels)
    assert not set(train.columns[0]) & set(test.columns[0])
    for label in set(labels):
        prompts = {a for a, b in zip(asked, labels, strict=True) if b == label}
        assert (test.labels == label).sum() <= max(1, min(per_class, len(prompts) // 6))
    if len(set(asked)) > len(set(labels)):  # no class needs every prompt: some can be asked
        assert len(test)


# --- Dolly and Natural Instructions from a mirror ----------------------------------------------------------


def write_dolly(folder, **changes):
    import datasets

    kinds = [DOLLY[i % 8] for i in range(48)]
    columns = {
        "instruction": [f"Do {i}." for i in range(48)],
        "context": ["" if i % 3 else f"Text {i}." for i in range(48)],
        "response": [f"Done {i}." for i in range(48)],
        "category": kinds,
    }
    for name, change in changes.items():
        columns[name] = change(columns[name])
    place = folder / "datasets" / "databricks" / "databricks-dolly-15k"
    place.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict({k: v for k, v in columns.items() if v is not None})
    table.to_parquet(str(place / "train.parquet"))
    return place / "train.parquet"


def test_dolly_from_a_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    task = get_task("dolly")
    write_dolly(tmp_path)
    loaded = load_task(task)
    assert np.bincount(loaded.evals["test"].labels).tolist() == [1] * 8
    assert np.bincount(loaded.train.labels).tolist() == [5] * 8
    for asked, _, said, label in zip(*loaded.train.columns, loaded.train.labels, strict=True):
        number = int(asked.removeprefix("Do ").removesuffix("."))
        assert (said, label) == (f"Done {number}.", number % 8)
    before = fingerprint(task)
    write_dolly(tmp_path, response=lambda r: ["Other.", *r[1:]])
    assert fingerprint(task) != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"category": lambda c: ["poetry", *c[1:]]}, r"category has the unknown value 'poetry'"),
        ({"context": lambda c: None}, "has no column context"),
        ({"response": lambda r: [None, *r[1:]]}, "column response is empty in row 0"),
    ],
)
def test_a_damaged_dolly(tmp_path, monkeypatch, change, said):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    write_dolly(tmp_path, **change)
    with pytest.raises(FedloraError, match=said):
        load_task(get_task("dolly"))


def test_a_missing_dolly(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    for ask in (load_task, fingerprint):
        with pytest.raises(FedloraError, match="databricks-dolly-15k/train.parquet"):
            ask(get_task("dolly"))


def write_ni(folder, name, instances, **more):
    place = folder / "datasets" / "allenai" / "natural-instructions" / "tasks"
    place.mkdir(parents=True, exist_ok=True)
    content = {"Definition": [f"Do {name}."], "Instances": instances, **more}
    (place / f"{name}.json").write_text(json.dumps(content))
    return place / f"{name}.json"


def instances(n=12):
    return [{"id": str(i), "input": f" in {i} ", "output": [f"out {i}", "or else"]} for i in range(n)]


def own_task(*names):
    return chosen_tasks(get_task("natural_instructions"), "own", names)


def test_natural_instructions_from_a_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    write_ni(tmp_path, "b", instances())
    write_ni(tmp_path, "a", instances(MOST_INSTANCES + 50))
    task = own_task("b", "a")
    loaded = load_task(task)
    assert np.bincount(loaded.train.labels).tolist() == [10, 500]
    assert np.bincount(loaded.evals["test"].labels).tolist() == [2, 100]
    asked, given, said = (column[0] for column in loaded.train.columns)
    assert asked == "Do b."
    assert said == given.replace("in", "out")
    assert loaded.train.references[0] == (said, "or else")
    before = fingerprint(task)
    assert fingerprint(own_task("a", "b")) != before
    write_ni(tmp_path, "b", instances(11))
    assert fingerprint(task) != before


def test_older_task_files_have_strings_where_newer_ones_have_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    newer = [{"input": f"in {i}", "output": [f"out {i}"]} for i in range(12)]
    older = [{"input": f"in {i}", "output": f"out {i}"} for i in range(12)]
    write_ni(tmp_path, "a", newer, Definition=["Do this.", " Then that. "])
    new = load_task(own_task("a")).train
    write_ni(tmp_path, "a", older, Definition="Do this. Then that.")
    old = load_task(own_task("a")).train
    assert old.columns == new.columns
    assert old.references == new.references
    assert old.columns[0][0] == "Do this. Then that."


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"Definition": 7}, "Definition"),
        ({"Definition": ["Do", 7]}, "Definition"),
        ({"Definition": {"en": "Do"}}, "Definition"),
        ({"Instances": [{"input": ["x"], "output": ["y"]}]}, "input is no string"),
        ({"Instances": [{"input": "x", "output": [7]}]}, "output"),
        ({"Instances": [{"input": "x", "output": None}]}, "output"),
    ],
)
def test_other_forms_of_a_task_file_are_refused_by_name(tmp_path, monkeypatch, more, said):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    file = write_ni(tmp_path, "a", instances())
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    with pytest.raises(FedloraError, match=f"a.json is not a task file .* TypeError .*{said}"):
        load_task(own_task("a"))


def test_what_natural_instructions_needs(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDLORA_HUB", raising=False)
    task = get_task("natural_instructions")
    assert task.label_names == NATURAL_INSTRUCTIONS
    for ask in (load_task, fingerprint):
        with pytest.raises(FedloraError, match=r"no table on the Hub(.|\n)*task363.*FEDLORA_HUB"):
            ask(task)
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    write_ni(tmp_path, NATURAL_INSTRUCTIONS[0], instances())
    with pytest.raises(FedloraError, match=r"no .*task073_.*\(7 of 8 task files"):
        load_task(task)
    write_ni(tmp_path, "bad", [{"input": "x"}])
    with pytest.raises(FedloraError, match=r"bad.json is not a task file .* KeyError 'output'"):
        load_task(own_task("bad"))
    write_ni(tmp_path, "mute", [{"input": "x", "output": [" "]}])
    with pytest.raises(FedloraError, match=r"mute.json: instance 0 has an empty answer"):
        load_task(own_task("mute"))
    for names in ((), ("a", "a")):
        with pytest.raises(BadValue, match="task files"):
            own_task(*names)
    assert replace(task, name="x").layout == "task_files"
