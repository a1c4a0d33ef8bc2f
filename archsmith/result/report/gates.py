"""The gates of a search, as it wrote them after every epoch, `gates/epoch_NNN.json`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Table = dict[str, dict[str, float]]  # row -> option -> gate
Series = Mapping[str, Sequence[float | None]]


def gates_of(folder: Path, epoch: int | None) -> dict[str, Table]:
    """Choice -> the gates after an epoch, which counts from 0; without one, after the last. Empty
    if they are not there."""
    files = sorted((folder / "gates").glob("epoch_*.json"))
    chosen = [path for path in files if epoch is not None and path.stem == f"epoch_{epoch:03d}"]
    chosen = files[-1:] if epoch is None else chosen
    found: dict[str, Table] = json.loads(chosen[0].read_text()) if chosen else {}
    return found


def gates_by_epoch(folder: Path) -> dict[str, dict[str, Series]]:
    """Choice -> row -> option -> a gate per epoch, None if it has none.

    All rows of a choice have all its options, so that each has one colour.
    """
    epochs = [
        json.loads(path.read_text()) for path in sorted((folder / "gates").glob("epoch_*.json"))
    ]
    tables: dict[str, dict[str, Series]] = {}
    for choice, rows in epochs[0].items() if epochs else ():
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        tables[choice] = {
            row: {name: [epoch[choice][row].get(name) for epoch in epochs] for name in names}
            for row in rows
        }
    return tables
