"""Charts that `charts.j2` draws as SVG: lines over epochs, a strip per group, points in a plane."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple, TypeGuard

from archsmith.drawing.render import render

COLOURS = (
    "#4c8dd6", "#e0823d", "#4cab6b", "#c7576b", "#9a78d0", "#a8894f", "#d078b4", "#7f8790",
)  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 28.0, 24.0  # margins, in pixels
TICKS = 4


class Axis(NamedTuple):
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    form: str = ".3g"  # of the labels

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        values = [self.low + (self.high - self.low) * i / TICKS for i in range(TICKS + 1)]
        return [(self(value), format(value, self.form)) for value in values]


class Line(NamedTuple):
    name: str
    path: str  # SVG
    colour: str


class Dot(NamedTuple):
    x: float
    y: float
    radius: float
    style: str


class Text(NamedTuple):
    x: float
    y: float
    text: str
    kind: str = ""  # its class


@dataclass
class Chart:
    """What is drawn; lengths are in pixels from the upper left corner. An axis draws its grid."""

    title: str
    width: float
    height: float
    left: float = LEFT
    top: float = TOP
    x: Axis | None = None
    y: Axis | None = None
    texts: list[Text] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)

    def horizontal(self, limits: tuple[float, float], form: str = ".3g") -> Axis:
        return Axis(*limits, self.left, self.right, form)

    def vertical(self, limits: tuple[float, float], form: str = ".3g") -> Axis:
        return Axis(*limits, self.bottom, self.top, form)

    @property
    def right(self) -> float:
        return self.width - RIGHT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM


def line_chart(
    title: str,
    series: Mapping[str, Sequence[float | None]],
    *,
    width: float = 420,
    height: float = 220,
    limits: tuple[float, float] | None = None,
    form: str = ".3g",
) -> Chart:
    """Values over epochs, with gaps where one is None, and a dot at each series' last value.

    Args:
        series: name -> a value per epoch.
        limits, form: of the vertical axis and its labels; without limits, those of the values.
    """
    chart = Chart(title, width, height)
    steps = max(map(len, series.values()), default=0)
    known = [v for values in series.values() for v in values if _known(v)]
    x, y = chart.horizontal((0, max(1, steps - 1))), chart.vertical(limits or _limits(known), form)
    chart.y = y
    for step in sorted({0, max(0, steps - 1)}):
        chart.texts.append(Text(x(step), height - 6, str(step + 1), "tick"))
    for (name, values), colour in zip(series.items(), cycle(COLOURS)):
        points = [(x(i), y(v)) if _known(v) else None for i, v in enumerate(values)]
        chart.lines.append(Line(name, _path(points), colour))
        chart.dots += [Dot(*p, 2.6, f"fill:{colour}") for p in points if p is not None][-1:]
    return chart


def strip_chart(title: str, groups: Mapping[str, Sequence[float]]) -> Chart:
    """A row per group: a dot per value, and a bar at the mean."""
    left, row, colour = 12 + 6.6 * max(map(len, groups)), 26, COLOURS[0]
    chart = Chart(title, 640, TOP + row * len(groups) + BOTTOM, left)
    x = chart.x = chart.horizontal(_limits([v for vs in groups.values() for v in vs]), ".4g")
    for i, (name, values) in enumerate(groups.items()):
        y, mean = TOP + row * (i + 0.5), x(sum(values) / len(values))
        chart.texts.append(Text(left - 8, y + 4, name, "end"))
        chart.lines.append(Line(name, f"M{mean:.1f} {y - 9:.1f}v18", colour))
        chart.dots += [Dot(x(value), y, 4, f"fill:{colour};opacity:.6") for value in values]
    return chart


def trade_off_charts(points: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Accuracy against each size of a series of architectures; undominated points are filled."""
    charts, accuracies = [], [100 * point["discretised_accuracy"] for point in points]
    for size, name in (("macs", "multiply-accumulates"), ("parameters", "parameters")):
        chart = Chart("accuracy, supernet's weights (%)", 420, 260)
        sizes = [point[size] / 1e6 for point in points]
        x = chart.x = chart.horizontal(_limits(sizes))
        y = chart.y = chart.vertical(_limits(accuracies))
        chart.texts.append(Text(chart.right, chart.bottom - 6, f"{name} (millions)", "end"))
        places = [(x(a), y(b)) for a, b in zip(sizes, accuracies, strict=True)]
        chart.lines.append(Line("the series", _path(places), COLOURS[-1]))
        for i, ((left, top), best) in enumerate(zip(places, undominated(points), strict=True)):
            fill = COLOURS[0] if best else "var(--card)"
            chart.dots.append(Dot(left, top, 4, f"stroke:{COLOURS[0]};fill:{fill}"))
            chart.texts.append(Text(left + 5, top - 6, f"{i:02d}"))
        charts.append(chart)
    return charts


def undominated(points: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Per point, whether no other has fewer multiply-accumulates and is at least as accurate."""
    return [
        not any(
            other["macs"] < point["macs"]
            and other["discretised_accuracy"] >= point["discretised_accuracy"]
            for other in points
        )
        for point in points
    ]


def side_by_side(charts: Sequence[Chart]) -> bytes:
    """One SVG file that needs nothing else."""
    return render("charts.svg.j2", charts=charts).encode()


def _path(points: Iterable[tuple[float, float] | None]) -> str:
    """An SVG path with gaps at missing points."""
    commands, before = [], None
    for point in points:
        if point is not None:
            commands.append(f"{'L' if before else 'M'}{point[0]:.1f} {point[1]:.1f}")
        before = point
    return "".join(commands)


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits that include all values, at multiples of a round step."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / TICKS))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if TICKS * m * step >= high - low)
    low = math.floor(low / step) * step
    return low, max(low + TICKS * step, math.ceil(high / step) * step)
