"""The positions of boxes and curves in the drawing of a cell.

A cell is laid out in layers, as by Sugiyama et al. 1981 (doi:10.1109/TSMC.1981.4308636): states are
in even layers by longest path, operations in the layer before their target; a link over several
layers gets a lane in each. Curves stay in the gaps between layers and never cross a box.
"""

from itertools import accumulate, pairwise

from archsmith.drawing.boxes import PORT, Box, Drawing
from archsmith.drawing.shares import Gates, Share, shares
from search_spaces.choice import Choice, Kept, Option

MARGIN, TITLE_HEIGHT, GAP = 22.0, 36.0, 26.0  # all lengths are in pixels
LETTER = 7.3  # width of a letter in the 12 pixel monospaced font
HEIGHTS = {"input": 40.0, "node": 36.0, "output": 36.0, "label": 24.0, "lane": 8.0}
CAPTION = 12.0  # what a caption adds to a label's height
SWEEPS = 24
STILL = 0.01  # a smaller move in a sweep cannot be seen
STIFFNESS = {True: 12.0, False: 1.0}  # link between lanes (True) or other link


def arranged(cell: Choice, kept: Kept, title: str = "", gates: Gates | None = None) -> Drawing:
    """The layout of a cell; with gates, each operation has its share of its row's.

    Raises ValueError if `kept` names an edge that does not exist.
    """
    known = [row.name for row in cell.rows]
    for name in kept:
        if name not in known:
            raise ValueError(
                f"drawing: found edge '{name}', expected one of {', '.join(known)}; "
                "give the cell of the space that the architecture was found in"
            )
    graph, shown = cell.drawn(kept)
    layout = _connect(graph, shown, gates or {} if graph is cell else {})
    layers = _order(layout)
    _place_rows(layout, layers)
    _place_columns(layout, layers)
    letters = len(title) + 5  # with room for a count of layers
    layout.width = max(layout.width, 2 * MARGIN + 1.3 * LETTER * letters)
    return layout


def _connect(cell: Choice, kept: Kept, gates: Gates) -> Drawing:
    """Boxes and links of a cell, without positions."""
    wires = [
        (row, option)
        for row in cell.rows
        for option in row.options
        if option.name in kept.get(row.name, ()) and option.kind != "zero"
    ]
    column = [0] * cell.inputs
    for node in cell.targets:
        before = [column[row.source] for row, _ in wires if row.target == node]
        column.append(1 + max(before, default=0))
    entered = {*range(cell.inputs), *(row.target for row, _ in wires)}
    last = 2 * max(column) + 1
    layout = Drawing()
    at: dict[tuple[int, int], int] = {}  # (state, layer) -> the state, or its lane in that layer
    for state, first in enumerate(2 * c for c in column):
        kind = "plain" if state in entered else "faded"
        role = "input" if state < cell.inputs else "node"
        caption = f"cell k\u2212{cell.inputs - state}" if role == "input" else ""
        at[state, first] = layout.add(Box(role, first, str(state), caption, kind))
        leaves = [2 * column[row.target] - 2 for row, _ in wires if row.source == state]
        leaves += [last - 1] if state in cell.outputs else []
        for layer in range(first + 1, max(leaves, default=0) + 1):
            at[state, layer] = layout.add(Box("lane", layer, kind=kind))
            layout.links.append((at[state, layer - 1], at[state, layer], kind))
    for row, option in wires:
        layer = 2 * column[row.target] - 1
        found = shares(gates.get(row.name, {}), kept[row.name])
        label = layout.add(_label(row.name, option, layer, found.get(option.name)))
        layout.links.append((at[row.source, layer - 1], label, option.kind))
        layout.links.append((label, at[row.target, layer + 1], option.kind))
    end = layout.add(Box("output", last, "concat" if len(cell.outputs) > 1 else "output"))
    ends = [at[j, last - 1] for j in cell.outputs]
    layout.links += [(j, end, layout.boxes[j].kind) for j in ends]
    _grow(layout.boxes, layout.links)
    return layout


def _label(row: str, option: Option, layer: int, share: Share | None) -> Box:
    if share is None:
        return Box("label", layer, option.name, kind=option.kind, told=f"{option.name} on {row}")
    caption, told = f"{100 * share.share:.0f}%", f"{option.name} on {row}: {share.told}"
    return Box("label", layer, option.name, caption, option.kind, share.line, told)


def _grow(boxes: list[Box], links: list[tuple[int, int, str]]) -> None:
    """Sets the heights, with room for every arrow into a box."""
    for i, box in enumerate(boxes):
        arrows = sum(b == i for _, b, _ in links) if box.role in ("node", "output") else 0
        least = HEIGHTS[box.role] + CAPTION * (box.role == "label" and bool(box.caption))
        box.height = max(least, PORT * (arrows + 1) * (arrows > 0))


def _order(layout: Drawing) -> list[list[int]]:
    """Each layer's boxes from top to bottom, with few crossings; inputs keep their order."""
    layers = layout.layers
    best, fewest = layers, _crossings(layout, layers)
    near = _neighbours(layout)
    for sweep in range(SWEEPS):
        layers = [list(layer) for layer in layers]
        forward = sweep % 2 == 1
        for k in range(1, len(layers)) if forward else range(len(layers) - 2, 0, -1):
            beside = layers[k - 1 if forward else k + 1]
            rank = {i: float(place) for place, i in enumerate(beside)}
            where = {}
            for place, i in enumerate(layers[k]):
                ranks = [rank[j] for j in near[i] if j in rank]
                where[i] = sum(ranks) / len(ranks) if ranks else float(place)
            layers[k].sort(key=where.__getitem__)
        crossings = _crossings(layout, layers)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _neighbours(layout: Drawing) -> list[list[int]]:
    near: list[list[int]] = [[] for _ in layout.boxes]
    for a, b, _ in layout.links:
        near[a].append(b)
        near[b].append(a)
    return near


def _crossings(layout: Drawing, layers: list[list[int]]) -> int:
    place = {i: p for layer in layers for p, i in enumerate(layer)}
    gaps: list[list[tuple[int, int]]] = [[] for _ in layers]
    for a, b, _ in layout.links:
        gaps[layout.boxes[a].layer].append((place[a], place[b]))
    return sum(
        (a - c) * (b - d) < 0 for ends in gaps for i, (a, b) in enumerate(ends) for c, d in ends[:i]
    )


def _place_rows(layout: Drawing, layers: list[list[int]]) -> None:
    """Moves every box as close to its linked boxes as its layer allows; lanes are straight."""
    boxes, near = layout.boxes, _neighbours(layout)
    springs = [
        [(boxes[j], STIFFNESS[_lanes(box, boxes[j])]) for j in near[i]] or [(box, 1e-3)]
        for i, box in enumerate(boxes)
    ]
    filled = [layer for layer in layers if layer]
    for sweep in range(4 * SWEEPS):
        before = [box.y for box in boxes]
        for layer in filled[:: 1 if sweep % 2 else -1]:
            _settle([boxes[i] for i in layer], [springs[i] for i in layer])
        if sweep and all(abs(box.y - y) < STILL for box, y in zip(boxes, before, strict=True)):
            break
    _straighten(layout, layers)
    top = min(box.y - box.height / 2 for box in boxes)
    for box in boxes:
        box.y += MARGIN + TITLE_HEIGHT - top
    layout.height = max(box.y + box.height / 2 for box in boxes) + MARGIN


def _straighten(layout: Drawing, layers: list[list[int]]) -> None:
    """Aligns every lane with its continuation as far as its layer allows, from right to left."""
    boxes = layout.boxes
    after = {a: boxes[b] for a, b, _ in layout.links if _lanes(boxes[a], boxes[b])}
    for layer in layers[::-1]:
        for place, i in enumerate(layer):
            if i in after:
                above = [boxes[j].y + _apart(boxes[i], boxes[j]) for j in layer[:place][-1:]]
                below = [boxes[j].y - _apart(boxes[i], boxes[j]) for j in layer[place + 1 :][:1]]
                boxes[i].y = min([max([after[i].y, *above]), *below])


def _lanes(a: Box, b: Box) -> bool:
    return a.role == b.role == "lane"


def _apart(a: Box, b: Box) -> float:
    """The smallest distance between the middles of two neighbours in a layer."""
    return (a.height + b.height) / 2 + 12


def _settle(layer: list[Box], springs: list[list[tuple[Box, float]]]) -> None:
    """Moves a layer's boxes to the least-squares positions between their springs, the boxes apart:
    pool adjacent violators."""
    offsets = list(accumulate((_apart(a, b) for a, b in pairwise(layer)), initial=0.0))
    pools: list[tuple[float, float, int]] = []  # mean, weight, size
    for pull, offset in zip(springs, offsets, strict=True):
        weight = sum(force for _, force in pull)
        y = sum(other.y * force for other, force in pull) / weight
        pools.append((y - offset, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (y1, w1, n1), (y2, w2, n2) = pools[-2:]
            pools[-2:] = [((y1 * w1 + y2 * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    means = (mean for mean, _, size in pools for _ in range(size))
    for box, mean, offset in zip(layer, means, offsets, strict=True):
        box.y = mean + offset


def _place_columns(layout: Drawing, layers: list[list[int]]) -> None:
    """Places layers left to right, their boxes equally wide; steep curves get wider gaps."""
    x = MARGIN
    for k, layer in enumerate(layers):
        boxes = [layout.boxes[i] for i in layer]
        letters = max((len(text) for box in boxes for text in (box.text, box.caption)), default=0)
        width = max(36.0, LETTER * letters + 18) if letters else 0.0
        for box in boxes:
            box.x, box.width = x, width
        links = [(layout.boxes[a], layout.boxes[b]) for a, b, _ in layout.links]
        rise = max((abs(a.y - b.y) for a, b in links if a.layer == k), default=0.0)
        x += width + GAP + min(0.2 * rise, 50.0)
    layout.width = x - GAP + MARGIN
