"""Pictures of every epoch for loggers: a cell, and the gates of a choice as a heat map; as pixels,
two to a unit of length, so that they stay sharp when they are enlarged."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from archsmith.drawing.boxes import LINE, Point
from archsmith.drawing.cell_layout import LETTER, MARGIN, arranged
from archsmith.drawing.cells import LIGHT
from archsmith.drawing.shares import Gates
from search_spaces.choice import Choice, Kept

DENSITY = 2  # pixels per unit
TILE = (46, 24)  # width and height of a heat map's tile
BLUES = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
INK, CHOSEN = "#24292f", "#e8590c"
TITLE = 15  # size of a title; other text has 12

Colour = str | tuple[int, ...]


class Picture:
    """A white picture with a title; lengths from the upper left corner.

    smooth: points drawn per pixel in each direction, above 1 for lines that are not straight.
    """

    def __init__(self, width: float, height: float, title: str, *, smooth: int):
        self.smooth, self.scale = smooth, DENSITY * smooth
        width = max(width, 2 * MARGIN + self._font(TITLE).getlength(title) / self.scale)
        size = round(width) * self.scale, round(height) * self.scale
        self._image = Image.new("RGB", size, "white")
        self._draw = ImageDraw.Draw(self._image)
        self.write(MARGIN, MARGIN + 5, title, size=TITLE, anchor="lm")

    def line(self, points: Sequence[Point], ink: Colour, width: float = LINE) -> None:
        pixels = max(1, round(width * self.scale))
        self._draw.line(self._scaled(points), fill=ink, width=pixels, joint="curve")

    def polygon(self, points: Sequence[Point], ink: Colour) -> None:
        if points:
            self._draw.polygon(self._scaled(points), fill=ink)

    def box(
        self, x: float, y: float, width: float, height: float, paper: Colour | None,
        *, ink: Colour | None = None, radius: float = 0,
    ) -> None:  # fmt: skip
        """A rectangle from its upper left corner."""
        (left, top), (right, bottom) = self._scaled([(x, y), (x + width, y + height)])
        corners = round(left), round(top), round(right) - 1, round(bottom) - 1
        line = round(1.5 * self.scale)
        self._draw.rounded_rectangle(corners, radius * self.scale, paper, ink, line)

    def write(
        self, x: float, y: float, text: str, *, size: int = 12, ink: Colour = INK,
        anchor: str = "mm",
    ) -> None:  # fmt: skip
        """One line of text; `anchor` is Pillow's: the point of the text that is at (x, y)."""
        (place,), text = self._scaled([(x, y)]), text.replace("\u2212", "-")  # not in the font
        self._draw.text(place, text, fill=ink, font=self._font(size), anchor=anchor)

    def write_slanted(self, x: float, y: float, text: str) -> None:
        """Text that rises by 45 degrees from its lower left end at (x, y)."""
        font = self._font(12)
        half = round(font.getlength(text) + 12 * self.scale)  # the text starts in the middle
        mask = Image.new("L", (2 * half, 2 * half))
        ImageDraw.Draw(mask).text((half, half), text, fill=255, font=font, anchor="lm")
        mask = mask.rotate(45, Image.Resampling.BICUBIC)
        self._image.paste(INK, (round(x * self.scale) - half, round(y * self.scale) - half), mask)

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.asarray(self._image.reduce(self.smooth))

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def _font(self, size: int) -> Any:
        return _font(size * self.scale)


def cell_picture(cell: Choice, kept: Kept, title: str, gates: Gates | None = None) -> np.ndarray:
    """The drawing of `archsmith.drawing.cells.cell_svg`, as pixels (H, W, 3) uint8.

    Raises ValueError if `kept` names an edge that the cell does not have.
    """
    layout = arranged(cell, kept, title, gates)
    picture = Picture(layout.width, layout.height, title, smooth=2)
    for curve in layout.curves():
        ink = LIGHT[curve.kind][0]
        picture.line(_bezier(curve.points), ink, curve.width)
        picture.polygon(curve.arrow, ink)
    for box in layout.boxes:
        ink, paper = LIGHT[box.kind]
        if box.role == "lane":
            picture.line([(box.x, box.y), (box.x + box.width, box.y)], ink)
            continue
        picture.box(box.x, box.top, box.width, box.height, paper, ink=ink, radius=box.radius)
        picture.write(box.middle, box.y - (6 if box.caption else 0), box.text, ink=ink)
        picture.write(box.middle, box.y + 8, box.caption, size=10, ink=ink)
    return picture.pixels()


def gates_picture(
    gates: Mapping[str, Mapping[str, float]], kept: Mapping[str, Collection[str]], title: str
) -> np.ndarray:
    """The gates of a choice as a heat map with their values, as pixels (H, W, 3) uint8; what the
    architecture keeps is outlined.

    gates: row -> option -> value; kept: row -> options. The colours are those of 0 to 1 by square
    root in every picture, so that epochs compare and small gates show.
    """
    names = list(dict.fromkeys(name for row in gates.values() for name in row))
    left = MARGIN + LETTER * max(map(len, gates))
    above = 0.72 * LETTER * max(map(len, names))
    top = 2 * MARGIN + above
    right, bottom = left + TILE[0] * len(names), top + TILE[1] * len(gates)
    width = right + max(above - TILE[0] / 2, MARGIN)
    picture = Picture(width, bottom + MARGIN, title, smooth=1)
    for o, name in enumerate(names):
        picture.write_slanted(left + TILE[0] * (o + 0.5), top - 8, name)
    for e, (edge, row) in enumerate(gates.items()):
        y = top + TILE[1] * e
        picture.write(left - 8, y + TILE[1] / 2, edge, anchor="rm")
        for name, gate in row.items():
            x, shade = left + TILE[0] * names.index(name), math.sqrt(min(max(gate, 0.0), 1.0))
            line = CHOSEN if name in kept.get(edge, ()) else None
            picture.box(x, y, *TILE, _blue(shade), ink=line)
            ink = "white" if shade > 0.62 else INK
            picture.write(x + TILE[0] / 2, y + TILE[1] / 2, f"{gate:.2f}", ink=ink)
    return picture.pixels()


def _bezier(points: Sequence[Point]) -> list[Point]:
    """A cubic Bézier curve as a polyline of 24 pieces."""
    t = np.linspace(0, 1, 25)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return [(x, y) for x, y in (weights @ np.array(points)).tolist()]


def _blue(shade: float) -> tuple[int, ...]:
    """The colour of a shade from 0 to 1, interpolated in BLUES."""
    at, stops = shade * (len(BLUES) - 1), range(len(BLUES))
    return tuple(round(np.interp(at, stops, channel)) for channel in zip(*BLUES, strict=True))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
