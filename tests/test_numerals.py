"""A printed number is the number: read back, it is within the stated bound, whatever its size."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from printed_tables import close, number

from fedlora_kit import numerals
from fedlora_kit.reporting import latex

ANY = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1e-5, 0.005, 0.0667, 2.97e-5, 2.4e-8])
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_doctest() -> None:
    assert doctest.testmod(numerals).failed == 0


@given(ANY, st.integers(0, 6))
def test_fixed_decimals_never_lose_a_number(value: float, decimals: int) -> None:
    text = numerals.fixed(value, decimals)
    assert close(text, value)
    assert close(latex.escaped(text), value)
    assert "-0.0" not in text or value < 0
    if math.isfinite(value) and abs(value) < 1e15 and float(f"{value:.{decimals}f}") == value:
        assert text == f"{value + 0.0:.{decimals}f}"


@given(st.lists(ANY, max_size=8), st.integers(0, 6))
def test_no_cell_of_a_column_is_lost(values: list[float], decimals: int) -> None:
    assert all(close(t, v) for t, v in zip(numerals.column(values, decimals), values, strict=True))


@given(st.lists(st.floats(1, 99.99), min_size=1, max_size=8), st.integers(2, 4))
def test_a_column_of_like_numbers_is_aligned(values: list[float], decimals: int) -> None:
    assert {len(text.partition(".")[2]) for text in numerals.column(values, decimals)} == {decimals}


@given(ANY, ANY.map(abs), st.integers(0, 4))
def test_a_mean_and_its_spread_are_read_back(mean: float, spread: float, decimals: int) -> None:
    first, sign, second = numerals.with_spread(mean, spread, decimals).partition(" ± ")
    assert close(first, mean)
    assert bool(sign) == (not math.isnan(mean) and not math.isnan(spread))
    if sign:
        assert close(second, spread, 10 * numerals.BOUND)


@given(ANY, st.integers(2, 8))
def test_significant_digits_are_kept(value: float, digits: int) -> None:
    assert close(numerals.significant(value, digits), value, 0.5 * 10.0 ** (1 - digits))
    assert number(numerals.signed(numerals.significant(value, digits))) == pytest.approx(
        value, rel=0.5 * 10.0 ** (1 - digits), abs=0, nan_ok=True
    )


@given(st.integers())
def test_integers_are_whole(value: int) -> None:
    assert int(numerals.significant(value).replace(",", "")) == value


@given(FINITE, st.integers(2, 8))
def test_rounded_is_near(value: float, digits: int) -> None:
    assert numerals.rounded(value, digits) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits), abs=0)


@given(st.floats(0, 1e9))
def test_durations_and_sizes_have_two_digits(value: float) -> None:
    for text, units in (
        (numerals.duration(value), {"s": 1, "min": 60, "h": 3600}),
        (numerals.size(value), {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}),
    ):
        amount, unit = text.split()
        found = number(amount)
        assert found is not None
        assert abs(found * units[unit] - value) <= max(0.0501 * value, 0.51 if unit == "B" else 0)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_numbers_of_numpy_are_numbers(kind: type) -> None:
    assert numerals.fixed(kind(0.0667)) == "0.0667"
