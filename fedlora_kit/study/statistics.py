"""The statistics behind the claims, over plain arrays. The unit is always the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fedlora_kit.study.sequential import confidence


@dataclass(frozen=True)
class MeanInterval:
    """A mean with its interval. ``sd`` is the standard deviation of one value (n − 1 in the denominator)."""

    mean: float
    lower: float
    upper: float
    sd: float
    n: int


def mean_interval(values: npt.ArrayLike) -> MeanInterval:
    """Student's t interval of the mean of independent values, at the look's level (`sequential`): 95 %.

    Args:
        values: (n,) one value a seed, n at least 2. Normality is assumed; for few seeds that matters.

    If all values are equal the interval has no width.

    >>> interval = mean_interval([1.0, 2.0, 3.0])
    >>> round(interval.lower, 3), interval.mean, round(interval.upper, 3)
    (-0.484, 2.0, 4.484)
    """
    array = np.asarray(values, dtype=np.float64)
    n = array.size
    if array.ndim != 1 or n < 2 or not np.isfinite(array).all():
        raise ValueError("an interval needs at least two finite values")
    mean, sd = float(array.mean()), float(array.std(ddof=1)) if np.ptp(array) else 0.0
    half = half_width(sd, n)
    return MeanInterval(mean, mean - half, mean + half, sd, n)


def half_width(sd: float, n: int, further: int = 0) -> float:
    """Half of that interval, from the standard deviation (n − 1) of ``n`` values, at least 2; ``further``
    looks later.
    """
    half: float = float(stats.t.ppf((1 + confidence(further)) / 2, n - 1)) * sd / n**0.5
    return half


@dataclass(frozen=True)
class SpreadRatio:
    """Pooled standard deviations of two groups of cells, and their ratio large / small with its interval.

    ``f`` is the ratio of the pooled variances, ``p`` the one-sided probability of a larger ``f`` if the true
    variances are equal, ``df_large`` and ``df_small`` the degrees of freedom.
    """

    sd_large: float
    sd_small: float
    ratio: float
    lower: float
    upper: float
    f: float
    p: float
    df_large: int
    df_small: int


def spread_ratio(large: npt.ArrayLike, small: npt.ArrayLike) -> SpreadRatio:
    """F test of two pooled variances.

    Args:
        large: (seeds, cells) values of the side said to spread more; at least 2 seeds.
        small: (seeds, cells) values of the other side.

    The variance is taken within each cell over the seeds (n − 1) and averaged over the cells, so differences
    between cells play no part. The test assumes normal values that are independent between seeds, cells and
    sides. Seeds shared by both sides make it cautious; cells that move together with the seed make it too
    bold. ``p`` below .025 and ``lower`` above 1 are the same thing at the first look (`sequential`).
    """
    one, other = _table(large), _table(small)
    var_large, df_large = _pooled(one)
    var_small, df_small = _pooled(other)
    if var_large <= 0 or var_small <= 0:
        raise ValueError("a side without any spread has no spread ratio")
    f = var_large / var_small
    lower, upper = ratio_interval(f, df_large, df_small)
    return SpreadRatio(
        sd_large=var_large**0.5,
        sd_small=var_small**0.5,
        ratio=f**0.5,
        lower=lower,
        upper=upper,
        f=f,
        p=float(stats.f.sf(f, df_large, df_small)),
        df_large=df_large,
        df_small=df_small,
    )


def ratio_interval(f: float, df_large: int, df_small: int, further: int = 0) -> tuple[float, float]:
    """The interval of a ratio of standard deviations whose squares have the ratio ``f``, at the look's level
    or ``further`` looks later.
    """
    tail = (1 - confidence(further)) / 2
    upper, lower = (float(stats.f.ppf(p, df_large, df_small)) for p in (tail, 1 - tail))
    return (f / lower) ** 0.5, (f / upper) ** 0.5


def _table(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 1 or not np.isfinite(table).all():
        raise ValueError("a spread needs finite values, (at least 2 seeds, at least 1 cell)")
    return table


def _pooled(table: npt.NDArray[np.float64]) -> tuple[float, int]:
    """Variance over seeds, averaged over cells (equally many seeds each), and its degrees of freedom."""
    seeds, cells = table.shape
    return float(table.var(axis=0, ddof=1).mean()), cells * (seeds - 1)
