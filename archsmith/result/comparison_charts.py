"""The geometry of a comparison's charts, which `compare_charts.j2` draws; lengths are in pixels."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from archsmith.drawing.charts import TICKS, Axis, Point, path
from archsmith.result.anytime import Curve

WIDTH = 400  # of every chart
RIGHT = WIDTH - 20
ROW = 24  # of a group of dots
RADIUS = 3.5
LETTER = 6.3  # mean width
LONGEST = 28  # letters of a name at an axis

STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)  # between ticks, times a power of ten
UNITS = {10**9: "billions", 10**6: "millions", 10**3: "thousands", 1: ""}
TIMES = {3600: "processor hours", 60: "processor minutes", 1: "processor seconds"}


class Mark(NamedTuple):
    """A value that is drawn: its colour, what it says on hover, the page that it leads to, and its
    cost where it is drawn against one."""

    value: float
    colour: str
    said: str
    href: str | None
    cost: float | None = None


class Line(NamedTuple):
    """A curve as paths of its median and its band, where the median ends, and the curve itself."""

    median: str
    band: str
    end: Point
    curve: Curve


class Dots(NamedTuple):
    """A group's row: its name, the middle of the row, its marks with their places, and its box from
    lower to upper quartile with the median."""

    name: str
    said: str
    y: float
    colour: str
    places: list[tuple[Point, Mark]]
    box: list[float]


def limits(values: Iterable[float], most: float = math.inf) -> tuple[float, float]:
    """The closest limits that include all values, at most `most`, between which ticks are round."""
    known = list(values)
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5, min(low + 0.5, most)
    power = 10 ** math.floor(math.log10((high - low) / TICKS))
    for step in (power * times for times in (*STEPS, *(10 * one for one in STEPS))):
        for start in (math.floor(low / step + 1e-9) * step, most - TICKS * step):
            end = start + TICKS * step
            if start <= low + 1e-9 * step and high - 1e-9 * step <= end <= most + 1e-9 * step:
                return start, end
    raise AssertionError(f"no limits for {low} to {high}")


def percents(values: Iterable[float]) -> tuple[float, float]:
    """Limits of values in %."""
    return limits(values, most=100.0)


def dots(groups: Mapping[str, Sequence[Mark]]) -> dict[str, Any]:
    """A row for each group: every value as a dot, quartiles and median."""
    left = 16 + LETTER * max(len(_short(name)) for name in groups)
    values = {name: [mark.value for mark in marks] for name, marks in groups.items()}
    x = Axis(percents(v for one in values.values() for v in one), left, RIGHT, ".4g")
    rows = []
    for i, (name, marks) in enumerate(groups.items()):
        y = 40 + ROW * (i + 0.5)
        quartiles = np.percentile(values[name], (25, 50, 75))
        rows.append(
            Dots(
                _short(name), name, y, marks[0].colour,
                list(zip(_swarm([x(v) for v in values[name]], y), marks, strict=True)),
                [x(v) for v in quartiles],
            )
        )  # fmt: skip
    bottom = 44 + ROW * len(groups)
    return {"x": x, "rows": rows, "left": left, "bottom": bottom, "height": bottom + 26}


def brief(name: str) -> str:
    """A name with at most four digits of its numbers."""
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", name)


def _short(name: str) -> str:
    name = brief(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _swarm(xs: Sequence[float], y: float) -> list[Point]:
    """Dots of a row, moved up or down where they would cover each other."""
    lanes = [0, -1, 1, -2, 2]
    taken: dict[int, list[float]] = {lane: [] for lane in lanes}
    found: dict[int, Point] = {}
    for i in sorted(range(len(xs)), key=lambda i: xs[i]):
        free = (n for n in lanes if all(abs(xs[i] - other) >= 2 * RADIUS for other in taken[n]))
        lane = next(free, 0)
        taken[lane].append(xs[i])
        found[i] = (xs[i], y + lane * 4)
    return [found[i] for i in range(len(xs))]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, accuracy) that no other dominates, from the cheapest on: none is
    at least as accurate at no more cost. Of equal points the first stands for all."""
    found: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return found


def scatter(marks: Sequence[Mark], name: str) -> dict[str, Any]:
    """Accuracy against a cost, with the front of the marks that no other dominates."""
    costs, values = [float(mark.cost or 0) for mark in marks], [mark.value for mark in marks]
    unit = next(unit for unit in UNITS if max(costs) >= unit or unit == 1)
    x = Axis(limits(cost / unit for cost in costs), 46, RIGHT, ",.4g")
    y = Axis(percents(values), 222, 40, ".4g")
    places = [(x(cost / unit), y(value)) for cost, value in zip(costs, values, strict=True)]
    best = front(list(zip(costs, values, strict=True)))
    steps = [places[best[0]]]
    for i in best[1:]:
        steps += [(places[i][0], steps[-1][1]), places[i]]
    return {
        "x": x,
        "y": y,
        "across": f"{name}, {UNITS[unit]}" if UNITS[unit] else name,
        "places": list(zip(places, marks, strict=True)),
        "best": best,
        "front": path([*steps, (RIGHT, steps[-1][1])]),
    }


def anytime(curves: Mapping[str, Curve], best: float | None) -> dict[str, Any]:
    """Medians and bands of quartiles against processor time; `best` is the table's best."""
    ends = [v for one in curves.values() for v in (min(one.low), max(one.high))]
    until = max(one.times[-1] for one in curves.values())
    unit = next(unit for unit in TIMES if until >= 3 * unit or unit == 1)
    x = Axis(limits([0, until / unit]), 46, RIGHT, ".3g")
    y = Axis(percents([*ends, *([best] if best else [])]), 222, 40, ".4g")
    lines = {}
    for name, one in curves.items():
        low, median, high = (
            [(x(t / unit), y(v)) for t, v in zip(one.times, values, strict=True)]
            for values in (one.low, one.median, one.high)
        )
        lines[name] = Line(path(median), f"{path([*low, *high[::-1]])}Z", median[-1], one)
    return {"x": x, "y": y, "across": TIMES[unit], "lines": lines, "best": best and y(best)}
