"""Drawings of a cell (SVG, and pixels for TensorBoard) and of its gates (a heat map as pixels)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from archsmith.drawing.boxes import LINE, Point
from archsmith.drawing.canvas import PLAIN, Canvas
from archsmith.drawing.cell_layout import LETTER, MARGIN, arranged
from archsmith.drawing.render import render
from archsmith.drawing.shares import Gates
from search_spaces.choice import Choice, Kept

TILE = (46, 22)  # width and height of a heat map's tile
BLUES = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))

# kind -> (ink, paper), on a light and on a dark card
LIGHT = {
    "card": ("#d0d7de", "#ffffff"),
    "plain": (PLAIN, "#f6f8fa"),
    "faded": ("#6b7480", "#fbfcfd"),
    "conv": ("#1f5fbf", "#e3eefc"),
    "pool": ("#a85a00", "#fdf0dc"),
    "identity": ("#1b7a3d", "#e2f5e8"),
    "noise": ("#b3261e", "#fde8e6"),
    "op": ("#7a3fb5", "#f2e8fc"),
}
DARK = {
    "card": ("#30363d", "#0d1117"),
    "plain": ("#9aa4af", "#1b222b"),
    "faded": ("#7d8792", "#12171e"),
    "conv": ("#7ab4ff", "#12294a"),
    "pool": ("#f0b35a", "#3a2708"),
    "identity": ("#6fd394", "#0f3220"),
    "noise": ("#ff9d94", "#42130f"),
    "op": ("#cfa2ff", "#301b4a"),
}


def cell_svg(cell: Choice, kept: Kept, title: str, gates: Gates | None = None) -> str:
    """A self-contained SVG of a cell, on a card that follows the reader's light or dark scheme.

    gates: row -> option -> gate. Each operation then shows its share of its row's gates; its lines
    are the wider, the more that exceeds the largest share which the row does not keep.

    Raises ValueError if `kept` names an edge that the cell does not have.
    """
    layout = arranged(cell, kept, title, gates)
    return render(
        "cell.svg.j2", layout=layout, title=title, margin=MARGIN, line=LINE, light=LIGHT, dark=DARK
    )


def cell_image(cell: Choice, kept: Kept, title: str, gates: Gates | None = None) -> np.ndarray:
    """The drawing of `cell_svg` on a light card, as pixels (H, W, 3) uint8.

    Raises ValueError if `kept` names an edge that the cell does not have.
    """
    layout = arranged(cell, kept, title, gates)
    canvas = Canvas(layout.width, layout.height)
    canvas.write(MARGIN, MARGIN + 5, title, size=15, anchor="lm")
    for curve in layout.curves():
        ink = LIGHT[curve.kind][0]
        canvas.line(_bezier(curve.points), ink, curve.width)
        canvas.polygon(curve.arrow, ink)
    for box in layout.boxes:
        ink, paper = LIGHT[box.kind]
        if box.role == "lane":
            canvas.line([(box.x, box.y), (box.x + box.width, box.y)], ink)
            continue
        canvas.card(box, ink, paper)
        canvas.write(box.middle, box.y - (6 if box.caption else 0), box.text, color=ink)
        canvas.write(box.middle, box.y + 8, box.caption, size=10, color=ink)
    return canvas.pixels()


def _bezier(points: Sequence[Point]) -> list[Point]:
    """A cubic Bézier curve as a polyline of 24 pieces."""
    t = np.linspace(0, 1, 25)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return [(x, y) for x, y in (weights @ np.array(points)).tolist()]


def alpha_image(gates: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Gates of a group as a heat map with their values, as pixels (H, W, 3) uint8.

    gates: edge -> candidate -> value. Every image has the same colour scale, 0 to 1 by square root,
    so that epochs compare and small gates show.
    """
    names = list(dict.fromkeys(name for row in gates.values() for name in row))
    left = MARGIN + LETTER * max(map(len, gates))
    top = MARGIN + 0.72 * LETTER * max(map(len, names))
    right, bottom = left + TILE[0] * len(names), top + TILE[1] * len(gates)
    canvas = Canvas(right + max(top - TILE[0] / 2, MARGIN), bottom + MARGIN)
    for o, name in enumerate(names):
        canvas.write_slanted(left + TILE[0] * (o + 0.5), top - 8, name)
    for e, (edge, row) in enumerate(gates.items()):
        y = top + TILE[1] * e
        canvas.write(left - 8, y + TILE[1] / 2, edge, anchor="rm")
        for name, gate in row.items():
            x, shade = left + TILE[0] * names.index(name), math.sqrt(min(max(gate, 0.0), 1.0))
            canvas.tile(x, y, *TILE, _blue(shade))
            color = "white" if shade > 0.62 else "black"
            canvas.write(x + TILE[0] / 2, y + TILE[1] / 2, f"{gate:.2f}", size=11, color=color)
    return canvas.pixels()


def _blue(shade: float) -> tuple[int, ...]:
    """The colour of a shade from 0 to 1, interpolated in BLUES."""
    at, stops = shade * (len(BLUES) - 1), range(len(BLUES))
    return tuple(round(np.interp(at, stops, channel)) for channel in zip(*BLUES, strict=True))
