"""Drawings of a cell (SVG, and pixels for TensorBoard) and of its gates (a heat map).

A cell is laid out in layers, as by Sugiyama et al. 1981 (doi:10.1109/TSMC.1981.4308636): states stand at
even layers by longest path, labels of operations right before their target, and an edge that passes a layer
has a lane of its own in it. Curves cross only the gaps between layers, so none ever runs over a box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from search_spaces.space import Cell

MARGIN, TITLE_HEIGHT = 22.0, 34.0
LETTER = 7.3  # width of one letter of a 12 px monospaced font
PORT = 10.0  # between two arrows into one box
HEIGHTS = {"input": 40.0, "node": 36.0, "output": 36.0, "label": 24.0, "lane": 0.0}
SWEEPS = 24


@dataclass
class Box:
    """A state, the label of an operation on its way to a state, or the lane of an edge that passes by.

    `x` is the left side, `y` the middle, both in pixels.
    """

    role: str  # a key of HEIGHTS
    layer: int
    text: str = ""
    caption: str = ""
    kind: str = "plain"  # a key of COLOURS
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


class Link(NamedTuple):
    """Positions of two boxes in neighbouring layers that a curve joins."""

    start: int
    end: int
    kind: str


@dataclass
class Layout:
    """Boxes with their places, and the curves between them, in pixels from the upper left corner."""

    boxes: list[Box]
    links: list[Link]
    width: float = 0.0
    height: float = 0.0

    def curves(self) -> list[tuple[str, tuple[float, float, float, float], bool]]:
        """(kind, (x0, y0, x1, y1), whether it ends in an arrow) of every curve; it is level at both ends."""
        found = []
        for target in range(len(self.boxes)):
            into = sorted(
                (x for x in self.links if x.end == target), key=lambda x: self.boxes[x.start].y
            )
            for port, link in enumerate(into):
                start, end = self.boxes[link.start], self.boxes[target]
                tip = end.role in ("node", "output")
                y = end.y + (PORT * (port - (len(into) - 1) / 2) if tip else 0)
                found.append((link.kind, (start.x + start.width, start.y, end.x, y), tip))
        return found


def cell_layout(cell: Cell, kept: Mapping[str, tuple[str, ...]]) -> Layout:
    """Where everything of a cell stands. Raises ValueError where `kept` names an edge the cell has not."""
    unknown = sorted(set(kept) - {edge.name for edge in cell.edges})
    if unknown:
        known = ", ".join(edge.name for edge in cell.edges)
        raise ValueError(f"drawing: the cell has no edge '{unknown[0]}', expected one of {known}")
    layout = _connect(cell, kept)
    layers = _order(layout)
    _place_rows(layout, layers)
    _place_columns(layout, layers)
    return layout


def kind_of(operation: str) -> str:
    """The kind of an operation, by its name: `conv`, `pool`, `skip` or `other`."""
    return next((kind for kind in ("conv", "pool", "skip") if kind in operation), "other")


def _connect(cell: Cell, kept: Mapping[str, tuple[str, ...]]) -> Layout:
    """Boxes and links, without places."""
    wires = [
        (edge.source, edge.target, name)
        for edge in cell.edges
        for name in kept.get(edge.name, ())
        if name != "none"
    ]
    column = [0] * cell.inputs
    for node in cell.targets:
        column.append(
            1 + max((column[source] for source, target, _ in wires if target == node), default=0)
        )
    reached = {target for _, target, _ in wires} | set(range(cell.inputs))
    outputs = list(cell.targets) if cell.output == "concat" else [cell.targets[-1]]
    last = 2 * max(column) + 1
    until = [
        max(
            [2 * column[target] - 2 for source, target, _ in wires if source == state]
            + [last - 1] * (state in outputs),
            default=0,
        )
        for state in range(len(column))
    ]
    boxes: list[Box] = []
    links: list[Link] = []
    at: dict[tuple[int, int], int] = {}  # (state, layer) -> its box, or its lane

    def add(box: Box) -> int:
        boxes.append(box)
        return len(boxes) - 1

    for state in range(len(column)):
        first, kind = 2 * column[state], "plain" if state in reached else "faded"
        role = "input" if state < cell.inputs else "node"
        caption = f"cell k\u2212{cell.inputs - state}" if role == "input" else ""
        at[state, first] = add(Box(role, first, str(state), caption, kind))
        for layer in range(first + 1, until[state] + 1):
            at[state, layer] = add(Box("lane", layer, kind=kind))
            links.append(Link(at[state, layer - 1], at[state, layer], kind))
    for source, target, name in wires:
        layer = 2 * column[target] - 1
        label = add(Box("label", layer, name, kind=kind_of(name)))
        links.append(Link(at[source, layer - 1], label, "plain"))
        links.append(Link(label, at[target, layer + 1], kind_of(name)))
    end = add(Box("output", last, "concat" if cell.output == "concat" else "output"))
    links += [Link(at[s, last - 1], end, "plain" if s in reached else "faded") for s in outputs]
    for i, box in enumerate(boxes):
        ports = sum(link.end == i for link in links)
        box.height = max(HEIGHTS[box.role], PORT * (ports + 1) * (box.role in ("node", "output")))
    return Layout(boxes, links)


def _order(layout: Layout) -> list[list[int]]:
    """The boxes of each layer from top to bottom, with few crossings; inputs keep their order."""
    layers: list[list[int]] = [[] for _ in range(1 + max(box.layer for box in layout.boxes))]
    for i, box in enumerate(layout.boxes):
        layers[box.layer].append(i)
    best, fewest = layers, _crossings(layout, layers)
    for sweep in range(SWEEPS):
        layers = [list(layer) for layer in layers]
        forward = sweep % 2 == 0
        for k in range(1, len(layers)) if forward else range(len(layers) - 2, 0, -1):
            near = {i: p for p, i in enumerate(layers[k - 1 if forward else k + 1])}
            where = {i: float(p) for p, i in enumerate(layers[k])}
            for i in layers[k]:
                found = [
                    near[j] for a, b, _ in layout.links for j in (a, b) if i in (a, b) and j in near
                ]
                if found:
                    where[i] = sum(found) / len(found)
            layers[k].sort(key=where.__getitem__)
        crossings = _crossings(layout, layers)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _crossings(layout: Layout, layers: list[list[int]]) -> int:
    place = {i: p for layer in layers for p, i in enumerate(layer)}
    total = 0
    for k in range(len(layers) - 1):
        ends = [(place[a], place[b]) for a, b, _ in layout.links if layout.boxes[a].layer == k]
        total += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[:i])
    return total


def _place_rows(layout: Layout, layers: list[list[int]]) -> None:
    """Every box as near as its layer allows to the boxes it is joined to, lanes above all straight."""
    boxes = layout.boxes
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 else layers[::-1]:
            wanted, weights = [], []
            for i in layer:
                pull = [(boxes[i].y, 1e-3)]
                for a, b, _ in layout.links:
                    if i in (a, b):
                        straight = boxes[a].role == "lane" or boxes[b].role == "lane"
                        pull.append((boxes[b if i == a else a].y, 4.0 if straight else 1.0))
                weights.append(sum(weight for _, weight in pull))
                wanted.append(sum(y * weight for y, weight in pull) / weights[-1])
            gaps = [(boxes[i].height + boxes[j].height) / 2 + 12 for i, j in pairwise(layer)]
            for i, y in zip(layer, _spread(wanted, gaps, weights), strict=True):
                boxes[i].y = y
    top = min(box.y - box.height / 2 for box in boxes)
    for box in boxes:
        box.y += MARGIN + TITLE_HEIGHT - top
    layout.height = max(box.y + box.height / 2 for box in boxes) + MARGIN


def _spread(wanted: list[float], gaps: list[float], weights: list[float]) -> list[float]:
    """The places nearest to `wanted` (least squares) at least `gaps` apart: pool adjacent violators."""
    offsets = np.concatenate([[0.0], np.cumsum(gaps)])
    pools: list[list[float]] = []  # mean, weight, size
    for y, weight in zip(np.subtract(wanted, offsets), weights, strict=True):
        pools.append([float(y), weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (y1, w1, n1), (y2, w2, n2) = pools[-2:]
            pools[-2:] = [[(y1 * w1 + y2 * w2) / (w1 + w2), w1 + w2, n1 + n2]]
    means = [mean for mean, _, size in pools for _ in range(int(size))]
    return [float(y) for y in means + offsets]


def _place_columns(layout: Layout, layers: list[list[int]]) -> None:
    """Layers from left to right; all boxes of one are as wide as its widest, steep gaps are wider."""
    x = MARGIN
    for k, layer in enumerate(layers):
        boxes = [layout.boxes[i] for i in layer]
        letters = max(max(len(box.text), len(box.caption)) for box in boxes)
        width = max(36.0, LETTER * letters + 18) if letters else 0.0
        for box in boxes:
            box.x, box.width = x, width
        rises = [
            abs(layout.boxes[a].y - layout.boxes[b].y)
            for a, b, _ in layout.links
            if layout.boxes[a].layer == k
        ]
        x += width + 26 + min(0.12 * max(rises, default=0.0), 40)
    layout.width = x - 26 + MARGIN


# (ink, paper) of each kind, on a light and on a dark card
LIGHT = {
    "card": ("#d0d7de", "#ffffff"),
    "title": ("#1f2328", "none"),
    "plain": ("#57606a", "#f6f8fa"),
    "faded": ("#b6bec7", "#fbfcfd"),
    "conv": ("#1f5fbf", "#e3eefc"),
    "pool": ("#a85a00", "#fdf0dc"),
    "skip": ("#1b7a3d", "#e2f5e8"),
    "other": ("#7a3fb5", "#f2e8fc"),
}
DARK = {
    "card": ("#30363d", "#0d1117"),
    "title": ("#e6edf3", "none"),
    "plain": ("#9aa4af", "#1b222b"),
    "faded": ("#485059", "#12171e"),
    "conv": ("#7ab4ff", "#12294a"),
    "pool": ("#f0b35a", "#3a2708"),
    "skip": ("#6fd394", "#0f3220"),
    "other": ("#cfa2ff", "#301b4a"),
}


def cell_svg(cell: Cell, kept: Mapping[str, tuple[str, ...]], title: str) -> str:
    pass
