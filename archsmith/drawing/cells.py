"""Drawings of a cell as SVG."""

from archsmith.drawing.boxes import LINE
from archsmith.drawing.cell_layout import MARGIN, arranged
from archsmith.drawing.render import render
from archsmith.drawing.shares import Gates
from search_spaces.choice import Choice, Kept

# kind -> (ink, paper), on a light and on a dark card
LIGHT = {
    "card": ("#d0d7de", "#ffffff"),
    "plain": ("#57606a", "#f6f8fa"),
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
