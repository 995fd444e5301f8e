"""Tables for LaTeX: what TeX takes for its own is escaped, and the tabular holds together."""

from __future__ import annotations

import doctest
import re

from hypothesis import given
from hypothesis import strategies as st

from fedlora_kit.reporting import latex

BARE = re.compile(r"(?<!\\)[&%#_~^]")
TEXT = st.text(st.sampled_from("ab19 .%_&#$~^{}\\<>|[]*±ε−–×'\n"), max_size=12)


def without_math(text: str) -> str:
    """What stands outside $…$, dollar signs that are escaped left out."""
    parts = re.split(r"(?<!\\)\$", text)
    assert len(parts) % 2 == 1, "math is left open"
    return "".join(parts[::2])


def test_doctest() -> None:
    assert doctest.testmod(latex).failed == 0


@given(TEXT)
def test_no_special_character_is_left_bare(text: str) -> None:
    plain = without_math(latex.escaped(text))
    assert not BARE.search(plain)
    bare = re.sub(r"\\[{}]", "", plain)  # escaped braces aside, braces are in pairs
    assert bare.count("{") == bare.count("}")
    assert "\n" not in plain


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=1)))
def test_every_row_has_all_its_cells(rows: list[list[str]]) -> None:
    n = len(rows[0])
    header = [f"h_{i}" for i in range(n)]
    lines = latex.tabular(header, rows, [i % 2 == 0 for i in range(n)]).splitlines()
    assert lines[1] == r"\begin{tabular}{" + "rlrl"[:n] + "}"
    assert lines[2] == r"\toprule"
    assert lines[4] == r"\midrule"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    body = [lines[3], *lines[5:-2]]
    assert len(body) == 1 + len(rows)
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == n - 1
        assert not re.match(r"\s*[\[*]", line)  # would be an argument of the row before
