"""The geometry of charts: ticks, limits, what shows under the pointer."""

import pytest

from archsmith.drawing.charts import (
    COLOURS,
    Axis,
    inks,
    panes,
    readings,
    round_limits,
    round_step,
    ticks_from_one,
)


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 6]), (15, [1, 5, 10, 15]),
        (50, [1, 20, 40, 50]), (600, [1, 200, 400, 600]), (601, [1, 200, 400, 601]),
    ],
)  # fmt: skip
def test_epochs_have_round_ticks_between_the_first_and_the_last(count: int, ticks: list[int]):
    assert ticks_from_one(count) == ticks


@pytest.mark.parametrize("most", range(40))
def test_counts_have_integer_ticks_from_0(most: int):
    limits = round_limits([most, most], whole=True)
    ticks = [float(label) for _, label in Axis(limits, 0, 100, ".6g").ticks]
    assert ticks[0] == 0
    assert ticks[-1] >= most
    assert all(tick % 1 == 0 for tick in ticks)


def test_a_round_step_is_no_smaller_than_asked():
    assert [round_step(least) for least in (0.3, 2.1, 3.0, 10.0)] == [0.5, 2.5, 5, 10]
    assert [round_step(least, whole=True) for least in (0.3, 2.1, 21.0)] == [1, 5, 25]


def test_shares_end_at_their_largest_value():
    assert round_limits([0.41, 0.99], most=1) == (0.4, 1)
    assert round_limits([0.41, 0.99]) == pytest.approx((0.4, 1.2))


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((0, 1), ["0%", "25%", "50%", "75%", "100%"]),
        ((0.9, 1.0), ["90.0%", "92.5%", "95.0%", "97.5%", "100.0%"]),
        ((0.97, 1.0), ["97.00%", "97.75%", "98.50%", "99.25%", "100.00%"]),
    ],
)
def test_percentages_have_the_decimals_that_they_need(limits, labels: list[str]):
    assert [label for _, label in Axis(limits, 0, 100, ".0%").ticks] == labels


def test_numbers_have_the_digits_that_they_need():
    def labels(low: float, high: float, form: str) -> list[str]:
        return [label for _, label in Axis((low, high), 0, 100, form).ticks]

    assert labels(1.38, 1.43, ".3g") == ["1.38", "1.3925", "1.405", "1.4175", "1.43"]
    assert labels(0, 1, ".3g") == ["0", "0.25", "0.5", "0.75", "1"]
    assert labels(0, 4e6, ",.0f") == ["0", "1,000,000", "2,000,000", "3,000,000", "4,000,000"]
    assert labels(0, 1 / 3, ".3g")[-1] == "0.333333"  # as exact as it gets


def test_under_the_pointer_is_what_all_series_have_at_a_step():
    series = {"train": [0.5, 0.75], "held-out": [None, 0.25, 1.0]}
    told = readings(series, ".0%")
    assert told == ["train 50%", "train 75%\nheld-out 25%", "held-out 100%"]
    shown = panes(Axis((0, 2), 10, 110), told)
    assert [(pane.step, pane.start, pane.width) for pane in shown] == [
        (1, 10, 25), (2, 35, 50), (3, 85, 25),
    ]  # fmt: skip
    assert shown[1].told == told[1]


def test_panes_of_many_steps_are_wide_enough_to_hit():
    shown = panes(Axis((0, 999), 0, 400), [str(i) for i in range(1000)])
    assert 90 <= len(shown) <= 110
    assert all(pane.width > 1.9 for pane in shown)
    assert [pane.told for pane in shown] == [str(pane.step - 1) for pane in shown]


def test_names_get_colours_in_their_order():
    names = [str(i) for i in range(len(COLOURS) + 1)]
    assert list(inks(names).values()) == [*COLOURS, COLOURS[0]]
    assert len(set(COLOURS)) == len(COLOURS)
