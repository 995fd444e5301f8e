"""Fed-HeLLo as the paper describes it, or as its authors' code was released: two named modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlora_kit.methods import METHODS
from fedlora_kit.methods.defects import AS_RELEASED

DESCRIBED, RELEASED = "as_described", "as_released"
MODES = (DESCRIBED, RELEASED)


def constant_rate(lr: float, lr_decay: float) -> tuple[float, float]:
    """Rate and decay of the released code: its decay fires once, before the first round, by a slip of
    precedence (``if t+1 % step``), so 0.01 with 0.99 becomes a constant 0.0099.

    >>> constant_rate(0.01, 0.99)
    (0.0099, 1.0)
    """
    return lr * lr_decay, 1.0


def released_method(method: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A method of the comparison as the authors' code runs it: its name in the kit, and its settings.

    Every defect that the method can have is on. FedRA becomes RGD-HLA with uniform probabilities, as the logs
    show (REPLAYED: uniform draws with the freezing defect; whether layers left the model cannot be seen).
    HETLoRA's and FlexLoRA's code was not released, and "lora" is not in the table: they stay.

    >>> released_method("fedra", {})
    ('rgd-hla', {'pattern': 'uniform', 'defects': ['freeze_by_substring', 'equal_weights']})
    """
    made = dict(settings)
    if method == "fedra":
        method, made = "rgd-hla", {**made, "pattern": "uniform"}
    possible: tuple[str, ...] = getattr(METHODS[method], "possible_defects", ())
    if possible:
        made["defects"] = [name for name in AS_RELEASED if name in possible]
    return method, made


def deviations(mode: str) -> list[str]:
    """What a mode means, for the reader of a table."""
    if mode == DESCRIBED:
        return [
            "Unless a row says otherwise, methods run as we read the paper, not as its released code does "
            "it: layers freeze by their number, Fisher scores come from all proxy examples and stay until "
            "the next, and the learning rate decays by 0.99 a round (DERIVED: what the code was meant to "
            "do). That clients weigh by their examples is our choice; the paper's weights are UNKNOWN, the "
            "released code weighs all the same. FedRA is the kit's own, and its clients drop the layers they "
            "do not train. The official logs come from the released code, at a constant 0.0099. "
            "(mode=as_released does as that code.)"
        ]
    return [
        "mode=as_released: every peculiarity of the released code that a method can have is on (a constant "
        "rate of 0.0099; freezing by substring; scores of one example's logit, unordered, used for one "
        "round; equal weights). FedRA is RGD-HLA with uniform probabilities, as the logs show; the code of "
        "HETLoRA and FlexLoRA was not released.",
        "The draws come from the kit's own named streams, not from the one stream of the released code: a "
        "seed gives other splits and cohorts than the logs have (`fedlora replay` draws those). No update is "
        "dropped by an fp16 scaler.",
    ]
