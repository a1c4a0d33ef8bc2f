"""What a comparison says in sentences."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from archsmith.result.random_drawing import RandomDrawing
from archsmith.result.verdict import Standing, listed, standing, verdict


def row(name: str, mean: float, n: int = 10, **against: tuple[float, float]) -> dict:
    """Of a group; `against` is a shift and a p-value for each baseline."""
    facts = {"runs": name, "mean": mean, "n": n}
    for baseline, (shift, p) in against.items():
        facts |= {f"shift, {baseline}": shift, f"p, {baseline}": p}
    return facts


def test_groups_by_how_they_stand_to_a_baseline():
    rows = [
        row("a", 1, random=(0.1, 0.05)), row("b", 1, random=(-0.1, 0.05)),
        row("c", 1, random=(9.0, 0.06)), row("d", 1, random=(9.0, math.nan)), row("random", 1),
    ]  # fmt: skip
    assert standing(rows, "random") == Standing(["a"], ["b"], ["c"], ["d"])
    assert standing(rows, "darts") == Standing([], [], [], [])


def test_the_finding_comes_first_and_says_how_sure_it_is():
    rows = [
        row("a", 93.5, random=(2.0, 0.01)), row("b", 93, random=(1.5, 0.04)),
        row("c", 92.2, random=(0.5, 0.2)), row("random", 92), row("d", 80, random=(-9, 0.02)),
    ]  # fmt: skip
    assert verdict(rows) == [
        "a and b are better than random (rank test, corrected p at most 0.04); "
        "d is worse than random (p = 0.02); c cannot be distinguished from random.",
        "The highest mean of 5 is 93.50%, by a (10 seeds).",
    ]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "1 seed each is too few to say that any strategy is better or worse than random"),
        (3, "3 seeds each are too few to say that any strategy is better or worse than random"),
    ],
)
def test_few_seeds_say_nothing_and_it_says_how_many_would(seeds: int, said: str):
    """Of n and n values the smallest p is 2 / C(2n, n): 0.029 for 4, 0.1 for 3."""
    rows = [row("a", 99, seeds, random=(5, math.nan)), row("random", 94, seeds)]
    assert verdict(rows)[0] == (
        f"{said}: even results without overlap could be chance. 4 each are enough for 1 test."
    )


def test_groups_with_too_few_seeds_are_named_beside_those_that_were_tested():
    rows = [
        row("a", 99, random=(5, 0.001)), row("b", 98, 2, random=(4, math.nan)), row("random", 94),
    ]  # fmt: skip
    assert verdict(rows)[1].startswith("2 seeds each are too few to say that b is better or worse")


def test_without_a_baseline_it_asks_for_one():
    assert "add strategy=random" in verdict([row("a", 1), row("b", 2)])[0]
    assert verdict([row("a", 1, 1)]) == [
        "There is no second strategy among these runs to compare it with.",
        "The highest mean is 1.00%, by a (1 seed).",
    ]
    assert verdict([]) == ["No run has an accuracy to compare."]


def test_beside_a_table_random_drawing_is_the_first_baseline():
    """Of 100 equally likely accuracies, 99 has a chance of 0.01, twice that after correction, and
    50 has a chance of a half."""
    plain = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    table = {str(i): float(i) for i in range(100) if i != 97} | {plain: 97.0}
    drawn = RandomDrawing(table, {"a": [99.0], "b": [50.0]})
    assert drawn.chances == pytest.approx({"a": 0.01, "b": 0.5})
    said = verdict([row("a", 99, 1), row("b", 50, 1)], drawn)
    assert said[0] == (
        "a is better than drawing from the table's 100 architectures at random (corrected "
        "p = 0.02); b cannot be distinguished from random drawing."
    )
    assert said[-1] == (
        "a has a higher mean than the cell of 3x3 convolutions alone, 97.00%, which takes no "
        "search."
    )
    assert verdict([row("b", 50, 1)], RandomDrawing(table, {"b": [50.0]}))[-1].startswith(
        "None has a higher mean than the cell of 3x3"
    )


def test_numbers_of_one_and_of_two():
    assert verdict([row("a", 1, 2)])[-1] == "The highest mean is 1.00%, by a (2 seeds)."
    against = {"random": (5, math.nan)}
    rows = [row("a", 99, 3, **against), row("b", 98, 3, **against), row("random", 94, 3)]
    assert verdict(rows)[0].endswith("are enough for 2 tests.")


def test_the_level_itself_is_significant():
    """0.025 is 0.05 after Holm's correction for two groups."""
    drawn: Any = SimpleNamespace(size=100, chances={"a": 0.025, "b": 0.5}, named={})
    assert verdict([row("a", 95, 1)], drawn)[0].startswith("a is better than drawing")


def test_several_cells_that_take_no_search_are_compared_by_their_mean():
    """Cells of convolutions alone have 94 in the mean, the one of 3x3 convolutions 90."""
    table = {"|nor_conv_3x3~0|": 90.0, "|nor_conv_1x1~0|": 98.0, "|skip_connect~0|": 99.0}

    def said(*rows: dict) -> str:
        return verdict(list(rows), RandomDrawing(table, {"a": [94.0]}))[-1]

    what = "the 2 cells of convolutions alone in the mean, 94.00%, which takes no search."
    assert said(row("a", 94, 1)) == f"None has a higher mean than {what}"
    higher = row("a", 95, 1), row("b", 96, 1)
    assert said(*higher) == f"a and b have a higher mean than {what}"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("", ""),
        ("a", "a"),
        ("ab", "a and b"),
        ("abcdef", "a, b, c, d, e and f"),
        ("abcdefg", "a, b, c, d, e and 2 more"),
    ],
)
def test_a_long_list_ends_with_a_count(names: str, said: str):
    assert listed(list(names)) == said
