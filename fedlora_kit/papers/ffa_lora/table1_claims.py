"""FFA-LoRA, Table 1: what the paper says about it, as predicates."""

from __future__ import annotations

from collections.abc import Sequence

from fedlora_kit.papers.ffa_lora.claims import half_claims
from fedlora_kit.papers.ffa_lora.grid import number_name
from fedlora_kit.study.claims import Claim, lower_spread, mean_difference, smaller_drop


def claims(epsilons: Sequence[float | None] = (None, 6.0, 3.0, 1.0)) -> list[Claim]:
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
