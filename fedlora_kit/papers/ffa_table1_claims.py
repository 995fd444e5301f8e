"""FFA-LoRA, Table 1: what the paper says about it, as predicates, and where a run departs from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fedlora_kit.papers.claims import Claim, exact_ratio, lower_spread, mean_difference, smaller_drop
from fedlora_kit.papers.ffa_table1 import PROFILES, STAND_INS, Setting, eps_name


def claims(epsilons: Sequence[float | None] = (None, 6.0, 3.0, 1.0)) -> list[Claim]:
    """The paper's sentences that Table 1 bears on, as predicates over `papers.grid.results_frame`."""
    lora, ffa = {"method": "lora"}, {"method": "ffa-lora"}
    within = ["task"]
    found = [
        Claim(
            "half_trained",
            "FFA-LoRA trains half as many parameters as LoRA",
            "section 4",
            "SEEN",
            lambda r: exact_ratio(
                r, "trained_parameters", numerator=ffa, denominator=lora, ratio=0.5, within=["eps", "task"]
            ),
        ),
        Claim(
            "half_sent",
            "FFA-LoRA sends half as many bytes a round as LoRA",
            "section 4",
            "SEEN",
            lambda r: exact_ratio(
                r, "sent_bytes", numerator=ffa, denominator=lora, ratio=0.5, within=["eps", "task"]
            ),
        ),
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
        name = eps_name(epsilon)
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


def deviations(profile: str, s: Setting) -> list[str]:
    """Where a run of this setting departs from the paper, and what the paper leaves unknown."""
    common = [
        f"Unknown in the paper, chosen here: no momentum, no learning-rate schedule, no LoRA dropout, "
        f"sequence length {s.max_length or 'as the tokenizer allows'}.",
        "The scored split is the validation split; the paper does not say which it scored.",
        "The best configuration is chosen on held-out training examples at a tuning seed; how the paper "
        "chose is not known.",
        "The label shares are those known of the paper; whether Table 1 used them, and whether they are its "
        "mild or severe level, is not known.",
        "Clients hold equally many examples, so the examples of a class beyond its shares stay unused, and "
        "so do those set aside for the grid. A client therefore holds less than a third of the training "
        "split and needs more noise: at the paper's size about σ = 1.09 for SST-2 at ε = 6, where an equal "
        "third gives the paper's 0.99.",
        "The runs of the grid use the same private examples; their privacy is not accounted for.",
    ]
    paper = PROFILES["paper"]
    if s == paper:
        return common
    changes = [
        f"{f.name}: {getattr(s, f.name)!r} (paper: {getattr(paper, f.name)!r})"
        for f in dataclasses.fields(Setting)
        if getattr(s, f.name) != getattr(paper, f.name) and f.name not in {"max_tokens", "eval_every"}
    ]
    first = (
        [
            "Smoke profile: the tasks are built-in stand-ins of the same shape, not GLUE; figures cannot be "
            "compared with the paper's."
        ]
        if set(s.tasks) <= set(STAND_INS.values())
        else ["Other model and sizes than the paper's: figures cannot be compared one to one."]
    )
    return [*first, *changes, *common]
