"""The study of strategies on NAS-Bench-201: its rows, tables and figures.

`python benchmarks/study.py collect FOLDER [FOLDER ...]` adds the finished runs below the folders
to `docs/study/runs.csv`, where they outlive the machine; `missing` prints the seeds that each
strategy of `conf/experiment/study.yaml` still lacks there, as commands; `show TABLE`, with a CSV
of true accuracies, prints the tables of docs/results.md and draws its figures into docs/study.

A row is a run: what was searched, by which settings (a digest of all but strategy, seed and paths)
on which processor, the cell of every epoch as six digits (the candidates of the edges 0-1, 0-2,
1-2, 0-3, 1-3, 2-3 in the order of the space: none, skip, 1x1, 3x3, pool), and what was measured
after each epoch. A searcher has a cell and a score for each architecture that it asked for.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.data.benchmark import Benchmark  # noqa: E402
from archsmith.differences import digest, given  # noqa: E402
from archsmith.drawing.render import render  # noqa: E402
from archsmith.result.compare import LEVEL, differences, spreads  # noqa: E402
from archsmith.result.runs import FinishedRun, named_groups, read_runs  # noqa: E402
from archsmith.result.statistics import chance  # noqa: E402
from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.genotype import to_nasbench201  # noqa: E402
from search_spaces.nasbench201 import CANDIDATES  # noqa: E402

ROWS = ROOT / "docs" / "study" / "runs.csv"
MEASURED = {  # column -> metric of each epoch
    "select": "supernet_accuracy",
    "discretised": "discretised_accuracy",
    "entropy": "gate_entropy",
    "signal": "alpha_signal",
}
FIELDS = (
    "strategy", "seed", "settings", "processor", "torch", "seconds", "cells", "times", "scores",
    *MEASURED,
)  # fmt: skip
EDGES = [(i, j) for j in range(1, 4) for i in range(j)]
SKIP = str(CANDIDATES.index("skip_connect"))
DRAWS = 3  # random cells of the baseline


class Row(NamedTuple):
    """A run of the study; lists have an entry per epoch, or per architecture of a searcher."""

    strategy: str
    seed: int
    settings: str
    seconds: float
    cells: list[str]
    times: list[float]  # processor seconds since the start
    scores: list[float]
    measured: dict[str, list[float]]  # by name in MEASURED


def code(architecture: Architecture) -> str:
    """Six digits."""
    kept = architecture.choices["cell"]
    names = [kept.get(f"{i}-{j}", ("none",))[0] for i, j in EDGES]
    return "".join(str(CANDIDATES.index(name)) for name in names)


def string(cell: str) -> str:
    """The NAS-Bench-201 string of six digits."""
    names = dict(zip(EDGES, (CANDIDATES[int(digit)] for digit in cell), strict=True))
    return "+".join(
        "|" + "".join(f"{names[i, j]}~{i}|" for i in range(j)) for j in range(1, 4)
    )


def described(name: str, run: FinishedRun) -> dict[str, Any]:
    """The row of a run, as text."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    lines = [line for line in lines if line["phase"] == "search"]
    files = sorted(run.folder.glob("architectures/epoch_*.json")) or sorted(
        run.folder.glob("candidates/*/architecture.json")
    )
    found = [Architecture.load(file) for file in files]
    assert all(to_nasbench201(one) == string(code(one)) for one in found)
    cells = [code(one) for one in found] or [code(Architecture.load(run.folder / "architecture.json"))]
    seconds = float(run.results["cpu_seconds"].get("search", 0.0))
    walls = list(accumulate(line["seconds"] for line in lines))
    apart = digest([given(run.surroundings), given(run.method)])

    def series(values: Iterable[float | None], form: str) -> str:
        return " ".join("nan" if value is None else format(value, form) for value in values)

    return {
        "strategy": name,
        "seed": run.seed,
        "settings": apart,
        "processor": run.results["device"],
        "torch": run.results["versions"]["torch"],
        "seconds": f"{seconds:.0f}",
        "cells": " ".join(cells),
        "times": series((wall / walls[-1] * seconds for wall in walls), ".0f"),
        "scores": series((line["score"] for line in lines if "score" in line), ".4f"),
        **{
            column: series((line.get(metric) for line in lines if metric in line), ".4g")
            for column, metric in MEASURED.items()
        },
    }


def collect(folders: Sequence[Path]) -> None:
    """Adds the runs that the table does not have."""
    known = list(csv.DictReader(ROWS.open(newline=""))) if ROWS.is_file() else []
    rows = {(row["strategy"], row["seed"], row["settings"]): row for row in known}
    for folder in folders:
        for name, runs in named_groups(read_runs(folder)[0]).items():
            for run in runs:
                row = {key: str(value) for key, value in described(name, run).items()}
                rows.setdefault((row["strategy"], row["seed"], row["settings"]), row)
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows.values(), key=lambda r: (r["strategy"], int(r["seed"]))))
    print(f"{len(rows)} runs, {len(rows) - len(known)} of them new")
