"""Drawings of a cell (SVG, and pixels for TensorBoard) and of its gates (a heat map as pixels)."""

import math
import re
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import ArrayLike

from archsmith.drawing.canvas import PLAIN, Canvas
from archsmith.drawing.cell_layout import LETTER, MARGIN, TIP, Box, Kept, cell_layout
from search_spaces.choice import Choice

Candidates = Sequence[str] | Sequence[Sequence[str]]  # for all edges, or one list per edge

ROUND = {"input": 8, "node": 8, "output": 8, "label": 12}
TILE = (46, 22)  # width and height of a heat map's tile
BLUES = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

# kind -> (ink, paper), on a light and on a dark card
LIGHT = {
    "card": ("#d0d7de", "#ffffff"),
    "plain": (PLAIN, "#f6f8fa"),
    "faded": ("#b6bec7", "#fbfcfd"),
    "conv": ("#1f5fbf", "#e3eefc"),
    "pool": ("#a85a00", "#fdf0dc"),
    "identity": ("#1b7a3d", "#e2f5e8"),
    "op": ("#7a3fb5", "#f2e8fc"),
}
DARK = {
    "card": ("#30363d", "#0d1117"),
    "plain": ("#9aa4af", "#1b222b"),
    "faded": ("#485059", "#12171e"),
    "conv": ("#7ab4ff", "#12294a"),
    "pool": ("#f0b35a", "#3a2708"),
    "identity": ("#6fd394", "#0f3220"),
    "op": ("#cfa2ff", "#301b4a"),
}


def cell_svg(cell: Choice, kept: Kept, title: str) -> str:
    """A self-contained SVG of a cell, on a card that follows the reader's light or dark scheme.

    Raises ValueError if `kept` names an edge that the cell does not have.
    """
    layout = cell_layout(cell, kept, title)
    w, h = round(layout.width), round(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="archsmith-cell" role="img" width="{w}" '
        f'height="{h}" viewBox="0 0 {w} {h}" style="max-width:100%;height:auto">',
        f"<title>{_text(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="box card" x="0.5" y="0.5" width="{w - 1}" height="{h - 1}" rx="12"/>',
        f'<text class="plain title" x="{MARGIN:g}" y="{MARGIN + 10:g}">{_text(title)}</text>',
    ]
    for kind, x0, y0, x1, y1, tip in layout.curves():
        stop, half = x1 - TIP * tip, (x0 + x1 - TIP * tip) / 2
        d = f"M{x0:.1f} {y0:.1f}C{half:.1f} {y0:.1f} {half:.1f} {y1:.1f} {stop:.1f} {y1:.1f}"
        parts.append(f'<path class="line {kind}" d="{d}"/>')
        if tip:
            parts.append(f'<path class="tip {kind}" d="M{x1:.1f} {y1:.1f}l{-TIP:g} -3.5v7z"/>')
    parts += [_svg_box(box) for box in layout.boxes]
    return "\n".join([*parts, "</svg>\n"])


def _svg_box(box: Box) -> str:
    if box.role == "lane":
        return f'<path class="line {box.kind}" d="M{box.x:.1f} {box.y:.1f}h{box.width:.1f}"/>'
    x, top = box.x + box.width / 2, box.y - box.height / 2
    text = box.y - 2 if box.caption else box.y + 4
    parts = [
        f'<rect class="box {box.kind} {box.role}" x="{box.x:.1f}" y="{top:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}" rx="{ROUND[box.role]}"/>',
        f'<text class="{box.kind} {box.role}" x="{x:.1f}" y="{text:.1f}">{_text(box.text)}</text>',
    ]
    if box.caption:
        caption = _text(box.caption)
        parts.append(
            f'<text class="{box.kind} caption" x="{x:.1f}" y="{box.y + 12:.1f}">{caption}</text>'
        )
    return "".join(parts)


def _style() -> str:
    def theme(colours: Mapping[str, tuple[str, str]]) -> str:
        rules = [
            f".archsmith-cell .{k}{{color:{ink};fill:{paper}}}"
            for k, (ink, paper) in colours.items()
        ]
        return "".join(rules)

    return (
        f"{theme(LIGHT)}@media(prefers-color-scheme:dark){{{theme(DARK)}}}"
        ".archsmith-cell path.line{fill:none;stroke:currentColor;stroke-width:1.6}"
        ".archsmith-cell path.tip{fill:currentColor}"
        ".archsmith-cell rect.box{stroke:currentColor;stroke-width:1.2}"
        f".archsmith-cell text[class]{{fill:currentColor;font:12px {FONT};text-anchor:middle}}"
        ".archsmith-cell text.title{font-size:15px;font-weight:600;text-anchor:start}"
        ".archsmith-cell text.caption{font-size:10px}"
        ".archsmith-cell text.node,.archsmith-cell text.input{font-weight:600}"
    )


def _text(text: str) -> str:
    """The text, escaped for XML."""
    return escape(re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def cell_image(cell: Choice, kept: Kept, title: str) -> np.ndarray:
    """The drawing of `cell_svg` on a light card, as pixels (H, W, 3) uint8.

    Raises ValueError if `kept` names an edge that the cell does not have.
    """
    layout = cell_layout(cell, kept, title)
    canvas = Canvas(layout.width, layout.height)
    canvas.write(MARGIN, MARGIN + 5, title, size=15, anchor="lm")
    for kind, x0, y0, x1, y1, tip in layout.curves():
        ink, stop = LIGHT[kind][0], x1 - TIP * tip
        half = (x0 + stop) / 2
        canvas.line(_bezier((x0, y0), (half, y0), (half, y1), (stop, y1)), ink)
        if tip:
            canvas.polygon([(x1, y1), (stop, y1 - 3.5), (stop, y1 + 3.5)], ink)
    for box in layout.boxes:
        ink, paper = LIGHT[box.kind]
        if box.role == "lane":
            canvas.line([(box.x, box.y), (box.x + box.width, box.y)], ink)
            continue
        top = box.y - box.height / 2
        canvas.card(box.x, top, box.width, box.height, ROUND[box.role], ink, paper)
        x, lift = box.x + box.width / 2, 6 if box.caption else 0
        canvas.write(x, box.y - lift, box.text, color=ink)
        canvas.write(x, box.y + 8, box.caption, size=10, color=ink)
    return canvas.pixels()


def _bezier(*points: tuple[float, float]) -> list[tuple[float, float]]:
    """A cubic Bézier curve as a polyline of 24 pieces."""
    t = np.linspace(0, 1, 25)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return [(x, y) for x, y in (weights @ np.array(points)).tolist()]


def alpha_image(gates: ArrayLike, edge_names: Sequence[str], candidates: Candidates) -> np.ndarray:
    """Gates (E, O) of a group as a heat map with their values, as pixels (H, W, 3) uint8.

    `candidates` are the O names, or one list per edge. Every image has the same colour scale, 0 to
    1 by square root, so that epochs compare and small gates show. Raises ValueError if sizes
    disagree.
    """
    table, names = _table(np.asarray(gates, dtype=float), edge_names, candidates)
    left = MARGIN + LETTER * max(len(edge) for edge in edge_names)
    top = MARGIN + 0.72 * LETTER * max(len(name) for name in names)
    right, bottom = left + TILE[0] * len(names), top + TILE[1] * len(edge_names)
    canvas = Canvas(right + max(top - TILE[0] / 2, MARGIN), bottom + MARGIN)
    for o, name in enumerate(names):
        canvas.write_slanted(left + TILE[0] * (o + 0.5), top - 8, name)
    for e, edge in enumerate(edge_names):
        y = top + TILE[1] * e
        canvas.write(left - 8, y + TILE[1] / 2, edge, anchor="rm")
        for o in np.flatnonzero(~np.isnan(table[e])).tolist():
            x, shade = left + TILE[0] * o, math.sqrt(min(max(table[e, o], 0.0), 1.0))
            canvas.tile(x, y, *TILE, _blue(shade))
            color = "white" if shade > 0.62 else "black"
            middle = x + TILE[0] / 2, y + TILE[1] / 2
            canvas.write(*middle, f"{table[e, o]:.2f}", size=11, color=color)
    return canvas.pixels()


def _blue(shade: float) -> tuple[int, ...]:
    """The colour of a shade from 0 to 1, interpolated in BLUES."""
    at = shade * (len(BLUES) - 1)
    low = min(int(at), len(BLUES) - 2)
    rows = np.array(BLUES[low : low + 2])
    return tuple(int(c) for c in np.rint(rows[0] + (at - low) * (rows[1] - rows[0])))


def _table(
    gates: np.ndarray, edge_names: Sequence[str], candidates: Candidates
) -> tuple[np.ndarray, list[str]]:
    """Gates with a column per candidate of any edge, NaN for edges without it; and names."""
    shared = all(isinstance(name, str) for name in candidates)
    lists = [candidates] * len(edge_names) if shared else candidates
    rows = [[str(name) for name in row] for row in lists]
    shape = (len(edge_names), max((len(row) for row in rows), default=0))
    if len(rows) != len(edge_names) or gates.shape != shape or 0 in shape:
        raise ValueError(
            f"drawing: found gates of shape {gates.shape}, expected {shape} for {len(edge_names)} "
            f"edges and {len(rows)} lists of candidates; give one list, or one an edge"
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = np.full((len(rows), len(names)), np.nan)
    for e, row in enumerate(rows):
        table[e, [names.index(name) for name in row]] = gates[e, : len(row)]
    return table, names
