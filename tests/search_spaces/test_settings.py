"""Settings are checked by annotations alone, and every error names the parameter and what fits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import pytest
from annotated_types import MinLen

from search_spaces.settings import Count, NotNegative, Positive, Range, Share, checked, problems


class Rule(Protocol):
    def __call__(self) -> None: ...


def taking(
    count: Count,
    share: Share,
    number: float | None,
    word: Literal["one", "two", True],
    size: int | Sequence[int],
    pair: tuple[float, float],
    switch: bool,
    group: Mapping[str, Any],
    between: Annotated[float, Range(gt=0, le=2)],
    own: Annotated[str, "auto or a name"],
    text: Annotated[str, MinLen(2)],
    rule: Rule,
    anything: Any,
    unannotated=None,
) -> None: ...


FITS: dict[str, list[Any]] = {
    "count": [1, 10**30],
    "share": [0, 0.5],
    "number": [None, -3, 2.5],
    "word": ["one", True],
    "size": [3, [3, 4], (3, 4)],
    "pair": [[0.9, 1], (0.9, 0.99)],
    "switch": [False],
    "group": [{}, {"a": 1}],
    "between": [2],
    "own": ["cpu"],
    "text": ["ab"],
    "rule": [3, print],
    "anything": [None, [1]],
    "unannotated": [None, "x"],
}
WRONG: dict[str, tuple[list[Any], str]] = {
    "count": ([0, True, "3", 2.0, None, [1]], "a whole number of at least 1"),
    "share": ([1, -0.1, "0.5"], "a number of at least 0 and below 1"),
    "number": (["x", True, float("inf"), [1.0]], "a finite number or null"),
    "word": (["three", 5], "one of one, two, true"),
    "size": (["x", 2.5, [2.5]], "a whole number or a list in []"),
    "pair": ([[1.0], [], 3, ["x", 1]], "a list of 2: a finite number, a finite number"),
    "switch": ([1, "true", None], "true or false"),
    "group": ([3, [1]], "settings in {}"),
    "between": ([0, 2.5], "a number above 0 and at most 2"),
    "own": ([3, None], "auto or a name"),
    "text": (["a"], "a word MinLen(min_length=2)"),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in FITS.items() for v in vs])
def test_what_fits_its_annotation_passes(name: str, value: object):
    assert problems(taking, {name: value}) == []


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, (vs, _) in WRONG.items() for v in vs])
def test_what_does_not_is_told_with_what_would(name: str, value: object):
    (line,) = problems(taking, {name: value}, "mine")
    found = "null" if value is None else repr(value)
    assert line == f"mine.{name}: expected {WRONG[name][1]}, found {found}"


def test_every_wrong_setting_is_told_and_an_unknown_one_with_the_nearest():
    found = problems(taking, {"count": 0, "share": 2, "cout": 1}, "mine")
    assert [line.partition(":")[0] for line in found[:2]] == ["mine.count", "mine.share"]
    assert found[2].startswith("unknown setting 'mine.cout', did you mean 'mine.count'?; known: ")
    assert problems(lambda **more: None, {"anything": 1}) == []


def test_an_exponent_without_a_dot_is_explained():
    (line,) = problems(taking, {"share": "3e-4"})
    assert line.endswith("found '3e-4', a word in YAML; a number needs a dot, as 3.0e-4")


def test_names_that_only_a_type_checker_knows_refuse_nothing():
    def unknown(shape: "B C H W", size: int) -> None: ...  # noqa: F722

    assert problems(unknown, {"shape": 1, "size": 2}) == []
    assert problems(unknown, {"size": None}) == ["size: expected a whole number, found null"]


@checked
def double(value: Count, *more: int, factor: Positive = 2, **rest: int) -> float:
    """Doubles."""
    return value * factor


@checked
@dataclass(frozen=True)
class Pair:
    first: Count
    second: Share = 0.0


def test_a_checked_function_or_class_refuses_in_one_line_and_is_itself_otherwise():
    assert (double(2), double(2, 1, factor=3, other=4)) == (4, 6)
    assert (double.__name__, double.__doc__) == ("double", "Doubles.")
    with pytest.raises(ValueError, match=r"^value: expected .* 1, found 0; factor: .* found -1$"):
        double(0, factor=-1)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        double()
    assert Pair(1) == Pair(1, 0.0)
    with pytest.raises(ValueError, match=r"^second: expected a number of at least 0 and below 1"):
        Pair(1, second=1)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_an_infinite_number_is_refused_by_its_name(value: float):
    """`null` is no limit where a setting can do without one; infinity is none of its values."""

    def taker(share: NotNegative = 0.0, limit: Positive | None = None) -> None: ...

    assert problems(taker, {"share": value, "limit": value}) == [
        f"share: expected a finite number of at least 0, found {value}",
        f"limit: expected a finite number above 0 or null, found {value}",
    ]
