"""Two-sample tests and effect sizes on counts.

A numeric column is two arrays of counts over the same bins. If the edges of the bins hold every distinct value, the
tests equal those on the values themselves. Categories are counts by level.

The distributions are those of `scipy.special`. The import of `scipy.stats` takes longer than the profile of a million
values, so only tests of few rows use it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

LEAST_EXPECTED = 5.0
"""Least expected count of a cell in a chi-square test; bins with less are pooled (Cochran 1954)."""


NEGLIGIBLE_EXPONENT = 12.0
"""Number of rows times the squared distance above which the p-value is given by its bound (Massart 1990).

Both are below 1e-10. scipy's survival function sums a term for each row, for half a second with a million rows.
"""

FEW_ROWS = 140
"""Number of rows up to which the distribution of the distance is computed exactly."""

MANY_ROWS = 100_000
"""Number of rows above which the distribution of the distance is always a series, in no time."""


def kolmogorov_smirnov(reference: Counts, current: Counts) -> tuple[float, float]:
    """Test if two samples have the same distribution, by the greatest distance of their distribution functions.

    Args:
        reference, current: counts over the same bins, in ascending order; each with at least one value.

    Returns:
        The distance, from 0 to 1, and the asymptotic p-value. Equal to `scipy.stats.ks_2samp(method="asymp")` if every
        distinct value is an edge of the bins; otherwise the distance is at most that, and the p-value at least.
    """
    m, n = int(reference.sum()), int(current.sum())
    distance = float(np.abs(np.cumsum(reference) / m - np.cumsum(current) / n).max())
    effective = max(round(m * n / (m + n)), 1)
    return distance, float(np.clip(distance_p_value(distance, effective), 0.0, 1.0))


def distance_p_value(distance: float, rows: int) -> float:
    """Return the probability of a greater distance, by the methods of Simard and L'Ecuyer (2011).

    Args:
        distance: the greatest distance of a distribution function from that of a sample.
        rows: number of rows of the sample.

    Returns:
        The p-value, equal to `scipy.stats.kstwo.sf`.
    """
    from scipy.special import smirnov

    exponent = rows * distance**2
    if exponent > NEGLIGIBLE_EXPONENT:
        return 2 * math.exp(-2 * exponent)
    if FEW_ROWS < rows <= MANY_ROWS and exponent >= 2.2:
        return 2 * float(smirnov(rows, distance))
    if rows > MANY_ROWS or (rows > FEW_ROWS and rows * distance**1.5 > 1.4):
        return 1 - _distance_series(distance, rows)
    from scipy.stats import kstwo

    return float(kstwo.sf(distance, rows))


def _distance_series(distance: float, rows: int) -> float:
    """Return the probability of at most this distance, by the series of Pelz and Good (1976)."""
    root = math.sqrt(rows)
    z = root * distance
    if z < 0.04:  # every term of the series is 0, and its denominators may be
        return 0.0
    s = z * z
    terms = np.arange(1, math.ceil(16 * z / math.pi) + 1)
    odd, whole = (math.pi * (terms - 0.5)) ** 2, (math.pi * terms) ** 2
    by_odd, by_whole = np.exp(-odd / (2 * s)), np.exp(-whole / (2 * s))
    a, b, c, d = (float(by_odd @ odd**power) for power in range(4))
    e, f = (float(by_whole @ whole**power) for power in (1, 2))
    first = a / z
    second = (b - s * a) / (6 * s**2)
    third = ((6 * s**3 + 2 * s**2) * a + (2 * s**2 - 5 * s) * b + (1 - 2 * s) * c) / (72 * z**7) - e / (36 * z**3)
    fourth = (135 * s**2 - 96 * s**3) * b + (212 * s**2 - 60 * s) * c + (5 - 30 * s) * d - (30 * s**3 + 90 * s**4) * a
    fourth = fourth / (6_480 * z**10) + (3 * s * e - f) / (216 * s**3)
    return math.sqrt(2 * math.pi) * (first + second / root + third / rows + fourth / (rows * root))


def rank_sum(reference: Counts, current: Counts) -> float:
    """Test if values of one sample tend to be greater than those of the other, by their ranks.

    Args:
        reference, current: counts over the same bins, in ascending order; each with at least one value.

    Returns:
        The two-sided p-value; 1 if all values are in one bin. Equal to
        `scipy.stats.mannwhitneyu(use_continuity=False, method="asymptotic")` on the numbers of the bins.
    """
    old, new = reference.astype(np.float64), current.astype(np.float64)
    m, n = float(old.sum()), float(new.sum())
    both, total = old + new, m + n
    # Pairs in which the current value is greater; equal ones count half. Without a change, half of all pairs.
    greater = float(new @ (np.cumsum(old) - old / 2))
    ties = float((both * (both**2 - 1)).sum()) / (total * (total - 1))
    variance = m * n / 12 * (total + 1 - ties)
    if variance <= 1e-9 * m * n:
        return 1.0
    return math.erfc(abs(greater - m * n / 2) / math.sqrt(2 * variance))


def chi_square(reference: Counts, current: Counts, *, ordered: bool) -> tuple[float, float, int]:
    """Test if two samples have the same shares of each bin or level.

    Bins whose expected count is small are pooled first: neighbours if they are ordered, else the rarest levels.

    Args:
        reference, current: counts over the same bins or levels.
        ordered: True for bins of a numeric column.

    Returns:
        Statistic, p-value and degrees of freedom; 0, 1, 0 if fewer than two bins are left. Equal to
        `scipy.stats.chi2_contingency(correction=False)` on the pooled counts.
    """
    from scipy.special import chdtrc

    table = _pooled(np.stack([reference, current]), ordered=ordered)
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 0.0, 1.0, 0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic, freedom = float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1
    return statistic, float(chdtrc(freedom, statistic)), freedom


def _pooled(table: NDArray[np.int64], *, ordered: bool) -> NDArray[np.int64]:
    """Pool columns of a 2 x n table until each has `LEAST_EXPECTED` in both rows."""
    table = table[:, table.sum(axis=0) > 0]
    least_share = table.sum(axis=1).min() / max(int(table.sum()), 1)
    if not ordered:
        table = table[:, np.argsort(-table.sum(axis=0), kind="stable")]
    groups: list[NDArray[np.int64]] = []
    pending = np.zeros(2, dtype=np.int64)
    for column in table.T:
        pending = pending + column
        if pending.sum() * least_share >= LEAST_EXPECTED:
            groups.append(pending)
            pending = np.zeros(2, dtype=np.int64)
    if pending.any():
        if groups:
            groups[-1] = groups[-1] + pending
        else:
            groups.append(pending)
    return np.array(groups, dtype=np.int64).T.reshape(2, -1)


def total_variation(reference: Counts, current: Counts) -> float:
    """Return the least share of rows that would have to move to make two distributions equal: 0 to 1."""
    return float(np.abs(reference / reference.sum() - current / current.sum()).sum() / 2)


def population_stability_index(reference: Counts, current: Counts) -> float:
    """Return the PSI; bins without values count as half a row.

    It has no error rate: without a change it grows with the number of bins and falls with the number of rows.
    """
    p = np.where(reference == 0, 0.5, reference) / max(int(reference.sum()), 1)
    q = np.where(current == 0, 0.5, current) / max(int(current.sum()), 1)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Return the Jensen-Shannon distance to base 2: 0 to 1."""
    from scipy.special import rel_entr

    p, q = reference / reference.sum(), current / current.sum()
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2
    return math.sqrt(max(float(divergence), 0.0) / math.log(2))


def proportion_p_value(
    reference: tuple[int, int], current: tuple[int, int], side: Literal["greater", "two-sided"]
) -> float:
    """Test if a share changed, by Fisher's exact test; for large counts by a z-test with the pooled share.

    Args:
        reference, current: rows that have the property, and all rows.
        side: `greater` to test for an increase only.
    """
    (a, m), (b, n) = reference, current
    if a + b == 0 or a + b == m + n:
        return 1.0
    if m + n <= 20_000:
        from scipy.stats import fisher_exact

        return float(fisher_exact([[b, n - b], [a, m - a]], alternative=side).pvalue)
    from scipy.special import ndtr

    share = (a + b) / (m + n)
    z = (b / n - a / m) / math.sqrt(share * (1 - share) * (1 / m + 1 / n))
    return float(ndtr(-z) if side == "greater" else 2 * ndtr(-abs(z)))


def adjusted(p_values: list[float], dependence: Literal["positive", "any"] = "positive") -> list[float]:
    """Adjust p-values for the number of tests, so that the false discovery rate is bounded.

    Args:
        p_values: one for each test.
        dependence: `positive` for Benjamini-Hochberg, which holds for independent or positively dependent tests;
            `any` for Benjamini-Yekutieli, which always holds and finds less.
    """
    number = len(p_values)
    order = np.argsort(p_values)
    ranks = np.arange(1, number + 1)
    scaled = np.asarray(p_values)[order] * (number / ranks)
    if dependence == "any":
        scaled *= (1 / ranks).sum()
    # No p-value is greater than that of a rank above.
    found = np.empty(number)
    found[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return [float(p) for p in np.minimum(found, 1.0)]
