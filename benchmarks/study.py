"""The study of strategies on NAS-Bench-201: its rows, tables and figures.

`python benchmarks/study.py collect FOLDER [FOLDER ...]` adds the finished runs below the folders
to `docs/study/runs.csv`, where they outlive the machine; `show TABLE`, with a CSV of true
accuracies, prints the tables of docs/results.md and draws its figures into docs/study. `--rows
FILE` before the command takes another table.

A row is a run: the strategy, seed and settings (a digest of all but seed and paths), the processor
on which the row was collected, the cell of every epoch as six digits (the candidates of the edges
0-1, 0-2, 1-2, 0-3, 1-3, 2-3 in the order of the space: none, skip, 1x1, 3x3, pool), and what was
measured after each epoch, nan where it was not. A searcher has a cell and a score for each
architecture that it asked for.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from step_time import processor  # noqa: E402

from archsmith.data.benchmark import Benchmark  # noqa: E402
from archsmith.differences import digest, given  # noqa: E402
from archsmith.drawing.charts import TICKS  # noqa: E402
from archsmith.drawing.render import render  # noqa: E402
from archsmith.result.compare import spreads  # noqa: E402
from archsmith.result.runs import FinishedRun, named_groups, read_runs  # noqa: E402
from archsmith.result.statistics import FEWEST, chance, holm  # noqa: E402
from search_spaces.architecture import Architecture  # noqa: E402
from search_spaces.genotype import to_nasbench201  # noqa: E402
from search_spaces.nasbench201 import CANDIDATES as OPERATIONS  # noqa: E402

ROWS = ROOT / "docs" / "study" / "runs.csv"  # unless another file is given
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
CANDIDATES = list(OPERATIONS)
SKIP = str(CANDIDATES.index("skip_connect"))
DRAWS = 3  # random cells of the baseline
LEAST = 75.0  # % that the figure shows; what is below is drawn there


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
    return "+".join("|" + "".join(f"{names[i, j]}~{i}|" for i in range(j)) for j in range(1, 4))


def described(name: str, run: FinishedRun) -> dict[str, Any]:
    """The row of a run, as text."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
    lines = [line for line in lines if line["phase"] == "search"]
    files = sorted(run.folder.glob("architectures/epoch_*.json")) or sorted(
        run.folder.glob("candidates/*/architecture.json")
    )
    found = [Architecture.load(file) for file in files]
    assert all(to_nasbench201(one) == string(code(one)) for one in found)
    cells = [code(one) for one in found] or [
        code(Architecture.load(run.folder / "architecture.json"))
    ]
    seconds = float(run.results["cpu_seconds"].get("search", 0.0))
    walls = list(accumulate(line["seconds"] for line in lines))
    apart = digest([given(run.surroundings), given(run.method)])

    def series(values: Iterable[float | None], form: str) -> str:
        return " ".join("nan" if value is None else format(value, form) for value in values)

    return {
        "strategy": name,
        "seed": run.seed,
        "settings": apart,
        "processor": processor(),
        "torch": run.results["versions"]["torch"],
        "seconds": f"{seconds:.0f}",
        "cells": " ".join(cells),
        "times": series((wall / walls[-1] * seconds for wall in walls), ".0f"),
        "scores": series((line["score"] for line in lines if "score" in line), ".4f"),
        **{
            column: series((line.get(metric) for line in lines), ".4g")
            for column, metric in MEASURED.items()
        },
    }


def collect(folders: Sequence[Path], file: Path) -> None:
    """Adds the runs that the table in the file does not have."""
    known = list(csv.DictReader(file.open(newline=""))) if file.is_file() else []
    found = {(row["strategy"], row["seed"], row["settings"]): row for row in known}
    for folder in folders:
        for name, runs in named_groups(read_runs(folder)[0]).items():
            for run in runs:
                row = {key: str(value) for key, value in described(name, run).items()}
                found.setdefault((row["strategy"], row["seed"], row["settings"]), row)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(found.values(), key=lambda r: (r["strategy"], int(r["seed"]))))
    print(f"{len(found)} runs, {len(found) - len(known)} of them new")


def rows(file: Path) -> list[Row]:
    """The runs of the table in the file."""

    def numbers(text: str) -> list[float]:
        return [float(one) for one in text.split()]

    return [
        Row(
            strategy=row["strategy"],
            seed=int(row["seed"]),
            settings=row["settings"],
            seconds=float(row["seconds"]),
            cells=row["cells"].split(),
            times=numbers(row["times"]),
            scores=numbers(row["scores"]),
            measured={name: numbers(row[name]) for name in MEASURED},
        )
        for row in csv.DictReader(file.open(newline=""))
    ]


def last(row: Row) -> str:
    return row.cells[-1]


def best(row: Row) -> str:
    """The cell of the epoch, or of the candidate, that is best on held-out images: by the accuracy
    of the discretised network with inherited weights, or by the searcher's score."""
    scores = row.scores or row.measured["discretised"]
    return row.cells[int(np.argmax(scores))] if scores else last(row)


def modal(row: Row) -> str:
    """The commonest cell of the last third of the epochs, of equals the latest."""
    if row.scores:
        return best(row)
    found = row.cells[-(-2 * len(row.cells) // 3) :] or row.cells
    counts = Counter(found)
    return max(reversed(found), key=lambda cell: counts[cell])


RULES = {"last": last, "best on select": best, "modal": modal}


def taken(row: Row) -> str:
    """The result of the run: a searcher's best, a strategy's last."""
    return best(row) if row.scores else last(row)


def at(row: Row, second: float) -> str | None:
    """The cell that the search would have returned then; None before the first."""
    done = sum(time <= second for time in row.times)
    if not done:
        return None
    if row.scores:
        return row.cells[int(np.argmax(row.scores[:done]))]
    return row.cells[done - 1]


def best_of(draws: int, table: Sequence[float]) -> list[float]:
    """As many equally likely values as the table has, distributed as the best of so many draws."""
    ordered = np.sort(table)
    shares = (np.arange(len(ordered)) + 0.5) / len(ordered)
    return list(ordered[(len(ordered) * shares ** (1 / draws)).astype(int)])


def spread_table(
    found: Mapping[str, Sequence[Row]], true: Mapping[str, float], table: Sequence[float]
) -> None:
    """Prints the accuracies of the results by strategy, best first, and their chance."""
    values = pd.DataFrame(
        [(name, row.seed, true[taken(row)]) for name, runs in found.items() for row in runs],
        columns=["runs", "seed", "value"],
    ).assign(column="accuracy")
    against = best_of(DRAWS, table)
    chances = {
        name: chance(against, list(part.value)) for name, part in values.groupby("runs", sort=False)
    }
    corrected = dict(zip(chances, holm(list(chances.values())), strict=True))
    print(
        "| strategy | n | median (quartiles) | mean (95% interval) | worst to best "
        f"| p: mean of as many best-of-{DRAWS} random cells | processor s |\n{'|---' * 7}|"
    )
    for one in spreads(values).sort_values("mean", ascending=False).to_dict("records"):
        name, seconds = one["runs"], np.mean([row.seconds for row in found[one["runs"]]])
        known = one["n"] >= FEWEST
        interval = f" ({one['low']:.2f} to {one['high']:.2f})" if known else ""
        print(
            f"| `{name}` | {one['n']} | {one['median']:.2f} ({one['25%']:.2f} to {one['75%']:.2f}) "
            f"| {one['mean']:.2f}{interval} "
            f"| {one['min']:.2f} to {one['max']:.2f} | {corrected[name]:.2g} | {seconds:.0f} |"
        )
    print("\nevery seed, from 0:")
    for name, runs in found.items():
        print(f"- `{name}`: {' '.join(f'{true[taken(row)]:.2f}' for row in runs)}")


def rule_table(found: Mapping[str, Sequence[Row]], true: Mapping[str, float]) -> None:
    """Prints the mean accuracy of the cell that each rule takes."""
    print(f"\n| strategy | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}")
    for name, runs in found.items():
        means = [np.mean([true[rule(row)] for row in runs]) for rule in RULES.values()]
        print(f"| `{name}` | {' | '.join(f'{mean:.2f}' for mean in means)} |")


def band(curves: Sequence[Sequence[float]], inner: bool) -> dict[str, list[float]]:
    """Mean and band at each place where half of the curves have a value: quartiles (`inner`), or
    the smallest and the largest."""
    length = sorted(map(len, curves))[len(curves) // 2]
    columns = [[curve[i] for curve in curves if i < len(curve)] for i in range(length)]
    ends = (25, 75) if inner else (0, 100)
    low, high = zip(*(np.percentile(column, ends) for column in columns), strict=True)
    return {
        "mean": [float(np.mean(column)) for column in columns],
        "low": list(map(float, low)),
        "high": list(map(float, high)),
    }


def figures(found: Mapping[str, Sequence[Row]], true: Mapping[str, float], folder: Path) -> None:
    """Draws the accuracy of the cell against time, and the skips against epochs."""
    until = int(max(row.times[-1] for runs in found.values() for row in runs if row.times))
    accuracy, skips = {}, {}
    for name, runs in found.items():
        runs = [row for row in runs if row.times]
        if not runs:
            continue
        begun = min(  # the second from which all have a cell
            second for second in range(until + 1) if all(at(row, second) for row in runs)
        )
        curves = [
            [true[str(at(row, second))] for second in range(begun, until + 1)] for row in runs
        ]
        accuracy[name] = {
            key: [None] * begun + series for key, series in band(curves, True).items()
        }
        if not runs[0].scores:
            skips[name] = band([[c.count(SKIP) for c in row.cells] for row in runs], False)
    accuracy = {
        name: {key: [v and max(v, LEAST) for v in values] for key, values in one.items()}
        for name, one in accuracy.items()
    }
    epochs = max(len(one["mean"]) for one in skips.values())
    drawings = {
        "anytime": ("true accuracy of the cell in %: mean, quartiles", accuracy, (LEAST, 95)),
        "skips": ("skip connections of six: mean, smallest to largest", skips, (0, 6)),
    }
    for name, steps, unit, across in (
        ("anytime", until, 10 * TICKS, "processor seconds"),
        ("skips", epochs, TICKS, "epochs"),
    ):
        steps = unit * -(-steps // unit)
        drawn = render("panels.svg.j2", panels=[drawings[name]], across=across, steps=steps)
        (folder / f"{name}.svg").write_text(drawn)


def show(benchmark: Path, only: Sequence[str], file: Path) -> None:
    """Prints the tables and draws the figures beside the file."""
    truth = Benchmark(str(benchmark), "cifar10", 2).read()
    read = [row for row in rows(file) if not only or row.strategy in only]
    settings = Counter(name for name, _ in {(row.strategy, row.settings) for row in read})
    found: dict[str, list[Row]] = {}
    for row in read:
        apart = f" ({row.settings})" if settings[row.strategy] > 1 else ""
        found.setdefault(row.strategy + apart, []).append(row)
    true = {
        cell: truth[string(cell)] for runs in found.values() for row in runs for cell in row.cells
    }
    spread_table(found, true, list(truth.values()))
    rule_table(found, true)
    figures(found, true, file.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("collect").add_argument("folders", type=Path, nargs="+")
    shown = commands.add_parser("show")
    shown.add_argument("benchmark", type=Path)
    shown.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    if options.command == "collect":
        collect(options.folders, options.rows)
    else:
        show(options.benchmark, options.only, options.rows)


if __name__ == "__main__":
    main()
