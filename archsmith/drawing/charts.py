"""The geometry of charts, which `charts.j2` draws as SVG; lengths are in pixels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

COLOURS = (
    "#4c8dd6", "#e0823d", "#4cab6b", "#c7576b", "#9a78d0", "#a8894f", "#d078b4", "#7f8790",
    "#2fa3a8", "#b8a21f", "#6d6fd8", "#8fb03a", "#b0613a", "#5aa9c9", "#b35fd0", "#6f9482",
)  # fmt: skip
TICKS = 4

Point = tuple[float, float]


# format of labels -> longer ones, which are taken where it would round them
LONGER = {".0%": (".1%", ".2%"), ".3g": (".4g", ".5g", ".6g")}


def _value(label: str) -> float:
    return float(label.rstrip("%").replace(",", "")) / (100 if label.endswith("%") else 1)


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
        """Places and labels, which are as long as it takes to tell them exactly, if possible."""
        low, high = self.limits
        values = [low + (high - low) * i / TICKS for i in range(TICKS + 1)]
        for form in (self.form, *LONGER.get(self.form, ())):
            labels = [format(value, form) for value in values]
            read = [_value(label) for label in labels]
            if all(abs(a - b) < 1e-6 * (high - low) for a, b in zip(read, values, strict=True)):
                break
        return [(self(value), label) for value, label in zip(values, labels, strict=True)]


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


def round_step(least: float, *, whole: bool = False) -> float:
    """The smallest round number that is at least `least`; an integer if `whole`."""
    power = 10 ** math.floor(math.log10(max(least, 1.0) if whole else least))
    steps = (m * power for m in (1, 2, 2.5, 5, 10))
    return next(step for step in steps if step >= least and (not whole or step % 1 == 0))


def round_limits(
    values: Iterable[float | None], *, whole: bool = False, most: float | None = None
) -> tuple[float, float]:
    """Limits that include all values, at multiples of a round step, the upper one at most `most`.

    whole: the values are counts; all ticks are integers, from 0 on.
    """
    known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if whole:
        low = min(low, 0.0)
    elif low == high:
        low, high = low - 0.5, high + 0.5
    step = round_step((high - low) / TICKS, whole=whole)
    low = math.floor(low / step) * step
    top = max(low + TICKS * step, math.ceil(high / step) * step)
    return low, top if most is None else min(top, max(most, high))


def ticks_from_one(count: int) -> list[int]:
    """About five of the numbers from 1 to `count`, both ends among them, at a round distance."""
    if count < 2:
        return [1] * count
    step = round(round_step((count - 1) / TICKS, whole=True))
    between = range(step, count, step)
    return [1, *(k for k in between if k > 1 and 2 * min(k - 1, count - k) >= step), count]


def readings(series: Mapping[str, Sequence[float | None]], form: str) -> list[str]:
    """Per step, what all series have there: a line with name and value for each."""
    steps = max(map(len, series.values()), default=0)
    return [
        "\n".join(
            f"{name} {format(values[i], form)}"
            for name, values in series.items()
            if i < len(values) and values[i] is not None
        )
        for i in range(steps)
    ]


class Pane(NamedTuple):
    """A part of a chart from `start` on, of a step that counts from 1, with what is told there."""

    step: int
    start: float
    width: float
    told: str


def panes(x: Axis, told: Sequence[str]) -> list[Pane]:
    """A pane around every step, or every few where they would be narrower than 4 pixels; those with
    nothing to tell are left out."""
    apart = x(1) - x(0)
    every = max(1, math.ceil(4 / apart))
    found = []
    for step in range(0, len(told), every):
        start = max(x.start, x(step) - every * apart / 2)
        end = min(x.end, x(step) + every * apart / 2)
        found.append(Pane(step + 1, start, end - start, told[step]))
    return [pane for pane in found if pane.told]


def inks(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in their order; after the last colour they start again."""
    return dict(zip(names, cycle(COLOURS), strict=False))


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
