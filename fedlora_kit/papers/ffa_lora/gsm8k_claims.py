"""FFA-LoRA on GSM8K: what the paper says about it, as predicates, and where a run departs from it."""

from __future__ import annotations

from fedlora_kit.papers.ffa_lora.gsm8k import PROFILES, Setting
from fedlora_kit.study.claims import Claim, mean_difference
from fedlora_kit.study.equivalence import exact_ratio
from fedlora_kit.study.overrides import departures


def claims() -> list[Claim]:
    """The paper's sentences that this table bears on, as predicates over `papers.ffa_lora.gsm8k.results`."""
    lora, ffa = {"method": "lora"}, {"method": "ffa-lora"}
    within = ["task"]
    return [
        Claim(
            "better",
            "FFA-LoRA answers more questions right than LoRA (exact match of the final number)",
            "section 5.3 (17.12 % against 15.68 %)",
            "SEEN; the number of runs behind the two figures is not known",
            lambda r: mean_difference(r, "accuracy", better=ffa, worse=lora, within=within),
        ),
        Claim(
            "half_trained",
            "FFA-LoRA trains half as many parameters as LoRA",
            "section 4 (q, k, v and o are square in LLaMA-7B)",
            "SEEN",
            lambda r: exact_ratio(
                r, "trained_parameters", numerator=ffa, denominator=lora, ratio=0.5, within=within
            ),
        ),
        Claim(
            "half_sent",
            "FFA-LoRA sends half as many bytes a round as LoRA",
            "section 4",
            "SEEN",
            lambda r: exact_ratio(r, "sent_bytes", numerator=ffa, denominator=lora, ratio=0.5, within=within),
        ),
    ]


def deviations(profile: str, s: Setting) -> list[str]:
    """Where a run of this setting departs from the paper, and what the paper leaves unknown."""
    common = [
        "Unknown in the paper, chosen here: the split, prompt, batch, rounds, local steps, α, dropout and "
        "number of runs. In the paper profile all but the last are those of FederatedScope-LLM's "
        "configuration for GSM8K: 3 clients, i.i.d., 500 rounds of 30 steps on one example, r = 8, α = 16, "
        "dropout 0.05, Alpaca's prompt.",
        "Optimiser: SGD with the paper's grids of learning rates, which it names for its other tasks; "
        "FederatedScope-LLM's file names lr = 0.0003 and no optimiser.",
        "Targets: q, k, v and o, as derived for the paper's RoBERTa runs; FederatedScope-LLM leaves them to "
        "PEFT (q and v for LLaMA).",
        "The learning rate is chosen by the loss of answers held out of the training split, at a seed that "
        "is not reported; how the paper chose is not known.",
        "The loss of an example is the mean over its answer's tokens. FederatedScope-LLM averages over the "
        "tokens of a batch, which is the same for its batch of one example.",
        "Prompt and answer are tokenised apart; FederatedScope-LLM tokenises the joined text.",
        "Answers are greedy, zero-shot, and scored by the number after '####'. FederatedScope-LLM's script "
        "shows eight worked examples first, samples, and takes the number after 'The answer is', or else the "
        "last one. Which the paper used is not known.",
    ]
    paper = PROFILES["paper"]
    if s == paper:
        return common
    changes = departures(s, paper, apart={"max_tokens", "eval_max_tokens", "gradient_checkpointing"})
    first = ["Other model and sizes than the paper's: figures cannot be compared one to one."]
    if "gsm8k" not in s.tasks:
        first.append(
            "The task is a built-in stand-in of the same form (a story, worked sums, '#### n'), not GSM8K."
        )
    if s.backbone == "kit/causal-tiny":
        first.append(
            "The backbone was pre-trained on statements of the task's own world with the same kind of sums, "
            "never on its questions: closer to the task than ordinary pre-training."
        )
    return [*first, *changes, *common]
