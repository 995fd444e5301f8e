"""FFA-LoRA: A is frozen at its common random start, only B trains, is sent and averaged."""

from __future__ import annotations

from fedlora_kit.methods.base import Method, register


@register
class FFALoRA(Method):
    """FFA-LoRA (Sun, Li, Li, Ding, ICLR 2024).

    With A = A_0 at every client for ever, mean(B_k) A_0 = mean(B_k A_0): the average is exact. Under DP
    only xi_B A_0 remains of the noise. Half the parameters train and travel.
    """

    name = "ffa-lora"
    title = "FFA-LoRA"
    source = "FFA-LoRA, section 4"

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return ".lora_B" in tensor
