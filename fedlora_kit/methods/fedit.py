"""LoRA with FedAvg: both matrices train, both are sent, each is averaged on its own."""

from __future__ import annotations

from fedlora_kit.methods.base import Method, register


@register
class FedIT(Method):
    """LoRA with FedAvg (FedIT, Zhang et al. 2024): the "LoRA" rows of FFA-LoRA's tables.

    Its aggregation is inexact: mean(B_k) mean(A_k) is not mean(B_k A_k) (FFA-LoRA, section 3).
    """

    name = "lora"
    title = "LoRA"
    source = "FFA-LoRA, section 3 (baseline); FedIT"

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return True
