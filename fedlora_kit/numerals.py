"""Numbers as text, for every table, figure, page and terminal: a printed number is the number.

Decimals are fixed where that keeps at least `KEPT` significant digits, and grow where it does not: 77.42, but
0.0667 and 1e-05. So a number read back is within `BOUND` of the one that was written, and a number that is
not zero never reads as zero. Integers are written in full. LaTeX's form of 1e-05 is `reporting.latex`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import SupportsFloat

MISSING = "–"
"""What stands where there is no number."""
KEPT = 3
"""Significant digits that every printed number keeps at least (a spread: one less)."""
BOUND = 0.5 * 10.0 ** (1 - KEPT)
"""The largest relative error of a printed number, 0.005; of a spread ten times that."""
_MOST_DECIMALS = 6
_SMALL = 1e-4  # below, a power of ten reads better than more decimals
_LARGE = 1e15  # from here on neighbouring doubles are more than a tenth apart


def fixed(value: SupportsFloat, decimals: int = 2, keep: int = KEPT) -> str:
    """A number with ``decimals`` decimals, or with ``keep`` significant digits where those would lose it.

    >>> fixed(77.416), fixed(0.0667), fixed(1e-5), fixed(0.0), fixed(float("nan"))
    ('77.42', '0.0667', '1e-05', '0.00', '–')
    """
    number = float(value) + 0.0  # minus zero is zero
    if not math.isfinite(number):
        return _not_finite(number)
    return f"{number:.{decimals}f}" if _kept(number, decimals, keep) else _digits(number, keep)


def column(values: Iterable[SupportsFloat], decimals: int = 2) -> list[str]:
    """The numbers of a column, with as many decimals as its larger ones need, so that they align.

    Those below a hundredth of the largest are written as `fixed` writes them alone.

    >>> column([0.005, 0.01, 0.1])
    ['0.005', '0.010', '0.100']
    """
    numbers = [float(value) for value in values]
    sizes = [abs(number) for number in numbers if math.isfinite(number)]
    least = max(sizes, default=0.0) / 100
    found = _decimals([size for size in sizes if size >= least], decimals)
    return [fixed(number, found) for number in numbers]


def with_spread(mean: SupportsFloat, spread: SupportsFloat = math.nan, decimals: int = 2) -> str:
    """``77.42 ± 3.13``: the same decimals for both where that keeps them; without a spread (NaN) the mean."""
    first, second = float(mean), float(spread)
    decimals = _decimals([first], decimals)
    text = fixed(first, decimals)
    return (
        text if math.isnan(first) or math.isnan(second) else f"{text} ± {fixed(second, decimals, KEPT - 1)}"
    )


def significant(value: SupportsFloat, digits: int = 4) -> str:
    """A number to ``digits`` significant digits, no digit before the point lost; integers in full.

    >>> significant(0.123456), significant(123456.7), significant(3.0), significant(28770), significant(2e-9)
    ('0.1235', '123457', '3', '28,770', '2e-09')
    """
    if isinstance(value, int):
        return f"{value:,}"
    number = float(value)
    if not math.isfinite(number):
        return _not_finite(number)
    if abs(number) >= _LARGE:
        return _digits(number, digits)
    return f"{number:.0f}" if abs(number) >= 10**digits or number == int(number) else _digits(number, digits)


def signed(text: str) -> str:
    """A written number with its sign, and a true minus.

    >>> signed(fixed(-0.5)), signed(fixed(12.25))
    ('−0.50', '+12.25')
    """
    if text == MISSING:
        return text
    return f"−{text[1:]}" if text[0] in "-−" else f"+{text}"


def half_a_unit(text: str) -> float:
    """Half a unit in the last digit of a written number: how far the number may be from what is written.

    >>> half_a_unit("77.42"), half_a_unit("2.4e-08")
    (0.005, 5e-10)
    """
    digits, _, exponent = text.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def rounded(value: float, digits: int) -> float:
    """The number nearest to it that has ``digits`` significant digits."""
    return float(_digits(value, digits)) if math.isfinite(value) else value


def duration(seconds: float) -> str:
    """Seconds for a reader: 0.31 s, 12 s, 5.0 min, 20 h; two digits or more."""
    if seconds < 120:
        return f"{_short(seconds)} s"
    return f"{_short(seconds / 60)} min" if seconds < 7200 else f"{_short(seconds / 3600)} h"


def size(number: float) -> str:
    """Bytes for a reader: 13 GB; two digits or more."""
    power = next(power for power in range(5) if number < 999.5 * 1000**power or power == 4)
    return f"{number:,.0f} B" if not power else f"{_short(number / 1000**power)} {'kMGT'[power - 1]}B"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else fixed(value, 1, 2)


def _kept(number: float, decimals: int, keep: int) -> bool:
    if abs(number) >= _LARGE:
        return False
    return abs(float(f"{number:.{decimals}f}") - number) <= 0.5 * 10.0 ** (1 - keep) * abs(number)


def _decimals(numbers: Sequence[float], least: int) -> int:
    """The fewest decimals from ``least`` on that keep every number; ``least`` where six do not."""
    if any(0 < abs(number) < _SMALL for number in numbers):
        return least
    for decimals in range(least, max(least, _MOST_DECIMALS) + 1):
        if all(_kept(number, decimals, KEPT) for number in numbers):
            return decimals
    return least


def _digits(number: float, digits: int) -> str:
    text = f"{number:.{digits}g}"
    return text if math.isfinite(float(text)) else repr(number)  # the largest doubles do not round up


def _not_finite(number: float) -> str:
    return MISSING if math.isnan(number) else "∞" if number > 0 else "−∞"


def clock(seconds: float | None) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``; ``?`` where unknown."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
