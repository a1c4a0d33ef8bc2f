"""The drawings of the found cells with the gates that they were chosen by."""

import json
import re
from collections.abc import Collection, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from archsmith.drawing.shares import Share, shares
from archsmith.result.report.gates import Table, gates_of

# what may differ in two drawings of equal cells: the title, and what the gates say
OWN = re.compile(
    r'<title>.*?</title>|<text class="[^"]*(?:title|share)".*?</text>| style="stroke-width[^"]*"'
)
MOST = 24  # columns of a heat map that have names


class Tile(NamedTuple):
    """An option of a row in a heat map."""

    share: Share
    kept: bool
    told: str


class HeatMap(NamedTuple):
    """The shares of a choice's gates. names: the columns; empty where every row has its own
    options. rows: a tile per column, None where the row lacks the option."""

    choice: str
    names: list[str]
    rows: dict[str, list[Tile | None]]


class DrawnCell(NamedTuple):
    """A drawing, and the heat maps of all choices that it shows."""

    svg: str
    width: int  # pixels
    choices: list[str]
    maps: list[HeatMap]


def found_cells(folder: Path, repeats: Mapping[str, int]) -> tuple[list[DrawnCell], int | None]:
    """The drawings of a run, equal ones once, and the epoch of the gates, which counts from 0.

    repeats: choice -> in how many layers it stands.
    """
    path = folder / "architecture.json"
    architecture: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    epoch = architecture.get("meta", {}).get("epoch")
    gates = gates_of(folder, epoch)
    maps = {
        choice: heat_map(choice, table, architecture.get("choices", {}).get(choice, {}))
        for choice, table in gates.items()
    }
    alike: dict[str, list[tuple[str, str]]] = {}
    for drawing in sorted(folder.glob("cell_*.svg")):
        svg, choice = drawing.read_text(), drawing.stem.removeprefix("cell_")
        alike.setdefault(OWN.sub("", svg), []).append((choice, svg))
    cells = []
    for drawn in alike.values():
        choices, svg = [choice for choice, _ in drawn], drawn[0][1]
        svg = _times(svg, choices[0], sum(repeats.get(choice, 1) for choice in choices))
        width = re.search(r'\bwidth="(\d+)"', svg)
        own = [maps[choice] for choice in choices if choice in maps]
        cells.append(DrawnCell(svg, int(width[1]) if width else 600, choices, own))
    return cells, epoch


def _times(svg: str, choice: str, count: int) -> str:
    """The drawing with a count in its title; unchanged for a single layer."""
    title = f">{escape(choice)} cell"
    return svg.replace(f"{title}<", f"{title} × {count}<") if count > 1 else svg


def heat_map(choice: str, table: Table, kept: Mapping[str, Collection[str]]) -> HeatMap:
    """The shares of a table of gates; columns have names unless there are too many."""
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    if len(names) > max(MOST, 2 * max(map(len, table.values()))):
        names = []
    rows: dict[str, list[Tile | None]] = {}
    for row, gates in table.items():
        own = kept.get(row, ())
        tiles = {
            name: Tile(share, name in own, f"{name} on {row}: {share.told}")
            for name, share in shares(gates, own).items()
        }
        rows[row] = [tiles.get(name) for name in names or gates]
    return HeatMap(choice, names, rows)
