"""Local training alone: nothing is ever sent."""

from __future__ import annotations

from fedlora_kit.methods.base import Method, register


@register
class LocalOnly(Method):
    """Each client trains an adapter of its own, from the common start: what federation has to beat.

    A head that the policy would average stays with its client too.
    """

    name = "local-only"
    title = "Local only"
    source = "the usual lower bound of personalised federated learning"
    one_global = False
    sends_head = False

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return True

    def sends(self, tensor: str) -> bool:
        return False
