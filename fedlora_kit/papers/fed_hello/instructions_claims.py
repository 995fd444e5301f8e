"""Fed-HeLLo on instructions: the claims, and what was chosen where the paper says nothing."""

from __future__ import annotations

import dataclasses

from fedlora_kit.papers.fed_hello.instructions import PROFILES, ROC, WORDS, Setting
from fedlora_kit.papers.fed_hello.table2 import BASELINES
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.known_methods import look

#: the column that the claims are judged on
SCORE = "rouge_l"


def claims(data_set: str) -> list[Claim]:
    """Fed-HeLLo above each baseline in ROUGE-L, as predicates over `study.grid.results_frame`."""
    return [
        Claim(
            f"above_{baseline}_{split}",
            f"{WORDS[split]}, resources {ROC}: Fed-HeLLo's ROUGE-L is above that of {look(baseline).title}",
            "abstract: above the baselines",
            "SECOND: the direction; metric and numbers are UNKNOWN",
            lambda r, b=baseline, s=split: mean_difference(  # type: ignore[misc]
                r,
                SCORE,
                better={"method": "fed-hello", "split": s},
                worse={"method": b, "split": s},
                within=["task"],
            ),
        )
        for split in PROFILES[data_set]["paper"].splits
        for baseline in BASELINES
    ]


def deviations(data_set: str, s: Setting) -> list[str]:
    """What is unknown and was chosen, and where a run departs from the paper-size setting."""
    paper = PROFILES[data_set]["paper"]
    held = "50 of each category" if data_set == "dolly" else "100 instances of each task (at most a sixth)"
    source = "Dolly" if data_set == "dolly" else "Natural Instructions"
    common = [
        "The paper's model, split, number of clients, rounds, learning rate, metric and numbers are UNKNOWN; "
        "the released code has no text generation. Ours: LLaMA-7B, 100 clients of whom 10 train a round "
        f"and LoRA r = alpha = 16 on q and v as in Table II, {paper.rounds} rounds of {paper.steps} AdamW "
        f"steps (FedKSeed's number of rounds) at lr {paper.lr:g} (FedIT's), the alpaca prompt. As in "
        f"Table II the rate decays by {s.lr_decay:g} a round, weight decay is {s.weight_decay:g} and dropout "
        f"{s.dropout:g}.",
        f"{source}'s test part is the kit's: {held}, those whose prompts have the smallest hash. What "
        "is in it is not trained on. Examples longer than the limit are left out, and counted above.",
        "ROUGE-L is Google's rouge-score with stemming, the best over an example's references; accuracy is "
        "the exact match of the response. The last round counts, not the best one.",
        "The groups' 1/2, 3/4 and all of the layers are Table II's 6, 9 and 12 of 12, in proportion to the "
        "model's depth; HETLoRA's and FlexLoRA's ranks are its 1, 4 and 16 of 16.",
        "The Fisher scores are of the log-likelihood of the whole response. FedRA's clients train without "
        "the layers they do not hold; what is scored is always the whole global model.",
        "One learning rate for all methods, untuned (at laptop size the better of two tried for lora on a "
        "seed that is not reported, scored on the test part). A baseline may fare better at another. lora is "
        "FedAvg with every client training everything: an upper reference of ours.",
    ]
    if data_set == "natural_instructions":
        common.insert(
            2,
            "Of Natural Instructions' more than 1,600 tasks the kit takes eight of different kinds (the "
            "categories); training and test instances are of the same tasks. Neighbours test on other tasks.",
        )
    if s == paper:
        return common
    first = (
        [
            "Smoke profile: eight kinds of built-in instructions on the kit's own Llama of 4 layers stand in "
            f"for {source}; about half of the test inputs stood, with what is said of them, in statements of "
            "its pre-training text. Figures cannot be compared with the paper's."
        ]
        if s.task == "instructions"
        else ["Other sizes than the paper-size setting: figures cannot be compared one to one."]
    )
    changes = [
        f"{f.name}: {getattr(s, f.name)!r} (paper-size setting: {getattr(paper, f.name)!r})"
        for f in dataclasses.fields(Setting)
        if getattr(s, f.name) != getattr(paper, f.name) and f.name not in {"max_tokens", "eval_every"}
    ]
    return [*first, *changes, f"Fisher scores after {s.refresh} rounds, then every {s.refresh}.", *common]
