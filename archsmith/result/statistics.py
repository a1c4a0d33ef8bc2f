"""What repeated runs say: bootstrap intervals, rank tests with Holm's correction, the share of
variance that a setting explains, and the chance of an accuracy under random drawing from a table.
"""

from collections.abc import Sequence
from itertools import chain, count
from math import comb

import numpy as np

CONFIDENCE = 0.95
LEVEL = 0.05  # p-values up to this one, corrected, count as a difference
FEWEST = 5  # values for an interval; fewer resample to almost nothing
RESAMPLES = 9999
STEP = 0.01  # percentage points, to which accuracies of a table are rounded


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the mean by the percentile bootstrap (Efron and Tibshirani 1993, chapter
    13); nan for fewer than 5 values. The same values give the same interval."""
    if len(values) < FEWEST:
        return np.nan, np.nan
    from scipy import stats  # the import takes a second

    found = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def shift(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of all differences of one value and another (Hodges and Lehmann 1963)."""
    return float(np.median(np.subtract.outer(np.asarray(ours), np.asarray(theirs))))


def rank_test(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Two-sided p-value of the Mann-Whitney test; exact, or by 9,999 permutations where there are
    more. Runs with the same seed are not paired: most of what makes them vary is not shared."""
    from scipy import stats

    permutations = stats.PermutationMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    return float(stats.mannwhitneyu(ours, theirs, method=permutations).pvalue)


def smallest(ours: int, theirs: int) -> float:
    """The smallest p-value that a rank test of so many values can have; 1 for a single one."""
    return 2 / comb(ours + theirs, ours) if min(ours, theirs) > 1 else 1.0


def enough(tests: int) -> int:
    """The fewest seeds of each group with which all of so many tests, corrected, can reject."""
    return next(n for n in count(2) if smallest(n, n) <= LEVEL / tests)


def able(smallest_ps: Sequence[float], level: float) -> list[bool]:
    """Which tests of a family can reject at all, by their smallest p-values (Tarone 1990): those up
    to level / K, for the smallest K that is at least their number. The others need no correction.
    """
    ps = np.asarray(smallest_ps)
    number = next(k for k in range(1, len(ps) + 2) if (ps <= level / k).sum() <= k)
    return (ps <= level / number).tolist()


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979); below the level, each difference is one
    at that level of the whole family."""
    order = np.argsort(p_values)
    factors = np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1)
    return found.tolist()


def explained(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The share of the variance of all values that lies between the means of the groups, the
    first-order index (Sobol 1993) of what makes them, and its expectation if that has no effect:
    (groups - 1) / (values - 1). The share is nan if all values are equal."""
    values = np.asarray([*chain(*groups)], dtype=float)
    around = values - values.mean()
    total = float(around @ around)
    means = [np.mean(group) - values.mean() for group in groups]
    between = sum(len(group) * mean**2 for group, mean in zip(groups, means, strict=True))
    by_chance = (len(groups) - 1) / (len(values) - 1)
    return float(between / total) if total > 0 else np.nan, by_chance


def chance(table: Sequence[float], values: Sequence[float]) -> float:
    """The probability that the mean of as many accuracies, drawn uniformly with replacement from
    the table, is at least the mean of `values`.

    The distribution of the sum is exact: the convolution of the table's own, on a grid of 0.01
    points, to which both are rounded.
    """
    whole, found = (np.rint(np.asarray(part) / STEP).astype(int) for part in (table, values))
    counts = np.bincount(whole - whole.min()) / len(whole)
    size = len(found) * (len(counts) - 1) + 1
    distribution = np.fft.irfft(np.fft.rfft(counts, size) ** len(found), size)
    least = max(0, found.sum() - len(found) * whole.min())
    return float(np.clip(distribution[least:].sum(), 0, 1))


def mean_of_best(table: Sequence[float], draws: int) -> float:
    """The expected largest of so many values drawn uniformly with replacement from the table."""
    shares = np.arange(len(table) + 1) / len(table)
    return float(np.sort(table) @ np.diff(shares**draws))
