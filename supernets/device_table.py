"""Latencies of whole architectures on several devices: a table of NAS-Bench-201 cells, by device.

Such a table is no sum over options. An additive model, fitted by least squares, stands in for it
where gates need one; architectures are looked up.
"""

import csv
import itertools
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from search_spaces.architecture import Architecture
from search_spaces.choice import Row
from search_spaces.genotype import to_nasbench201
from search_spaces.settings import nearest
from search_spaces.space import Space
from supernets.final_costs import Cost

KEY = "architecture"  # the column of NAS-Bench-201 strings


@dataclass(frozen=True)
class DeviceTable:
    """Milliseconds of every architecture (A,) of a space on every device (D,).

    rows: NAS-Bench-201 string -> row of `milliseconds` (A, D).
    """

    path: Path
    devices: tuple[str, ...]
    rows: dict[str, int]
    milliseconds: np.ndarray

    def column(self, device: str) -> int:
        """The column of a device. Raises ValueError for an unknown name."""
        if device not in self.devices:
            raise ValueError(
                f"device: '{device}' is no column of {self.path}{nearest(device, self.devices)}; "
                f"known: {', '.join(self.devices)}"
            )
        return self.devices.index(device)

    def of(self, architecture: Architecture, device: str) -> float:
        """Milliseconds of an architecture. Raises ValueError for one that the table lacks."""
        name = to_nasbench201(architecture)
        if name not in self.rows:
            raise ValueError(f"{self.path} does not hold {name}; use the space it was made for")
        return float(self.milliseconds[self.rows[name], self.column(device)])


def opened(path: Path) -> list[list[str]]:
    """The lines of a CSV file, or of one that is compressed, `.csv.xz`. Raises OSError, and
    lzma.LZMAError or UnicodeError for a file that is none."""
    if path.suffix == ".xz":
        with lzma.open(path, "rt", newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def is_device_table(path: Path) -> bool:
    """Whether a file is a table of whole architectures: it has a column `architecture`."""
    try:
        if path.suffix == ".xz":
            return True
        with path.open(encoding="utf-8") as file:
            return KEY in file.readline().strip().split(",")
    except (OSError, UnicodeError):
        return False


def device_table(path: Path) -> DeviceTable:
    """The table in a file. Raises ValueError for a file that is none."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, lzma.LZMAError, UnicodeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{path} is no table of latencies by device ({type(error).__name__}: {error}); "
            f"expected a CSV file with a column '{KEY}', and a column of ms per device"
        ) from error


@lru_cache(maxsize=1)
def _read(path: Path, _changed: int) -> DeviceTable:
    header, *lines = opened(path)
    at = header.index(KEY)
    values = np.array([[float(v) for v in line[:at] + line[at + 1 :]] for line in lines])
    if values.shape != (len(lines), len(header) - 1) or not values.size:
        raise ValueError("lines of different lengths, or none")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("milliseconds that are no finite numbers of at least 0")
    rows = {line[at]: row for row, line in enumerate(lines)}
    return DeviceTable(path, (*header[:at], *header[at + 1 :]), rows, values)


def additive(space: Space, table: DeviceTable) -> dict[str, tuple[Cost, float]]:
    """Device -> its additive model by least squares, and the R2 over all architectures.

    The fixed part is the intercept, a zero costs nothing; an option may cost less than that.
    Raises ValueError for another space, and for a table that lacks an architecture of it.
    """
    _check(space, table)
    (name, choice), *_ = space.choices.items()
    positions = np.array(list(itertools.product(*(range(len(r.options)) for r in choice.rows))))
    values = table.milliseconds[_lines(choice.rows, positions, table)]  # (A, D)
    real = np.array(choice.offers(zero=False))  # (R, O)
    kept = (np.eye(choice.width)[positions] * real).reshape(len(positions), -1)  # (A, R * O)
    features = np.column_stack([np.ones(len(kept)), kept])
    solution = np.linalg.lstsq(features, values, rcond=None)[0]  # (1 + R * O, D)
    left = ((values - features @ solution) ** 2).mean(0)
    r2 = 1 - left / np.maximum(values.var(0), np.finfo(float).tiny)
    tables = torch.tensor(solution[1:].T).unflatten(1, real.shape)  # (D, R, O)
    return {
        device: (Cost(float(solution[0, d]), {name: tables[d]}), float(r2[d]))
        for d, device in enumerate(table.devices)
    }


def _check(space: Space, table: DeviceTable) -> None:
    """Raises ValueError for a space that the table was not made for."""
    if space.name != "nasbench201":
        raise ValueError(
            f"table: {table.path} has whole architectures of nasbench201, found space "
            f"{space.name}; give a table of its options: task=measure_latency"
        )
    if space.settings["nodes"] != 3:
        raise ValueError(f"table: {table.path} has cells of 3 nodes; set nodes to 3")


def _lines(rows: Sequence[Row], positions: np.ndarray, table: DeviceTable) -> list[int]:
    """The lines of architectures, given as the position of each row's option (A, R)."""
    found, options = [], [(row.name, row.names) for row in rows]
    for taken in positions.tolist():
        names = {name: known[o] for (name, known), o in zip(options, taken, strict=True)}
        text = "+".join(
            "|" + "".join(f"{names[f'{s}-{t}']}~{s}|" for s in range(t)) for t in (1, 2, 3)
        )
        if text not in table.rows:
            raise ValueError(
                f"table: {table.path} does not hold {text}; expected every architecture"
            )
        found.append(table.rows[text])
    return found
