"""FFA-LoRA, Table 1: LoRA and FFA-LoRA without DP and at epsilon = 6, 3, 1."""

from __future__ import annotations

from collections.abc import Sequence

from fedlora_kit.papers import laptop
from fedlora_kit.papers.ffa_lora.claims import half_claims
from fedlora_kit.papers.ffa_lora.experiment import Experiment
from fedlora_kit.papers.ffa_lora.grid import PAPER_CLIPS, PAPER_RATES, Setting, number_name
from fedlora_kit.study.claims import Claim, lower_spread, mean_difference, smaller_drop

PRIVACY = (None, 6.0, 3.0, 1.0)

PROFILES: dict[str, Setting] = {
    "paper": Setting(
        tasks=("mnli", "sst2", "qqp", "qnli"),
        backbone="FacebookAI/roberta-large",
        precision="tf32",
        rounds=1000,
        steps=10,
        batch_size=200,
        rates=PAPER_RATES,
        clips=PAPER_CLIPS,
        seeds=tuple(range(20)),
        tuning_seeds=(1000,),
        holdout=2000,
        max_length=128,
        epsilons=PRIVACY,
        eval_every=100,
        max_tokens=32_768,
    ),
    "small": Setting(
        tasks=("mnli", "sst2", "qqp", "qnli"),
        backbone="FacebookAI/roberta-base",
        precision="tf32",
        rounds=30,
        steps=10,
        batch_size=64,
        rates=PAPER_RATES,
        clips=(2.0,),
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        holdout=1000,
        train_limit=20_000,
        eval_limit=1000,
        max_length=128,
        epsilons=PRIVACY,
        max_tokens=16_384,
    ),
    "laptop": Setting(
        tasks=("mnli", "sst2", "qqp", "qnli"),
        backbone=laptop.TEXT,
        rounds=5,
        steps=10,
        batch_size=16,
        rates=laptop.RATES,
        clips=laptop.CLIPS,
        seeds=laptop.SEEDS,
        tuning_seeds=(1000,),
        holdout=400,
        eval_limit=1000,
        max_length=64,
        epsilons=PRIVACY,
        head_scale=laptop.HEAD_SCALE,
        private=laptop.PRIVATE,
    ),
    "smoke": Setting(
        tasks=("entailment", "polarity", "paraphrase", "answerable"),
        backbone="kit/text-tiny",
        rounds=4,
        steps=4,
        batch_size=16,
        rates={"lora": (0.6, 2.0), "ffa-lora": (2.0, 6.0)},
        clips=(1.0,),
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        holdout=300,
        eval_limit=300,
        epsilons=PRIVACY,
    ),
}

EXPERIMENT = Experiment("ffa-lora/table1", ("eps", "method"), PROFILES)
runs = EXPERIMENT.runs


def claims(epsilons: Sequence[float | None] = PRIVACY) -> list[Claim]:
    """The paper's sentences that Table 1 bears on, as predicates over `study.grid.results_frame`."""
    lora, ffa = {"method": "lora"}, {"method": "ffa-lora"}
    within = ["task"]
    found = [
        *half_claims(["eps", "task"]),
        Claim(
            "spread_none",
            "without DP, FFA-LoRA varies less over the runs than LoRA",
            "Table 1 (standard deviations)",
            "SEEN",
            lambda r: lower_spread(
                r, "accuracy", better={**ffa, "eps": "none"}, worse={**lora, "eps": "none"}, within=within
            ),
        ),
    ]
    for epsilon in epsilons:
        if epsilon is None:
            continue
        name = number_name(epsilon)
        found += [
            Claim(
                f"better_eps{name}",
                f"at epsilon = {name}, FFA-LoRA is more accurate than LoRA",
                "Table 1",
                "SEEN at epsilon = 6 (MNLI-m); the other cells are not known",
                lambda r, e=name: mean_difference(  # type: ignore[misc]
                    r, "accuracy", better={**ffa, "eps": e}, worse={**lora, "eps": e}, within=within
                ),
            ),
            Claim(
                f"smaller_drop_eps{name}",
                f"from no DP to epsilon = {name}, FFA-LoRA loses less accuracy than LoRA",
                "Table 1, section 5",
                "SEEN at epsilon = 6 (MNLI-m); the other cells are not known",
                lambda r, e=name: smaller_drop(  # type: ignore[misc]
                    r,
                    "accuracy",
                    better=ffa,
                    worse=lora,
                    before={"eps": "none"},
                    after={"eps": e},
                    within=within,
                ),
            ),
        ]
    return found
