"""RoLoRA: the rounds train and send B and A in turn, so that each average is exact and both are learned."""

from __future__ import annotations

from fedlora_kit.methods.base import Method, register


@register
class RoLoRA(Method):
    """Alternating minimisation of LoRA (arXiv 2409.02346): B in the rounds 0, 2, 4, ..., A in those between.

    While one factor trains the other is the same at all clients, so mean(B_k) A = mean(B_k A) as in FFA-LoRA.
    It begins with B: at the start B is zero, and A alone has no gradient then.
    """

    name = "rolora"
    title = "RoLoRA"
    source = "arXiv 2409.02346"

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return (".lora_B" in tensor) == (round_index % 2 == 0)
