"""What FFA-LoRA's tables share besides their runs: the claims on size, and where a run departs from the
paper."""

from __future__ import annotations

from collections.abc import Sequence

from fedlora_kit.papers.ffa_lora.grid import STAND_INS, Setting
from fedlora_kit.study.claims import Claim
from fedlora_kit.study.equivalence import exact_ratio
from fedlora_kit.study.number_formats import precision_note
from fedlora_kit.study.overrides import departures


def half_claims(within: Sequence[str]) -> list[Claim]:
    """FFA-LoRA trains and sends half of what LoRA does (section 4), cell by cell.

    Args:
        within: the coordinates of a cell besides the method.
    """
    texts = {
        "trained_parameters": ("half_trained", "FFA-LoRA trains half as many parameters as LoRA"),
        "sent_bytes": ("half_sent", "FFA-LoRA sends half as many bytes a round as LoRA"),
    }
    return [
        Claim(
            name,
            text,
            "section 4",
            "SEEN",
            lambda r, column=column: exact_ratio(  # type: ignore[misc]
                r,
                column,
                numerator={"method": "ffa-lora"},
                denominator={"method": "lora"},
                ratio=0.5,
                within=within,
            ),
        )
        for column, (name, text) in texts.items()
    ]


def deviations(s: Setting, paper: Setting, *own: str) -> list[str]:
    """Where a run of a setting departs from the paper, and what the paper leaves unknown.

    Args:
        s: the setting; paper: the published one, as far as it is known.
        own: sentences that hold for this item alone.
    """
    private = any(epsilon is not None for epsilon in s.epsilons)
    common = [
        *own,
        *precision_note(s.precision, private),
        f"Unknown in the paper, chosen here: no momentum, no learning-rate schedule, no LoRA dropout, "
        f"sequence length {s.max_length or 'as the tokenizer allows'}.",
        "The scored split is the validation split; the paper does not say which it scored.",
        "The best configuration is chosen on held-out training examples at a tuning seed; how the paper "
        "chose is not known.",
    ]
    if "severe" in s.splits:
        common.append(
            "The label shares are those known of the paper; whether it used them here, and whether they are "
            "its mild or severe level, is not known."
        )
    if private:
        common += [
            "Clients hold equally many examples, so the examples of a class beyond its shares stay unused, "
            "and so do those set aside for the grid. A client therefore holds less than a third of the "
            "training split and needs more noise: at the paper's size about σ = 1.09 for SST-2 at ε = 6, "
            "where an equal third gives the paper's 0.99.",
            "The runs of the grid use the same private examples; their privacy is not accounted for.",
        ]
    if "answerable" in s.tasks:
        common.append(
            "On answerable, QNLI's stand-in, many settings score exactly 84.00 %: as many scored examples "
            "are "
            "decided by the kind of answer alone, and at this size the runs rarely learn more. That column "
            "hardly "
            "tells settings apart."
        )
    if any(len(rates) < 3 for rates in s.rates.values()):
        common.append(
            "A grid of one or two learning rates does not bracket the best one: the chosen rate is an end "
            "of it."
        )
    if s == paper:
        return common
    changes = departures(s, paper, apart={"max_tokens", "eval_every"})
    first = (
        "Smoke profile: the tasks are built-in stand-ins of the same shape, not GLUE; figures cannot be "
        "compared with the paper's."
        if set(s.tasks) <= set(STAND_INS.values())
        else "Other model and sizes than the paper's: figures cannot be compared one to one."
    )
    return [first, *changes, *common]
