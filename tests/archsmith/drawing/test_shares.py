"""Shares of gates, and how far the kept options are ahead of what was dropped."""

import pytest

from archsmith.drawing.shares import THICK, THIN, shares


def test_margins_are_to_the_largest_share_that_is_dropped():
    found = shares({"a": 3.0, "b": 4.0, "c": 1.0}, ("a",))
    assert {name: one.share for name, one in found.items()} == {"a": 0.375, "b": 0.5, "c": 0.125}
    assert found["a"].margin == pytest.approx(-0.125)
    assert found["a"].told == "37.5% of the gates, 12.5 points below the most that was dropped"
    assert found["a"].line == THIN


def test_what_is_kept_together_is_ahead_of_the_rest_only():
    found = shares({"a": 0.6, "b": 0.4, "c": 0.0}, ("a", "b"))
    assert (found["a"].margin, found["b"].margin) == pytest.approx((0.6, 0.4))


def test_an_only_option_has_the_widest_line():
    (one,) = shares({"a": 0.2}, ("a",)).values()
    assert (one.share, one.margin, one.line) == (1, 1, THICK)


@pytest.mark.parametrize("gates", [{}, {"a": 0.0, "b": 0.0}, {"a": -1.0}, {"a": float("nan")}])
def test_gates_without_a_sum_have_no_shares(gates: dict[str, float]):
    assert shares(gates, ("a",)) == {}
