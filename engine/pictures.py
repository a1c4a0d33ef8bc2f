"""What a search leaves to look at after each epoch: gates as numbers and pictures, the cells."""

import json
from pathlib import Path

from engine.checkpoint import write_atomically
from engine.drawing import alpha_image, cell_image
from engine.record import Record
from search_spaces.architecture import Architecture
from strategies.strategy import Strategy


def pictures(
    record: Record, folder: Path, strategy: Strategy, found: Architecture, epoch: int
) -> None:
    """Gates as `gates/epoch_NNN.json` and as a heat map, and the cell of this epoch, per group."""
    tables = {}
    for (name, cell), gates in zip(
        strategy.space.groups.items(), strategy.gates().values(), strict=True
    ):
        names = [edge.name for edge in cell.edges]
        candidates = [edge.candidates for edge in cell.edges]
        tables[name] = {
            edge.name: dict(zip(edge.candidates, map(_rounded, row), strict=False))
            for edge, row in zip(cell.edges, gates.tolist(), strict=True)
        }
        record.image(
            "search", f"gates/{name}", alpha_image(gates.numpy(), names, candidates), epoch
        )
        record.image("search", f"cell/{name}", cell_image(cell, found.choices[name], name), epoch)
    path = folder / "gates" / f"epoch_{epoch:03d}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(tables).encode())


def _rounded(gate: float) -> float:
    return round(gate, 6)
