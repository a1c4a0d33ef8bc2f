"""A tabular benchmark: true accuracies of architectures, looked up after a search; during one only
by a searcher with `search.score=table`.

Sources: Dong & Yang 2020, arXiv:2001.00326; Dong et al. 2021, arXiv:2009.00437 (NATS-Bench,
topology search space); Sukthanker et al. 2024, arXiv:2312.10440. How a table names architectures is
in `search_spaces.tabular`.
"""

import csv
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from archsmith.errors import DataError
from archsmith.files import write_atomically
from search_spaces.architecture import Architecture
from search_spaces.settings import Range, checked, setting
from search_spaces.tabular import FORMS, form_for, form_of, name_of
from search_spaces.tabular import without_search as known_without_search

log = logging.getLogger(__name__)

FILES = {"epoch": "architectures/epoch_*.json", "candidate": "candidates/*/architecture.json"}


@checked
@dataclass(frozen=True)
class Benchmark:
    """The location of the table and the columns to read.

    Args:
        table: a CSV file with the columns that name an architecture, such as `architecture` of
            NAS-Bench-201 strings, see `search_spaces.tabular`; None for no benchmark.
        column: the accuracies, in %, to look up.
        samples: number of architectures that `task=rank` draws for Kendall's tau.

    Raises:
        ValueError: fewer than 2 samples.
    """

    table: str | None
    column: str
    samples: Annotated[int, Range(ge=2)]

    def identity(self) -> dict[str, str]:
        """What identifies the numbers: the column, and the sha256 of the file."""
        content = Path(str(self.table)).read_bytes()
        return {"column": self.column, "sha256": hashlib.sha256(content).hexdigest()}

    def read(self) -> dict[str, float]:
        """Name of an architecture -> accuracy in %. Raises DataError for a missing file, column or
        number.
        """
        path = Path(str(self.table))
        if not path.is_file():
            raise DataError(
                f"benchmark.table: no file '{path}'; give a CSV file of architectures and "
                "accuracies"
            )
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            form = form_of(columns)
            if form is None:
                needed = " or ".join(", ".join(form.columns) for form in FORMS.values())
                raise DataError(
                    f"{path}: expected the columns {needed}, which name an architecture, found "
                    f"{', '.join(columns)}; give another benchmark.table"
                )
            if self.column not in columns:
                raise DataError(
                    f"{path}: expected a column '{self.column}', found {', '.join(columns)}; set "
                    "benchmark.column"
                )
            table = {}
            try:
                for row in rows:
                    table[",".join(row[name] for name in form.columns)] = float(row[self.column])
            except (TypeError, ValueError):
                raise DataError(
                    f"{path}, line {rows.line_num}: {row[self.column]!r} in column "
                    f"'{self.column}' is no number"
                ) from None
        return table


def accuracy(table: dict[str, float], architecture: Architecture) -> float:
    """The accuracy in %. Raises DataError if the architecture is not in the table, unless the
    table leaves out those whose training failed."""
    with setting("benchmark.table"):
        name, failed = name_of(architecture), form_for(architecture).failed
    if name not in table and failed is not None:
        log.warning(
            "benchmark: the training of %s failed in the table, so it has %.2f%%", name, failed
        )
        return failed
    if name not in table:
        raise DataError(f"benchmark.table: it does not hold {name}; use the space it was made for")
    return table[name]


def standing(table: dict[str, float], architecture: Architecture) -> dict[str, Any]:
    """`accuracy` in %, `rank` (1 is best), `of` (the number of architectures), and `regret`
    relative to the best in percentage points.

    Raises DataError if the architecture is not in the table.
    """
    found, best = accuracy(table, architecture), max(table.values())
    return {
        "architecture": name_of(architecture),
        "accuracy": found,
        "rank": 1 + sum(other > found for other in table.values()),
        "of": len(table),
        "best": best,
        "regret": round(best - found, 4),
    }


def without_search(table: Mapping[str, float]) -> dict[str, list[float]]:
    """What the table has for networks that nobody searched: description -> accuracies in %."""
    known = known_without_search(table)
    return {said: [table[name] for name in names] for said, names in known.items()}


def look_up(benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """The standing of the found architecture, and the accuracies of every epoch's and of every
    candidate that a searcher asked for; also written to `benchmark.json`.
    """
    table = benchmark.read()
    found = standing(table, Architecture.load(folder / "architecture.json"))
    curves = {
        f"accuracy_by_{name}": [
            accuracy(table, Architecture.load(path)) for path in sorted(folder.glob(files))
        ]
        for name, files in FILES.items()
    }
    content = {"column": benchmark.column, **found, **curves}
    write_atomically(folder / "benchmark.json", (json.dumps(content, indent=2) + "\n").encode())
    log.info(
        "benchmark: %s %.2f%%, rank %d of %d, regret %.2f points",
        benchmark.column, found["accuracy"], found["rank"], found["of"], found["regret"],
    )  # fmt: skip
    return content
