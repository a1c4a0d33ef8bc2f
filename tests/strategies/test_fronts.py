"""Fronts of points with two costs, by hand."""

import numpy as np
import pytest

from strategies.fronts import crowding, front, gains, hypervolume, ranks

#        0       1       2       3       4       5 equals 1   6
POINTS = [(1, 5), (2, 3), (4, 1), (3, 4), (4, 4), (2, 3), (5, 5)]


def test_hypervolume_by_hand():
    """Steps of (6 - 1)(6 - 5) + (6 - 2)(5 - 3) + (6 - 4)(3 - 1) = 5 + 8 + 4; what is dominated, or
    beyond the reference, adds nothing."""
    points = np.array(POINTS, float)
    assert hypervolume(points, (6, 6)) == 17
    assert hypervolume(points[[0, 1, 2]], (6, 6)) == 17
    assert hypervolume(np.array([[2.0, 3.0]]), (6, 6)) == 12
    assert hypervolume(np.array([[7.0, 1.0], [1.0, 6.0], [6.0, 0.0]]), (6, 6)) == 0
    assert hypervolume(np.array([[1.0, 9.0], [2.0, 3.0]]), (6, 6)) == 12
    assert hypervolume(np.zeros((0, 2)), (6, 6)) == 0


def test_fronts_by_hand():
    points = np.array(POINTS, float)
    assert front(points) == [0, 1, 2]
    assert ranks(points).tolist() == [0, 0, 0, 1, 2, 0, 3]


def test_crowding_by_hand():
    """Between neighbours (4 - 1) / 5 + (5 - 1) / 4, and (6 - 2) / 5 + (3 - 1) / 4."""
    found = crowding(np.array([[6.0, 1.0], [2.0, 3.0], [1.0, 5.0], [4.0, 2.0]]))
    assert found[[0, 2]].tolist() == [np.inf, np.inf]
    assert found[[1, 3]].tolist() == pytest.approx([3 / 5 + 3 / 4, 4 / 5 + 2 / 4])


def test_a_gain_is_the_difference_of_hypervolumes():
    source = np.random.default_rng(0)
    points, new = source.random((30, 2)), source.random((50, 2)) * 1.1
    new[:3] = points[front(points)[0]], points.min(0), points.max(0)
    reference = points.max(0)
    before = hypervolume(points, reference)
    expected = [hypervolume(np.vstack([points, one]), reference) - before for one in new]
    assert gains(new, points) == pytest.approx(expected, abs=1e-12)
    assert max(expected) > 0 == min(expected)
