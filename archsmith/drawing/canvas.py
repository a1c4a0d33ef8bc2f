"""A pixel canvas for the pictures of every epoch."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from archsmith.drawing.boxes import LINE, Box, Point

SCALE = 2  # supersampling factor, for smooth edges
PLAIN = "#57606a"

Colour = str | tuple[int, ...]
Points = Sequence[Point]


class Canvas:
    """A white image; lengths are in pixels from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.size = (round(width), round(height))
        self._image = Image.new("RGB", (self.size[0] * SCALE, self.size[1] * SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Points, ink: Colour, width: float = LINE) -> None:
        self._draw.line(_scaled(points), fill=ink, width=round(width * SCALE), joint="curve")

    def polygon(self, points: Points, ink: Colour) -> None:
        if points:
            self._draw.polygon(_scaled(points), fill=ink)

    def tile(self, x: float, y: float, width: float, height: float, paper: Colour) -> None:
        self._draw.rectangle(_box(x, y, width, height), fill=paper)

    def card(self, box: Box, ink: Colour, paper: Colour) -> None:
        """Draws a box with rounded corners."""
        corners = _box(box.x, box.top, box.width, box.height)
        self._draw.rounded_rectangle(corners, box.radius * SCALE, paper, ink, round(1.2 * SCALE))

    def write(
        self, x: float, y: float, text: str, *, size: int = 12, color: Colour = PLAIN,
        anchor: str = "mm",
    ) -> None:  # fmt: skip
        """Draws one line of text; `anchor` is Pillow's: the point of the text that is at (x, y)."""
        place, text = (x * SCALE, y * SCALE), text.replace("\u2212", "-")  # not in the font
        self._draw.text(place, text, fill=color, font=_font(size), anchor=anchor)

    def write_slanted(self, x: float, y: float, text: str) -> None:
        """Draws text that rises by 45 degrees from its lower left end at (x, y)."""
        font = _font(12)
        side = 2 * round(font.getlength(text) + 12 * SCALE)  # the text starts in the middle
        mask = Image.new("L", (side, side))
        ImageDraw.Draw(mask).text((side / 2, side / 2), text, fill=255, font=font, anchor="lm")
        mask = mask.rotate(45, Image.Resampling.BICUBIC)
        corner = (round(x * SCALE - side / 2), round(y * SCALE - side / 2))
        self._image.paste(PLAIN, corner, mask)

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.asarray(self._image.reduce(SCALE))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(0.95 * size * SCALE)


def _scaled(points: Points) -> list[Point]:
    return [(x * SCALE, y * SCALE) for x, y in points]


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Corners of a box; Pillow includes the last pixel."""
    right, bottom = round((x + width) * SCALE) - 1, round((y + height) * SCALE) - 1
    return round(x * SCALE), round(y * SCALE), right, bottom
