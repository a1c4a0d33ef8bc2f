"""Learning-rate schedules: values by hand, and those of the sharpDARTS formula."""

import math
from itertools import pairwise

import pytest

from strategies.schedules import constant, cosine, cosine_power, exponential, linear


def rates(schedule, epochs: float = 4, **settings: float) -> list[float]:
    number = math.ceil(epochs)
    return [schedule(1.0, 0.1, epoch, epochs, **settings) for epoch in range(number)]


def test_values_by_hand():
    assert rates(constant) == [1.0] * 4
    half = 0.45 * math.sqrt(0.5)
    assert rates(cosine) == pytest.approx([1.0, 0.55 + half, 0.55, 0.55 - half])
    assert rates(exponential) == pytest.approx([1.0, 10**-0.25, 10**-0.5, 10**-0.75])
    assert rates(linear) == pytest.approx([1.0, 0.55, 0.1 + 0.9 / 2, 0.1 + 0.9 / 4])


def test_an_exponential_to_zero_is_refused():
    with pytest.raises(ValueError, match=r"a min_lr above 0, found 0\.0"):
        exponential(1.0, 0.0, 0, 4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"power": 1}, ".1 .092727 .081399 .067126 .051303 .03548 .021207 .009879 .002606 .0001"),
        ({"power": 2}, ".1 .090236 .075953 .059447 .04292 .028072 .015976 .007174 .001868 .0001"),
        (
            {"power": 2, "warmup": 0.3},
            ".025075 .05005 .075025 .1 .075558 .052807 .030994 .014025 .003588 .0001",
        ),
        ({"power": 10}, ".1 .083146 .061815 .041627 .025657 .014468 .007278 .003007 .000785 .0001"),
    ],
)
def test_sharpdarts_1_cosine_power(settings: dict[str, float], expected: str):
    """By the formula of the public code, for 10 epochs from 0.1 to 1e-4."""
    found = [cosine_power(0.1, 1e-4, epoch, 10, **settings) for epoch in range(10)]
    assert found == pytest.approx([float(x) for x in expected.split()], abs=6e-7)


@pytest.mark.parametrize("power", [1, 1.5, 2, 10, 1000])
def test_sharpdarts_1_cosine_power_falls_from_lr_to_min_lr(power: float):
    found = [cosine_power(0.3, 1e-3, epoch, 30, power=power) for epoch in range(30)]
    assert (found[0], found[-1]) == (0.3, 1e-3)
    assert all(a > b for a, b in pairwise(found))


def test_sharpdarts_1_power_one_is_a_cosine_rescaled_to_the_epochs_own_range():
    plain = [cosine(1.0, 0.0, epoch, 10) for epoch in range(1, 11)]
    expected = [(rate - plain[-1]) / (plain[0] - plain[-1]) for rate in plain]
    found = [cosine_power(1.0, 0.0, epoch, 10, power=1) for epoch in range(10)]
    assert found == pytest.approx(expected)


def test_cosine_power_of_few_epochs():
    assert [cosine_power(1.0, 0.1, 0, n, power=2) for n in (1, 2)] == [1.0, 1.0]
    found = [cosine_power(1.0, 0.1, epoch, 6, power=2, warmup=0.9) for epoch in range(6)]
    assert found == pytest.approx([0.1 + 0.9 * (e + 1) / 5 for e in range(5)] + [0.1])
    assert cosine_power(1.0, 0.1, 1, 1.5, power=2) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="power: expected a number of at least 1 and at most 1000"):
        cosine_power(1.0, 0.1, 0, 4, power=0.5)
