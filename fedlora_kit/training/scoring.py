"""How the answers of a causal language model are scored against their references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fedlora_kit.data.prompts import final_number
from fedlora_kit.data.task import Metric

#: of each example, the answers that count as right
References = Sequence[Sequence[str]]


def right_answers(answers: Sequence[str], references: References, metric: Metric) -> list[bool]:
    """Which answers are right.

    Args:
        metric: "final_number": the answer's final number is that of a reference
            (`data.prompts.final_number`; an answer without one is wrong). Otherwise the answer is a
            reference, but for blanks at either end.
    """
    read = final_number if metric == "final_number" else str.strip
    found = []
    for answer, accepted in zip(answers, references, strict=True):
        value = read(answer)
        found.append(value is not None and any(value == read(reference) for reference in accepted))
    return found


def rouge_l(answers: Sequence[str], references: References, any_script: bool = False) -> list[float]:
    """ROUGE-L of each answer, in [0, 1]: the best over its references.

    The F-measure of the longest common subsequence of words (Lin 2004), by Google's ``rouge-score`` with its
    own tokenizer and ``use_stemmer=True`` (Porter), as in the evaluation of Super-NaturalInstructions. That
    tokenizer is for English: it keeps the letters a to z and digits alone, in lower case, so that equal
    answers in Chinese or Russian have 0.

    Args:
        any_script: count words of any script instead (`training.any_script`); the same for ASCII texts.

    >>> rouge_l(["the red ball", "red"], [["a red ball"], ["blue", "red"]])
    [0.6666666666666666, 1.0]
    """
    scorer = _rouge(any_script)
    return [
        max(float(scorer.score(reference, answer)["rougeL"].fmeasure) for reference in accepted)
        for answer, accepted in zip(answers, references, strict=True)
    ]


def answer_scores(answers: Sequence[str], references: References, metric: Metric) -> dict[str, float]:
    """Means over the examples, in [0, 1]: accuracy, and rouge_l but for the metric "final_number"."""
    right = right_answers(answers, references, metric)
    scores = {"accuracy": sum(right) / len(right)}
    if metric != "final_number":
        found = rouge_l(answers, references, any_script=metric == "rouge_l_any_script")
        scores["rouge_l"] = sum(found) / len(right)
    return scores


@lru_cache(maxsize=2)
def _rouge(any_script: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    if not any_script:
        return RougeScorer(["rougeL"], use_stemmer=True)
    from fedlora_kit.training.any_script import AnyScript

    return RougeScorer(["rougeL"], tokenizer=AnyScript())
