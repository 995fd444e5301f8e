"""Tables for LaTeX: a booktabs tabular to ``\\input``."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MATH = {
    "±": r"\pm", "×": r"\times", "−": "-", "·": r"\cdot", "∝": r"\propto", "→": r"\to", "≤": r"\leq",
    "≥": r"\geq", "∞": r"\infty", "α": r"\alpha", "β": r"\beta", "δ": r"\delta", "ε": r"\varepsilon",
    "η": r"\eta", "ρ": r"\rho", "σ": r"\sigma", "Δ": r"\Delta", "Σ": r"\Sigma", "✓": r"\checkmark",
    "ᵀ": r"^{\top}", "₀": "_0", "²": "^2",
}  # fmt: skip
_TEXT = {"–": "--", "—": "---", "“": "``", "”": "''", "’": "'", "…": r"\dots{}"}
_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "*": "{*}",
}  # fmt: skip
_NEGATIVE = re.compile(r"(?<![^\s(\[])-(?=\d)")
"""A hyphen that stands for a minus: before a digit, where a number begins."""
_POWER = re.compile(r"(?<![\w.−-])([−-]?)(\d+(?:\.\d+)?)e([+-]\d+)(?!\w)")
"""A number with a power of ten, as `numerals` writes very small and very large ones."""
_BY_CHARACTER = str.maketrans({**_SPECIAL, **_TEXT, **{sign: f"${tex}$" for sign, tex in _MATH.items()}})


def escaped(text: str) -> str:
    """Plain text as LaTeX: special characters escaped, signs and Greek letters in math.

    A hyphen before a number is its minus, and ``1e-05`` a power of ten. ``[`` and ``*`` stand in braces, as
    the end of a row would take them for its own.

    >>> escaped("69.07 ± 2.04 % of n_k")
    '69.07 $\\\\pm$ 2.04 \\\\% of n\\\\_k'
    >>> escaped("1e-05, 2.4e-08")
    '$10^{-5}$, $2.4 \\\\times 10^{-8}$'
    """
    line, made, end = " ".join(text.split()), [], 0
    for power in _POWER.finditer(line):
        made += [_escaped(line[end : power.start()]), _power(*power.groups())]
        end = power.end()
    return "".join([*made, _escaped(line[end:])])


def _escaped(text: str) -> str:
    return _NEGATIVE.sub("−", text).translate(_BY_CHARACTER)


def _power(sign: str, digits: str, exponent: str) -> str:
    factor = "" if float(digits) == 1 else rf"{digits} \times "
    return f"${'-' if sign else ''}{factor}10^{{{int(exponent)}}}$"


def tabular(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], note: str = ""
) -> str:
    """A booktabs tabular.

    Args:
        header, rows: plain text.
        right: which columns are aligned to the right.
        note: plain text for a last row over all columns, under the rule, and for a comment above the table.
    """

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    width = rf"\multicolumn{{{len(header)}}}{{p{{0.8\linewidth}}}}"
    return "\n".join(
        [
            *([f"% {note}"] if note else []),
            r"% \usepackage{booktabs}, for a check mark also \usepackage{amssymb}",
            rf"\begin{{tabular}}{{{''.join('r' if r else 'l' for r in right)}}}",
            r"\toprule",
            line(header),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            *([rf"{width}{{\footnotesize {escaped(note)}}} \\"] if note else []),
            r"\end{tabular}",
            "",
        ]
    )
