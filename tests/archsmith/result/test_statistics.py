"""Statistics of repeated runs, by hand."""

import math

import numpy as np
import pytest

from archsmith.result.statistics import (
    able,
    chance,
    enough,
    explained,
    holm,
    interval,
    mean_of_best,
    rank_test,
    shift,
    smallest,
)


def test_the_interval_of_the_mean_covers_it_in_about_95_of_100_samples():
    """Of 20 normal numbers the percentile bootstrap covers some 93%."""
    draws = np.random.default_rng(1).normal(3, 2, (200, 20))
    found = [interval(list(values)) for values in draws]
    covered = sum(low <= 3 <= high for low, high in found)
    assert 178 <= covered <= 196
    # the deviation of a mean, 2 / root 20, twice 1.96 times
    assert np.mean([high - low for low, high in found]) == pytest.approx(1.75, rel=0.1)
    assert interval(list(draws[0])) == found[0]


def test_four_values_have_no_interval_and_equal_ones_an_empty_one():
    assert all(math.isnan(end) for end in interval([1.0, 2.0, 3.0, 4.0]))
    assert interval([7.0] * 5) == (7.0, 7.0)


def test_the_shift_is_the_median_of_all_differences():
    assert shift([3.0, 10.0], [1.0, 2.0, 2.5]) == pytest.approx((2 + 7.5) / 2)  # .5 1 2 7.5 8 9


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([4, 5, 6, 7, 8], [1, 2, 3, 0, -1], 2 / 252),
        ([1, 4], [2, 3], 1),  # U = 2 of 0 to 4: the middle
        ([1, 3], [2, 4], 2 * 2 / 6),  # U = 1: as far or farther below {12}, {13}
        ([1, 1], [1, 1], 1),
    ],
)
def test_the_rank_test_by_hand(ours: list[float], theirs: list[float], p: float):
    assert rank_test(ours, theirs) == pytest.approx(p)
    assert rank_test(theirs, ours) == pytest.approx(p)


def test_the_smallest_p_of_so_few_values():
    assert (smallest(1, 99), smallest(99, 1), smallest(2, 2)) == (1, 1, pytest.approx(2 / 6))
    assert smallest(3, 3) == pytest.approx(rank_test([1, 2, 3], [4, 5, 6]))


def test_holm_by_hand():
    """Sorted 0.01 0.03 0.04 times 3, 2, 1: 0.03, 0.06, and no less than the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([9], 0.1),
        ([0], 1),
        ([9.4], 0),
        ([9, 9], 1 / 100),
        ([8, 9], 3 / 100),
        ([9, 9, 9], 1 / 1000),
        ([-5], 1),
    ],
)
def test_the_chance_of_a_mean_by_hand(values: list[float], expected: float):
    """The table holds 0 to 9."""
    assert chance(range(10), values) == pytest.approx(expected, abs=1e-12)


def test_the_chance_of_a_mean_equals_counting_all_pairs():
    table = np.random.default_rng(0).normal(90, 3, 60).round(2)
    pairs = np.add.outer(table, table)
    share = (pairs >= 185 - 1e-9).mean()
    assert chance(list(table), [92, 93]) == pytest.approx(share)


def test_tests_that_can_never_reject_do_not_count():
    """Four against four: 2 / 70 = 0.0286, more than 0.05 / 2. Five against five: 2 / 252."""
    four, five = 2 / 70, 2 / 252
    assert able([four], 0.05) == [True]
    assert able([four, four], 0.05) == [False, False]
    assert able([five, 1.0, 1.0, five], 0.05) == [True, False, False, True]
    assert able([five, four], 0.05) == [True, False]  # two are up to 0.05, one up to 0.05 / 2
    assert able([], 0.05) == []


def test_the_best_of_draws_by_hand():
    """Of 1 and 2 drawn twice: 1 once in four. Of three: 1 in 1, 2 in 7 and 4 in 19 of 27."""
    assert mean_of_best([2.0, 1.0], 2) == pytest.approx(1.75)
    assert mean_of_best([4.0, 1.0, 2.0], 3) == pytest.approx((1 + 2 * 7 + 4 * 19) / 27)
    assert mean_of_best([4.0, 1.0, 2.0], 1) == pytest.approx(7 / 3)


def test_those_that_can_reject_share_the_level_among_as_few_as_possible():
    """0.02 is below 0.05 / 2, and not below 0.05 / 5."""
    assert able([0.02, 0.03, 0.03, 0.03, 0.03], 0.05) == [True, False, False, False, False]


@pytest.mark.parametrize(("tests", "seeds"), [(1, 4), (2, 5), (6, 5), (7, 6), (55, 7)])
def test_the_seeds_that_are_enough(tests: int, seeds: int):
    """2 / C(2n, n) is 0.1 for 3 seeds, then 0.029, 0.0079, 0.0022 and 0.00058."""
    assert enough(tests) == seeds


def test_the_share_between_groups_by_hand():
    """1 3 | 5 7: of 9 + 1 + 1 + 9 the means, 2 from the middle each, have 4 * 2^2."""
    assert explained([[1.0, 3.0], [5.0, 7.0]]) == pytest.approx((0.8, 1 / 3))
    assert explained([[1.0, 5.0], [5.0, 1.0]]) == pytest.approx((0, 1 / 3))
    share, by_chance = explained([[2.0, 2.0], [2.0]])
    assert math.isnan(share)
    assert by_chance == 0.5


def test_a_setting_without_effect_has_the_share_that_chance_gives():
    draws = np.random.default_rng(0)
    found = [explained([*draws.normal(size=(3, 4))])[0] for _ in range(2000)]
    assert np.mean(found) == pytest.approx(2 / 11, abs=0.01)  # deviation of one: 0.11


def test_a_test_at_the_level_itself_can_reject():
    assert able([0.05], 0.05) == [True]
    assert able([0.05, 0.05], 0.05) == [False, False]  # 0.025 each is asked of two
