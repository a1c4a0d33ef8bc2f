"""The visual output of a search after each epoch: gates as numbers and pictures, and the cells."""

import json
from pathlib import Path

from archsmith.drawing.pictures import cell_picture, gates_picture
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
    tables = {
        name: {
            row.name: {o: round(g, 6) for o, g in zip(row.names, values, strict=False)}
            for row, values in zip(strategy.space.choices[name].rows, gates.tolist(), strict=True)
        }
        for name, gates in strategy.gates().items()
    }
    path = folder / "gates" / f"epoch_{epoch:03d}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(tables).encode())
    if not record.loggers:
        return
    after = f"after epoch {epoch + 1}"
    for name, gates in tables.items():
        choice, kept = strategy.space.choices[name], found.choices[name]
        shown = gates_picture(gates, kept, f"{name}: gates {after}")
        record.image("search", f"gates/{name}", shown, epoch)
        drawn = cell_picture(choice, kept, f"{name} {after}", gates)
        record.image("search", f"cells/{name}", drawn, epoch)
    for name, values in strategy.named_arch_parameters().items():
        kind, _, choice_name = name.partition(".")
        record.histogram("search", f"{kind}s/{choice_name}", values, epoch)
