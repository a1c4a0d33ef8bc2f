"""Widths of a trained network by rules, without a search by gradient: what a search has to beat.

Each rule has one threshold, and takes the largest network that fits. `widths` are the options of
every row, rising; the result is the position of one per row.

Source of the last one: FastNAS in the public code of NVIDIA Model Optimizer.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

Widths = Sequence[Sequence[int]]
Fits = Callable[[list[int]], bool]


def _largest(several: Sequence[list[int]], fits: Fits) -> list[int]:
    """The last that fits of networks that grow. Raises ValueError if none does."""
    count = bisect_left(several, True, key=lambda one: not fits(one))
    if not count:
        raise ValueError("not even the smallest network fits; raise the limit")
    return several[count - 1]


def uniform(widths: Widths, fits: Fits) -> list[int]:
    """The same share of every row's channels, rounded up to an option."""
    shares = sorted({width / row[-1] for row in widths for width in row})
    return _largest([[_covering(row, share * row[-1]) for row in widths] for share in shares], fits)


def by_importance(widths: Widths, scores: Sequence[Sequence[float]], fits: Fits) -> list[int]:
    """All units whose score reaches one threshold, rounded up to an option.

    scores: of every unit of a row, in any order.
    """
    thresholds = sorted({score for row in scores for score in row}, reverse=True)

    def at(threshold: float) -> list[int]:
        counts = [sum(score >= threshold for score in row) for row in scores]
        return [_covering(row, count) for row, count in zip(widths, counts, strict=True)]

    return _largest([at(threshold) for threshold in [float("inf"), *thresholds]], fits)


def by_drops(drops: Sequence[Sequence[float]], threshold: float) -> list[int]:
    """The smallest option of each row whose drop is at most the threshold.

    drops: of each option beside the others at full width, in rising order of widths; a smaller
    option is taken to cost at least as much as a larger one.
    """
    return [next(o for o, d in enumerate(_monotone(row)) if d <= threshold) for row in drops]


def fastnas(drops: Sequence[Sequence[float]], fits: Fits) -> list[int]:
    """`by_drops` with the smallest threshold that fits."""
    known = sorted({drop for row in drops for drop in _monotone(row)}, reverse=True)
    return _largest([by_drops(drops, threshold) for threshold in known], fits)


def _covering(row: Sequence[int], width: float) -> int:
    """The smallest option that is at least as wide."""
    return min(bisect_left(row, width - 1e-9), len(row) - 1)


def _monotone(row: Sequence[float]) -> list[float]:
    """Drops that fall with the width: the largest of this and of wider options, 0 for the last."""
    found = [0.0]
    for drop in reversed(row[:-1]):
        found.append(max(drop, found[-1]))
    return found[::-1]
