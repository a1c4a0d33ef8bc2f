"""Pareto fronts of points with two costs, both minimised: (N, 2) arrays.

Source: Deb et al. 2002, doi:10.1109/4235.996017, section III (ranks and crowding distance).
"""

from collections.abc import Sequence

import numpy as np


def front(points: np.ndarray) -> list[int]:
    """The points that no other one dominates, by the first cost; of equal points the first."""
    least, kept = np.inf, []
    for i in np.lexsort((points[:, 1], points[:, 0])):  # stable
        if points[i, 1] < least:
            least = points[i, 1]
            kept.append(int(i))
    return kept


def ranks(points: np.ndarray) -> np.ndarray:
    """(N,): 0 for what nothing dominates, 1 for what then nothing dominates, and so on.

    A point dominates another if no cost is larger and one is smaller; equal points share a rank.
    """
    no_larger = (points[:, None] <= points[None]).all(2)  # (N, N)
    dominates = no_larger & (points[:, None] < points[None]).any(2)
    found, left = np.full(len(points), -1), np.ones(len(points), bool)
    for rank in range(len(points)):
        now = left & ~(dominates & left[:, None]).any(0)
        found[now], left = rank, left & ~now
    return found


def crowding(points: np.ndarray) -> np.ndarray:
    """(N,): the sum over both costs of the distance between a point's neighbours, relative to the
    range; infinite at the ends."""
    distance = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        spread = np.ptp(values) or 1.0
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / spread
    return distance


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """The area that the points dominate below the reference, exactly; points beyond it add none."""
    right, top = reference
    area = 0.0
    for i in front(points):
        x, y = points[i]
        if x < right and y < top:
            area += (right - x) * (top - y)
            top = y
    return area


def gains(new: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,): the area that each new point (N, 2) alone would add to that of `points` (M, 2), whose
    largest costs are the reference."""
    x, y = points[front(points)].T
    right, top = points.max(0)
    begin, height = np.append(-np.inf, x), np.append(top, y)  # of the steps from left to right
    width = np.append(x, right) - np.maximum(begin, new[:, :1])  # (N, steps)
    return (width.clip(0) * (height - new[:, 1:]).clip(0)).sum(1)
