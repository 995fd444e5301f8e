"""FedSA-LoRA: A is shared, B stays with its client."""

from __future__ import annotations

from fedlora_kit.methods.base import Method, register


@register
class FedSALoRA(Method):
    """FedSA-LoRA (Guo et al., ICLR 2025): both factors train, only A is sent and averaged.

    Each client goes on with the common A and its own B. A client that was not drawn yet has B = 0. There is
    no global adapter: each client's own is scored, and the mean over all clients given.
    """

    name = "fedsa-lora"
    title = "FedSA-LoRA"
    source = "FedSA-LoRA (ICLR 2025); a baseline beside FedLoRA-Optimizer"
    one_global = False

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return True

    def sends(self, tensor: str) -> bool:
        return ".lora_A" in tensor
