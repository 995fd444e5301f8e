"""How methods and series look in every figure: one colour, marker and line style each, through the whole kit.

The palette is Okabe and Ito's with a few darker additions, safe for the common colour-vision deficiencies.
No two methods share colour, marker and line style, so that they can be told apart in grey too; within a
paper's figures none share a colour.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

INK, GREY, FAINT = "#222222", "#555555", "#777777"
"""Neutral: text on a figure, what is no series, what steps back."""

SERIES: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of series that are no methods (factors, seeds, modalities), in order of use."""

REFERENCE = "#D55E00"
"""A line that others' numbers draw: published, official."""

SINGLE, DOUBLE = 3.5, 7.16
"""Widths of a figure in inches: one column and two of an IEEE page, near those of other styles."""

_RAMP = ("#56B4E9", "#0072B2", "#08306B")


@dataclass(frozen=True)
class Look:
    """Of one method: ``title`` is its name in words, the others are matplotlib's."""

    title: str
    colour: str
    marker: str
    dash: str = "-"

    def line(self) -> dict[str, Any]:
        """Keyword arguments of ``Axes.plot`` and ``Axes.errorbar``."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash}


_LOOKS: dict[str, Look] = {
    "lora": Look("LoRA", "#0072B2", "o"),
    "lora-equal-steps": Look("LoRA, equal steps", "#0072B2", "H", "--"),
    "ffa-lora": Look("FFA-LoRA", "#D55E00", "s"),
    "fedlora-optimizer": Look("FedLoRA-Optimizer", "#009E73", "^"),
    "no-global-optimizer": Look("without global optimiser", "#009E73", "x", ":"),
    "fed-hello": Look("Fed-HeLLo", "#CC79A7", "D"),
    "full fine-tuning": Look("full fine-tuning", "#555555", "X"),
    "fedra": Look("FedRA", "#009E73", "P", "--"),
    "hetlora": Look("HETLoRA", "#E69F00", "v", "--"),
    "exclusive": Look("Exclusive", "#56B4E9", "<", "-."),
    "flexlora": Look("FlexLoRA", "#882255", ">", ":"),
    "straggler": Look("Straggler", "#D55E00", "p", "--"),
    "flora": Look("FLoRA", "#332288", "h", "-."),
    "gd-hla": Look("GD-HLA", "#E69F00", "1", ":"),
    "rgd-hla": Look("RGD-HLA", "#56B4E9", "2", "--"),
    "fim-hla": Look("FIM-HLA", "#332288", "3", "-."),
    "fedsa-lora": Look("FedSA-LoRA", "#E69F00", "*", "-."),
    "ditto": Look("Ditto", "#56B4E9", "d", "--"),
    "local-only": Look("local only", "#555555", "8", ":"),
}
_ALIASES = {
    "fedit": "lora",
    "fedavg": "lora",
    "fedavg-lora": "lora",
    "ffa": "ffa-lora",
    "fed-hetlora": "fed-hello",
    "fedhello": "fed-hello",
    "full": "full fine-tuning",
    "full-ft": "full fine-tuning",
}
_NEW: tuple[tuple[str, str], ...] = (
    ("#000000", "*"),
    ("#990000", "d"),
    ("#6600CC", "X"),
    ("#336633", "8"),
    ("#CC0033", "H"),
    ("#660066", "+"),
)
"""For methods that a user adds: far from all of `_LOOKS` for every eye, with markers that no table of
Fed-HeLLo's has."""


def known() -> tuple[str, ...]:
    """The methods that have a look of their own."""
    return tuple(_LOOKS)


def of_method(method: str) -> Look:
    """The look of a method, by its registered name or an alias.

    A name that is not known gets one by its hash, not by order of first use: a new method looks the same in
    every notebook.
    """
    name = method.strip().lower().replace("_", "-")
    name = _ALIASES.get(name, name)
    if name in _LOOKS:
        return _LOOKS[name]
    colour, marker = _NEW[int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(_NEW)]
    return Look(method, colour, marker, "--")


def ramp(n: int) -> list[str]:
    """``n`` colours from light to dark for an ordered series (rates of mixing, sizes): at most three by name,
    more by matplotlib's Blues.
    """
    if n <= len(_RAMP):
        return list(_RAMP[len(_RAMP) - n :]) if n < len(_RAMP) else list(_RAMP)
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    blues = colormaps["Blues"]
    return [to_hex(blues(0.35 + 0.55 * i / (n - 1))) for i in range(n)]
