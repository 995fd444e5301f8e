"""Fed-HeLLo: randomised bottleneck allocation as a warm start, then allocation by Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlora_kit.methods.base import register
from fedlora_kit.methods.fim_hla import FIMHLA
from fedlora_kit.methods.resources import Resources


@register
class FedHeLLo(FIMHLA):
    """Fed-HeLLo (arXiv 2506.12213): RGD-HLA first, FIM-HLA from round ``start`` on.

    The defaults are the released settings: bottleneck, start 50, every 50 rounds, 3 levels, 100 examples.
    Shorter runs want an earlier start. With ``defects=list(AS_RELEASED)`` layers are allocated by the
    released code's rules; the draws themselves come from the kit's own streams. See `FIMHLA` for the
    arguments and errors.
    """

    name = "fed-hello"
    title = "Fed-HeLLo"
    source = "Fed-HeLLo (arXiv 2506.12213), as described"

    def __init__(
        self,
        resources: Resources | Mapping[str, Any] | None = None,
        pattern: str = "bottleneck",
        start: int = 50,
        every: int = 50,
        levels: int = 3,
        proxy_examples: int = 100,
        defects: Sequence[str] = (),
        proxy: str = "random",
    ) -> None:
        super().__init__(resources, pattern, start, every, levels, proxy_examples, defects, proxy)
