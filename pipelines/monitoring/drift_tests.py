"""Two-sample tests and effect sizes on counts.

A numeric column is two arrays of counts over the same bins. If the edges of the bins hold every distinct value, the
tests equal those on the values themselves. Categories are counts by level.
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

MANY_ROWS = 100_000
"""Number of rows above which scipy computes the distribution function by a series (Pelz and Good 1976), in no time."""


def kolmogorov_smirnov(reference: Counts, current: Counts) -> tuple[float, float]:
    """Test if two samples have the same distribution, by the greatest distance of their distribution functions.

    Args:
        reference, current: counts over the same bins, in ascending order; each with at least one value.

    Returns:
        The distance, from 0 to 1, and the asymptotic p-value. Equal to `scipy.stats.ks_2samp(method="asymp")` if every
        distinct value is an edge of the bins; otherwise the distance is at most that, and the p-value at least.
    """
    from scipy.stats import kstwo

    m, n = int(reference.sum()), int(current.sum())
    distance = float(np.abs(np.cumsum(reference) / m - np.cumsum(current) / n).max())
    effective = max(round(m * n / (m + n)), 1)
    exponent = effective * distance**2
    if exponent > NEGLIGIBLE_EXPONENT:
        return distance, 2 * math.exp(-2 * exponent)
    p_value = 1 - kstwo.cdf(distance, effective) if effective > MANY_ROWS else kstwo.sf(distance, effective)
    return distance, float(np.clip(p_value, 0.0, 1.0))


def rank_sum(reference: Counts, current: Counts) -> float:
    """Test if values of one sample tend to be greater than those of the other, by their ranks.

    Args:
        reference, current: counts over the same bins, in ascending order; each with at least one value.

    Returns:
        The two-sided p-value; 1 if all values are in one bin. Equal to
        `scipy.stats.mannwhitneyu(use_continuity=False, method="asymptotic")` on the numbers of the bins.
    """
    from scipy.special import erfc

    old, new = reference.astype(np.float64), current.astype(np.float64)
    m, n = float(old.sum()), float(new.sum())
    both, total = old + new, m + n
    # Pairs in which the current value is greater; equal ones count half. Without a change, half of all pairs.
    greater = float(new @ (np.cumsum(old) - old / 2))
    ties = float((both * (both**2 - 1)).sum()) / (total * (total - 1))
    variance = m * n / 12 * (total + 1 - ties)
    if variance <= 1e-9 * m * n:
        return 1.0
    return float(erfc(abs(greater - m * n / 2) / math.sqrt(2 * variance)))


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
    from scipy.spatial.distance import jensenshannon

    return float(np.nan_to_num(jensenshannon(reference, current, base=2)))


def proportion_p_value(
    reference: tuple[int, int], current: tuple[int, int], side: Literal["greater", "two-sided"]
) -> float:
    """Test if a share changed, by Fisher's exact test; for large counts by a z-test with the pooled share.

    Args:
        reference, current: rows that have the property, and all rows.
        side: `greater` to test for an increase only.
    """
    from scipy.stats import fisher_exact, norm

    (a, m), (b, n) = reference, current
    if a + b == 0 or a + b == m + n:
        return 1.0
    if m + n <= 20_000:
        return float(fisher_exact([[b, n - b], [a, m - a]], alternative=side).pvalue)
    share = (a + b) / (m + n)
    z = (b / n - a / m) / math.sqrt(share * (1 - share) * (1 / m + 1 / n))
    return float(norm.sf(z) if side == "greater" else 2 * norm.sf(abs(z)))


def adjusted(p_values: list[float], dependence: Literal["positive", "any"] = "positive") -> list[float]:
    """Adjust p-values for the number of tests, so that the false discovery rate is bounded.

    Args:
        p_values: one for each test.
        dependence: `positive` for Benjamini-Hochberg, which holds for independent or positively dependent tests;
            `any` for Benjamini-Yekutieli, which always holds and finds less.
    """
    from scipy.stats import false_discovery_control

    if not p_values:
        return []
    method: Literal["bh", "by"] = "bh" if dependence == "positive" else "by"
    return [float(p) for p in false_discovery_control(p_values, method=method)]
