"""Line charts as SVG that follows the reader's light or dark scheme. No script, no network."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Series = Mapping[str, Sequence[float | None]]  # name -> a value per step, None if missing

COLOURS = (
    "#4c8dd6", "#e0823d", "#4cab6b", "#c7576b", "#9a78d0", "#a8894f", "#d078b4", "#7f8790",
)  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 28.0, 24.0  # margins, in pixels
TICKS = 4


def line_chart(
    title: str,
    series: Series,
    *,
    width: int = 420,
    height: int = 220,
    percent: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """An SVG of values over epochs; a single value is drawn as a dot. `legend` makes its legend.

    Args:
        limits: of the vertical axis; None derives them from the values.
    """
    known = [v for values in series.values() for v in values if v is not None and math.isfinite(v)]
    steps = max((len(values) for values in series.values()), default=0)
    low, high = limits or _round_limits(known)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {width} {height}"><title>{escape(title)}</title>',
        f'<text class="title" x="{LEFT:g}" y="16">{escape(title)}</text>',
    ]
    right, bottom = width - RIGHT, height - BOTTOM

    def place(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (right - LEFT) * step / max(1, steps - 1)
        return x, bottom - (bottom - TOP) * (value - low) / (high - low)

    for i in range(TICKS + 1):
        value = low + (high - low) * i / TICKS
        y = place(0, value)[1]
        label = f"{100 * value:.0f}%" if percent else f"{value:.3g}"
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{right:g}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6:g}" y="{y + 4:.1f}">{label}</text>')
    for step in sorted({0, max(0, steps - 1)}):
        x = place(step, low)[0]
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}">{step + 1}</text>')
    for (name, values), colour in zip(series.items(), _colours(len(series)), strict=True):
        points = [
            None if value is None or not math.isfinite(value) else place(step, value)
            for step, value in enumerate(values)
        ]
        parts.append(_line(name, points, colour))
    return "".join([*parts, "</svg>"])


def legend(names: Sequence[str]) -> str:
    """The names with their colours, as HTML."""
    items = [
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(names, _colours(len(names)), strict=True)
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _line(name: str, points: Sequence[tuple[float, float] | None], colour: str) -> str:
    """A path with gaps at missing values, and a dot at the last value."""
    commands, before = [], None
    for point in points:
        if point is not None:
            commands.append(f"{'M' if before is None else 'L'}{point[0]:.1f} {point[1]:.1f}")
        before = point
    last = next((point for point in reversed(points) if point is not None), None)
    if last is None:
        return ""
    return (
        f'<path class="line" d="{"".join(commands)}" style="stroke:{colour}">'
        f"<title>{escape(name)}</title></path>"
        f'<circle cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="2.6" style="fill:{colour}"/>'
    )


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


def strip_chart(title: str, groups: Mapping[str, Sequence[float]], *, width: int = 640) -> str:
    """An SVG with a row per group: a dot per value, and a bar at the mean."""
    left, row = 12.0 + 6.6 * max(len(name) for name in groups), 26
    right, bottom = width - RIGHT, TOP + row * len(groups)
    low, high = _round_limits([value for values in groups.values() for value in values])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {width} {bottom + BOTTOM:g}"><title>{escape(title)}</title>',
        f'<text class="title" x="{left:.1f}" y="16">{escape(title)}</text>',
    ]

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    for i in range(TICKS + 1):
        value = low + (high - low) * i / TICKS
        parts.append(f'<path class="grid" d="M{x(value):.1f} {TOP:g}V{bottom:g}"/>')
        parts.append(
            f'<text class="tick" x="{x(value):.1f}" y="{bottom + 16:g}">{value:.4g}</text>'
        )
    for i, (name, values) in enumerate(groups.items()):
        y, colour = TOP + row * (i + 0.5), COLOURS[0]
        parts.append(f'<text class="end" x="{left - 8:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')
        mean = x(sum(values) / len(values))
        parts.append(f'<path class="line" d="M{mean:.1f} {y - 9:.1f}v18" style="stroke:{colour}"/>')
        parts += [
            f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" style="fill:{colour};opacity:.6"/>'
            for value in values
        ]
    return "".join([*parts, "</svg>"])
