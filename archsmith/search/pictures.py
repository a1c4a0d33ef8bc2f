"""The visual output of a search after each epoch: gates as numbers and pictures, and the cells."""

import json
from pathlib import Path

from archsmith.drawing.cells import alpha_image, cell_image
from archsmith.files import write_atomically
from archsmith.train.record import Record
from search_spaces.architecture import Architecture
from strategies.strategy import Strategy


def pictures(
    record: Record, folder: Path, strategy: Strategy, found: Architecture, epoch: int
) -> None:
    """Writes the gates as `gates/epoch_NNN.json`, and sends to the loggers per choice a heat map of
    its gates and the cell of this epoch, and histograms of the alphas.
    """
    tables = {}
    for name, gates in strategy.gates().items():
        choice = strategy.space.choices[name]
        tables[name] = {
            row.name: {o: round(g, 6) for o, g in zip(row.names, values, strict=False)}
            for row, values in zip(choice.rows, gates.tolist(), strict=True)
        }
        record.image("search", f"gates/{name}", alpha_image(tables[name]), epoch)
        cell = cell_image(choice, found.choices[name], name)
        record.image("search", f"cells/{name}", cell, epoch)
    for name, values in strategy.named_arch_parameters().items():
        record.histogram("search", f"alphas/{name}", values, epoch)
    path = folder / "gates" / f"epoch_{epoch:03d}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(tables).encode())
