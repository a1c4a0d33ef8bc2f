"""Charts that `charts.j2` draws as SVG: lines over epochs, a strip per group, points in a plane."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple, TypeGuard

from archsmith.drawing.render import render

COLOURS = (
    "#4c8dd6", "#e0823d", "#4cab6b", "#c7576b", "#9a78d0", "#a8894f", "#d078b4", "#7f8790",
)  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 28.0, 24.0  # margins, in pixels
TICKS = 4

Point = tuple[float, float]


class Axis(NamedTuple):
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        return [self.low + (self.high - self.low) * i / TICKS for i in range(TICKS + 1)]


class Dot(NamedTuple):
    x: float
    y: float
    radius: float
    style: str
    label: str = ""


@dataclass
class Chart:
    """What is drawn; lengths are in pixels from the upper left corner."""

    title: str
    width: float
    height: float
    left: float = LEFT
    grid: list[str] = field(default_factory=list)  # SVG paths
    texts: list[tuple[float, float, str, str]] = field(default_factory=list)  # x, y, class, text
    lines: list[tuple[str, str, str]] = field(default_factory=list)  # name, SVG path, colour
    dots: list[Dot] = field(default_factory=list)

    @property
    def right(self) -> float:
        return self.width - RIGHT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and colour of each line."""
        return [(name, colour) for name, _, colour in self.lines]

    def vertical(self, limits: Point, shown: Callable[[float], str]) -> Axis:
        """Draws the grid of the vertical axis."""
        axis = Axis(*limits, self.bottom, TOP)
        for value in axis.ticks:
            y = axis(value)
            self.grid.append(f"M{self.left:g} {y:.1f}H{self.right:g}")
            self.texts.append((self.left - 6, y + 4, "tick end", shown(value)))
        return axis

    def horizontal(self, limits: Point, shown: Callable[[float], str]) -> Axis:
        """Draws the grid of the horizontal axis."""
        axis = Axis(*limits, self.left, self.right)
        for value in axis.ticks:
            x = axis(value)
            self.grid.append(f"M{x:.1f} {TOP:g}V{self.bottom:g}")
            self.texts.append((x, self.bottom + 16, "tick", shown(value)))
        return axis


def line_chart(
    title: str,
    series: Mapping[str, Sequence[float | None]],
    *,
    width: float = 420,
    height: float = 220,
    percent: bool = False,
    limits: tuple[float, float] | None = None,
) -> Chart:
    """Values over epochs, with gaps where one is None, and a dot at each series' last value.

    Args:
        series: name -> a value per epoch.
        limits: of the vertical axis; None derives them from the values.
    """
    chart = Chart(title, width, height)
    known = [v for values in series.values() for v in values if _known(v)]
    steps = max(map(len, series.values()), default=0)
    x = Axis(0, max(1, steps - 1), chart.left, chart.right)
    y = chart.vertical(limits or _round_limits(known), _percent if percent else _short)
    for step in sorted({0, max(0, steps - 1)}):
        chart.texts.append((x(step), height - 6, "tick", str(step + 1)))
    for (name, values), colour in zip(series.items(), cycle(COLOURS)):
        points = [(x(i), y(v)) if _known(v) else None for i, v in enumerate(values)]
        chart.lines.append((name, _path(points), colour))
        chart.dots += [Dot(*p, 2.6, f"fill:{colour}") for p in points if p is not None][-1:]
    return chart


def strip_chart(title: str, groups: Mapping[str, Sequence[float]], *, width: float = 640) -> Chart:
    """A row per group: a dot per value, and a bar at the mean."""
    left, row, colour = 12 + 6.6 * max(map(len, groups)), 26, COLOURS[0]
    chart = Chart(title, width, TOP + row * len(groups) + BOTTOM, left)
    limits = _round_limits([value for values in groups.values() for value in values])
    x = chart.horizontal(limits, lambda value: f"{value:.4g}")
    for i, (name, values) in enumerate(groups.items()):
        y = TOP + row * (i + 0.5)
        chart.texts.append((left - 8, y + 4, "end", name))
        mean = x(sum(values) / len(values))
        chart.lines.append((name, f"M{mean:.1f} {y - 9:.1f}v18", colour))
        chart.dots += [Dot(x(value), y, 4, f"fill:{colour};opacity:.6") for value in values]
    return chart


def trade_off_charts(points: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Accuracy against each size of a series of architectures; undominated points are filled."""
    charts = []
    sizes = {"macs": "multiply-accumulates (millions)", "parameters": "parameters (millions)"}
    heights = [100 * point["discretised_accuracy"] for point in points]
    for size, name in sizes.items():
        chart = Chart("accuracy, supernet's weights (%)", 420, 260)
        widths = [point[size] / 1e6 for point in points]
        x = chart.horizontal(_round_limits(widths), _short)
        y = chart.vertical(_round_limits(heights), _short)
        chart.texts.append((chart.right, chart.bottom - 6, "end", name))
        places = [(x(a), y(b)) for a, b in zip(widths, heights, strict=True)]
        chart.lines.append(("the series", _path(places), COLOURS[-1]))
        for i, (place, full) in enumerate(zip(places, undominated(points), strict=True)):
            style = f"stroke:{COLOURS[0]};fill:{COLOURS[0] if full else 'var(--card)'}"
            chart.dots.append(Dot(*place, 4, style, f"{i:02d}"))
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


def _path(points: Iterable[Point | None]) -> str:
    """An SVG path with gaps at missing points."""
    commands, before = [], None
    for point in points:
        if point is not None:
            commands.append(f"{'L' if before else 'M'}{point[0]:.1f} {point[1]:.1f}")
        before = point
    return "".join(commands)


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _short(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _round_limits(values: Sequence[float]) -> tuple[float, float]:
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
