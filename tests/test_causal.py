"""Causal language models: prompts, encoding, loss, generation, scoring."""

import doctest

import numpy as np
import pytest
import tiny_causal
import torch
from tiny_causal import CPU, causal_data, causal_model, pairs, tokenizer

from fedlora_kit.data import prompts
from fedlora_kit.data.builtin.arithmetic import PARTS, corpus
from fedlora_kit.data.builtin.arithmetic import examples as arithmetic
from fedlora_kit.data.encoded_causal import IGNORED, encode_causal
from fedlora_kit.data.prompts import final_number
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.training import objective
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.generation import generate
from fedlora_kit.training.objective import example_losses
from fedlora_kit.training.scoring import right_answers

ALL = np.arange(6)


def test_doctests():
    assert doctest.testmod(prompts).failed == 0
    assert doctest.testmod(objective).failed == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("a\n#### 72", "72"),
        ("#### 1,080", "1080"),
        ("#### -12", "-12"),
        ("#### 0.50 litres", "0.50"),
        ("#### 18.", "18."),
        ("####9", None),
        ("####  9", None),
        ("####\n9", None),
        ("#### 5\n#### 6", "5"),
        ("#### 100", "100"),
        ("#### -0", "-0"),
        ("#### 12345678901234567890123456789012", "12345678901234567890123456789012"),
        ("the answer is 72", None),
        ("", None),
        ("#### none", None),
        ("#### 1.2.3", "1.2.3"),
        ("####", None),
    ],
)
def test_the_final_number_follows_the_rule(text, number):
    assert final_number(text) == number


def test_an_answer_without_a_number_is_wrong():
    said = ["#### 3", "3", "#### 3.0", "#### 4", "####3", "#### 3,"]
    assert right_answers(said, [("#### 3",)] * 6, "final_number") == [True, False, False, False, False, True]


def test_the_answers_of_the_built_in_problems_are_right_and_the_splits_are_apart():
    train, test = arithmetic("train"), arithmetic("test")
    assert (len(train), len(test)) == (PARTS["train"][1], PARTS["test"][1])
    assert not set(train.columns[0]) & set(test.columns[0])
    for question, answer in zip(*test.columns, strict=True):
        first, second, last = answer.split("\n")
        (left, middle), (again, end) = first.split("="), second.split("=")
        assert eval_sum(left) == int(middle)
        assert eval_sum(again) == int(end)
        assert last == f"#### {end}"
        assert 0 <= int(end) <= 20
        assert str(middle) == again.replace("-", "+").split("+")[0]
        assert question.count("?") == 1
    for context, rest in corpus(500, 0):  # no question, and no sum that ends as an answer does
        assert "?" not in context + rest
        assert not ("####" in rest and "=" in rest)
    with pytest.raises(UnknownName, match="split of arithmetic"):
        arithmetic("validation")


def eval_sum(text):
    if "+" in text:
        a, b = text.split("+")
        return int(a) + int(b)
    a, b = text.split("-")
    return int(a) - int(b)


# --- encoding ------------------------------------------------------------------------------------------


def test_the_loss_counts_the_answer_and_its_end_only():
    data = causal_data(6)
    inputs, labels = data.batch(ALL, CPU)
    for i, (question, answer) in enumerate(zip(*pairs(6).columns, strict=True)):
        asked = data.tokenizer(f"{question}\n")["input_ids"]
        said = data.tokenizer(answer, add_special_tokens=False)["input_ids"]
        row = inputs["input_ids"][i][inputs["attention_mask"][i].bool()].tolist()
        assert row == [*asked, *said, data.end]
        assert inputs["attention_mask"][i].tolist() == [1] * len(row) + [0] * (labels.shape[1] - len(row))
        assert labels[i, : len(asked)].tolist() == [IGNORED] * len(asked)
        assert labels[i, len(asked) : len(row)].tolist() == [*said, data.end]
        assert (labels[i, len(row) :] == IGNORED).all()
        assert data.decode(said) == answer


def test_prompts_end_at_the_right_edge():
    data = causal_data(6)
    prompts_ = data.prompts(ALL, CPU)
    assert prompts_["attention_mask"][:, -1].all()
    for i, question in enumerate(pairs(6).columns[0]):
        kept = prompts_["input_ids"][i][prompts_["attention_mask"][i].bool()]
        assert kept.tolist() == data.tokenizer(f"{question}\n")["input_ids"]


def test_a_subset_is_the_same_examples():
    data, chosen = causal_data(6), np.array([4, 1])
    part = data.subset(chosen)
    assert part.references == (data.references[4], data.references[1])
    for got, want in zip(part.batch(np.arange(2), CPU), data.batch(chosen, CPU), strict=True):
        torch.testing.assert_close(got, want)
    assert len(data.subset(np.array([], dtype=np.int64))) == 0


def test_what_cannot_be_encoded_is_refused():
    def encode(question="what?", answer="1+1=2\n#### 2", prompt="plain", max_length=64):
        examples = Examples((["q", question], ["#### 1", answer]), np.zeros(2, np.int64))
        return encode_causal(examples, tokenizer(), prompt=prompt, max_length=max_length, max_new_tokens=4)

    assert len(encode()) == 2
    with pytest.raises(BadValue, match="1 answers are empty, such as number 1"):
        encode(answer=" ")
    with pytest.raises(BadValue, match="no final number, such as number 1"):
        encode(answer="two")
    with pytest.raises(
        BadValue, match=r"1 of 2 examples are longer than max_length=10 .*\n.*max_length to \d+"
    ):
        encode(max_length=10)
    with pytest.raises(UnknownName, match="prompt template 'chat'"):
        encode(prompt="chat")


def test_curly_brackets_in_a_question_are_left_alone():
    examples = Examples((["{question} {x}"], ["#### 1"]), np.zeros(1, np.int64))
    data = encode_causal(examples, tokenizer(), prompt="alpaca", max_length=500, max_new_tokens=4)
    text = data.decode(data.tokens[: data.prompt_lengths[0]].tolist())
    assert "### Instruction:\n{question} {x}\n\n### Response:" in text


# --- loss and generation ---------------------------------------------------------------------------------


def test_the_loss_is_a_mean_over_each_examples_own_answer():
    model, data = causal_model(), causal_data(6)
    together = example_losses(model(**(b := data.batch(ALL, CPU))[0]).logits, b[1])
    for i in range(6):
        inputs, labels = data.batch(np.array([i]), CPU)
        alone = model(**inputs, labels=labels).loss  # transformers' own: right for a batch of one
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)
    own = model(**b[0], labels=b[1]).loss
    assert not torch.isclose(
        own, together.mean(), rtol=1e-3
    )  # a mean over the batch's tokens is another thing


def test_an_answer_does_not_depend_on_its_neighbours():
    model, data = causal_model(), causal_data(6)
    together = generate(model, data, CPU, max_tokens=10_000)
    alone = generate(model, data, CPU, max_tokens=1)
    assert together == alone
    assert len(set(together)) > 1
    assert [generate(model, data.subset(np.array([i])), CPU, 10_000)[0] for i in range(6)] == alone


def test_greedy_answers_are_those_of_transformers():
    model, data = causal_model(), causal_data(6)
    for i, mine in enumerate(generate(model, data, CPU, 10_000)):
        prompt = data.prompts(np.array([i]), CPU)
        theirs = model.generate(
            **prompt,
            max_new_tokens=data.max_new_tokens,
            do_sample=False,
            eos_token_id=data.end,
            pad_token_id=data.pad,
        )
        assert mine == data.decode(theirs[0, prompt["input_ids"].shape[1] :].tolist())


def test_scoring_is_exact_match_and_the_mean_loss(monkeypatch):
    model, data = causal_model().train(), causal_data(6)
    first = [accepted[0] for accepted in data.references]
    answers = [*first[:2], "no idea", "#### 999", first[4].split("\n")[-1], ""]
    monkeypatch.setattr("fedlora_kit.training.evaluation.generate", lambda *_: answers)
    scores = evaluate(model, data, CPU, max_tokens=40)
    with torch.no_grad():
        inputs, labels = data.batch(ALL, CPU)
        losses = example_losses(model.eval()(**inputs).logits, labels)
    assert scores == {"accuracy": 0.5, "loss": pytest.approx(float(losses.mean()), rel=1e-5), "examples": 6}


def test_generation_leaves_the_model_as_it_was():
    model = causal_model().train()
    generate(model, causal_data(2), CPU, 100)
    assert model.training
    assert (
        max(len(tokenizer()(a, add_special_tokens=False)["input_ids"]) for (a,) in causal_data(2).references)
        <= tiny_causal.MAX_NEW_TOKENS
    )
