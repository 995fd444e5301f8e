"""Ditto on LoRA: FedAvg for the global adapter, and for each client one of its own that is pulled to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from fedlora_kit.adapter import State
from fedlora_kit.errors import BadValue
from fedlora_kit.methods.base import Method, register
from fedlora_kit.methods.stages import Stage
from fedlora_kit.partition.base import positive, whole


@register
class Ditto(Method):
    """Ditto (Li, Hu, Beirami, Smith, ICML 2021) on LoRA adapters.

    The global adapter is FedIT's. Each client of the cohort also trains an adapter v_k of its own on
    F_k(v) + (strength / 2) |v - w|², w the global adapter, and keeps it. It stands in for FedDPA (a global
    and a local adapter that add up): PEFT's second adapter would live outside of the one slot that all
    methods here share, and Ditto is the published method of two adapters a client that needs one at a time.

    Here v_k trains after the aggregation, so that w is the round's new global adapter (published: the one
    before). A client's head is that of its local training.

    Args:
        strength: lambda, 0 or more; 0 is local training beside FedIT. Its steps need lr * strength < 2.
        steps: of the own adapter a round; None for the local training's.
        lr: its learning rate; None for the local training's.
    """

    name = "ditto"
    title = "Ditto"
    source = "Ditto (ICML 2021); in place of FedDPA beside FedLoRA-Optimizer"
    not_private = "its personal adapters train without noise"

    def __init__(self, strength: float = 0.1, steps: int | None = None, lr: float | None = None) -> None:
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        if not number or not 0 <= strength < math.inf:
            raise BadValue(f"strength={strength!r} cannot be used", "give a finite number of 0 or more")
        self.strength = float(strength)
        self.steps = None if steps is None else whole("steps", steps, least=1)
        self.lr = None if lr is None else positive("lr", lr)

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return True

    def local_start(self, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> State:
        return {**global_state, **{n: t for n, t in own.items() if ".lora_" not in n}}

    def stages(self, round_index: int, last: bool) -> Sequence[Stage]:
        return (Stage("personal", "clients", ("A", "B"), steps=self.steps, lr=self.lr, pull=self.strength),)
