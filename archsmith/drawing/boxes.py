"""Boxes, and the curves that join them, of which a drawing of a cell is made."""

from dataclasses import dataclass, field
from typing import NamedTuple

Point = tuple[float, float]

PORT = 10.0  # between two arrows into one box
TIP = 7.0  # length of an arrow's tip
LINE = 1.6  # width of a line


@dataclass
class Box:
    """A state, an operation that leads to one, or a lane; `x` is the left side, `y` the middle.

    line: the width of the curves to and from an operation. told: what shows under the pointer.
    """

    role: str  # a key of HEIGHTS
    layer: int
    text: str = ""
    caption: str = ""
    kind: str = "plain"  # a key of LIGHT
    line: float = LINE
    told: str = ""
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def radius(self) -> int:
        """Of the corners."""
        return 12 if self.role == "label" else 8


class Curve(NamedTuple):
    """From (x0, y0) to (x1, y1), horizontal at both ends; `tip`: it ends in an arrow."""

    kind: str
    x0: float
    y0: float
    x1: float
    y1: float
    tip: bool
    width: float = LINE

    @property
    def points(self) -> list[Point]:
        """Of a cubic Bézier curve up to the arrow's tip."""
        stop = self.x1 - TIP * self.tip
        half = (self.x0 + stop) / 2
        return [(self.x0, self.y0), (half, self.y0), (half, self.y1), (stop, self.y1)]

    @property
    def arrow(self) -> list[Point]:
        """The triangle of the tip."""
        x = self.x1 - TIP
        return [(self.x1, self.y1), (x, self.y1 - 3.5), (x, self.y1 + 3.5)] if self.tip else []


@dataclass
class Drawing:
    """Boxes with their positions, and the curves that join boxes of neighbouring layers."""

    boxes: list[Box] = field(default_factory=list)
    links: list[tuple[int, int, str]] = field(default_factory=list)  # from, to, kind
    width: float = 0.0
    height: float = 0.0

    def add(self, box: Box) -> int:
        self.boxes.append(box)
        return len(self.boxes) - 1

    @property
    def layers(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(1 + max(box.layer for box in self.boxes))]
        for i, box in enumerate(self.boxes):
            found[box.layer].append(i)
        return found

    def curves(self) -> list[Curve]:
        """One per link; arrows into the same box are stacked in the order of their sources."""
        found = []
        for target, end in enumerate(self.boxes):
            into = [(self.boxes[a], kind) for a, b, kind in self.links if b == target]
            into.sort(key=lambda pair: pair[0].y)
            tip = end.role in ("node", "output")
            for port, (start, kind) in enumerate(into):
                y = end.y + (PORT * (port - (len(into) - 1) / 2) if tip else 0.0)
                width = end.line if end.role == "label" else start.line
                found.append(Curve(kind, start.x + start.width, start.y, end.x, y, tip, width))
        return found
