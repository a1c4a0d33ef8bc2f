"""The geometry of charts, which `charts.j2` draws as SVG; lengths are in pixels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

COLOURS = (
    "#4c8dd6", "#e0823d", "#4cab6b", "#c7576b", "#9a78d0", "#a8894f", "#d078b4", "#7f8790",
)  # fmt: skip
TICKS = 4

Point = tuple[float, float]


class Axis(NamedTuple):
    """Maps values within limits to lengths from `start` to `end`."""

    limits: tuple[float, float]
    start: float
    end: float
    form: str = ".3g"  # of the labels

    def __call__(self, value: float) -> float:
        low, high = self.limits
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        low, high = self.limits
        values = [low + (high - low) * i / TICKS for i in range(TICKS + 1)]
        return [(self(value), format(value, self.form)) for value in values]


def placed(x: Axis, y: Axis, values: Sequence[float | None]) -> list[Point | None]:
    """Where the values of a series are; None for one that is missing or not finite."""
    return [
        (x(i), y(v)) if v is not None and math.isfinite(v) else None for i, v in enumerate(values)
    ]


def path(points: Iterable[Point | None]) -> str:
    """An SVG path with gaps at missing points."""
    commands, before = [], None
    for point in points:
        if point is not None:
            commands.append(f"{'L' if before else 'M'}{point[0]:.1f} {point[1]:.1f}")
        before = point
    return "".join(commands)


def round_limits(values: Iterable[float | None]) -> tuple[float, float]:
    """Limits that include all values, at multiples of a round step."""
    known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / TICKS))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if TICKS * m * step >= high - low)
    low = math.floor(low / step) * step
    return low, max(low + TICKS * step, math.ceil(high / step) * step)


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
