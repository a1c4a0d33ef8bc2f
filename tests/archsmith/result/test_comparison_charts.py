"""The geometry of a comparison's charts, by hand."""

import pytest

from archsmith.drawing.charts import TICKS
from archsmith.result.anytime import Curve
from archsmith.result.comparison_charts import (
    RIGHT,
    Mark,
    anytime,
    brief,
    dots,
    front,
    limits,
    percents,
    scatter,
)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([97.77, 99.63], (97.6, 100.0)),
        ([98.7, 99.63], (98.7, 99.9)),
        ([84.19, 94.29], (84.0, 96.0)),
        ([0.0, 100.0], (0.0, 100.0)),
        ([50.0], (49.5, 50.5)),
        ([100.0], (99.4, 100.0)),
    ],
)
def test_ticks_of_shares_are_round_and_end_at_100(values: list[float], ends: tuple[float, float]):
    low, high = percents(values)
    assert (low, high) == pytest.approx(ends)
    assert low <= min(values) + 1e-9
    assert high >= max(values) - 1e-9


@pytest.mark.parametrize("values", [[0.0, 151.3], [-3.0, 8.0], [1e-9, 1e9], [2e5, 9.1e6], [7.0]])
def test_any_values_are_within_limits_with_round_ticks(values: list[float]):
    low, high = limits(values)
    assert low <= min(values)
    assert max(values) <= high
    step = (high - low) / TICKS
    assert f"{step:.2g}" == f"{step:.6g}"


def test_the_front_is_what_no_other_dominates():
    points = [(3, 90.0), (1, 80.0), (2, 90.0), (2, 85.0), (4, 95.0), (5, 94.0), (1, 80.0)]
    assert front(points) == [1, 2, 4]


def test_a_scatter_puts_costs_in_a_unit_and_draws_the_front_as_steps():
    marks = [Mark(90.0, "red", "a", None, 100_000), Mark(94.0, "red", "b", None, 200_000)]
    chart = scatter(marks, "parameters")
    assert chart["across"] == "parameters, thousands"
    assert chart["best"] == [0, 1]
    (x0, y0), (x1, y1) = (place for place, _ in chart["places"])
    assert (x0, y0, x1, y1) == pytest.approx((46, 222, RIGHT, 40))
    assert scatter([marks[0]._replace(cost=c) for c in (999, 400)], "x")["across"] == "x"
    assert scatter([marks[0]._replace(cost=c) for c in (1000, 400)], "x")["across"] == (
        "x, thousands"
    )
    assert chart["front"] == f"M46.0 222.0L{RIGHT}.0 222.0L{RIGHT}.0 40.0L{RIGHT}.0 40.0"


def test_dots_with_equal_values_do_not_cover_each_other():
    chart = dots({"a": [Mark(90.0, "red", "", None)] * 3 + [Mark(94.0, "red", "", None)]})
    (row,) = chart["rows"]
    places = [place for place, _ in row.places]
    assert len(set(places)) == 4
    assert len({x for x, _ in places}) == 2
    assert row.box == pytest.approx([chart["x"](v) for v in (90, 90, 91)])


@pytest.mark.parametrize(
    ("until", "unit", "shown"),
    [
        (150.0, "processor seconds", 150),
        (1800.0, "processor minutes", 30),
        (36000.0, "processor hours", 10),
    ],
)
def test_time_has_a_unit_that_reads(until: float, unit: str, shown: float):
    one = Curve([0.0, until], [90.0, 91.0], [91.0, 92.0], [92.0, 93.0], 3)
    chart = anytime({"a": one}, best=94.0)
    assert chart["across"] == unit
    assert chart["x"].limits[1] >= shown
    assert chart["lines"]["a"].end == (chart["x"](shown), chart["y"](92.0))
    assert chart["best"] == chart["y"](94.0)


def test_long_numbers_in_names_are_rounded():
    assert brief("darts lr=0.0012001482519392761 warmup=0.3") == "darts lr=0.0012 warmup=0.3"
    assert brief("darts lr=9.16650194292973e-05") == "darts lr=9.167e-05"
    assert brief("99.26% of 15,625") == "99.26% of 15,625"
