"""Runs side by side: mean, spread and paired differences over seeds. It only reads run folders."""

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit  # of scipy.stats.t.ppf, without the second that imports

from engine.command.naming import digest
from engine.differences import differing_keys
from engine.errors import ConfigError
from engine.files import write_atomically
from engine.report.charts import strip_chart
from engine.report.html import html_page
from engine.search.benchmark import Benchmark

BASELINES = ("random", "darts")
CONFIDENCE = 0.95
QUANTILES = (5, 25, 50, 75, 95)

# column -> the value of a run, None where it has none; accuracies in %
COLUMNS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "benchmark accuracy": lambda run: (run.get("benchmark") or {}).get("accuracy"),
    "supernet accuracy": lambda run: _percent(run["supernet_accuracy"]),
    "discretised accuracy": lambda run: _percent(run["discretised_accuracy"]),
    "discretisation gap": lambda run: _percent((run["diagnosis"] or {}).get("discretisation_gap")),
    "alpha eigenvalue": lambda run: (run["diagnosis"] or {}).get("alpha_eigenvalue"),
    "weight sharpness": lambda run: (run["diagnosis"] or {}).get("weight_sharpness"),
    "parameters": lambda run: run["parameters"],
    "macs": lambda run: run["macs"],
    "search epochs": lambda run: run.get("search_epochs"),
    "search seconds, this thread's processor time": lambda run: (run.get("cpu_seconds") or {}).get(
        "search"
    ),
    "search seconds": lambda run: run["seconds"].get("search"),
}


@dataclass(frozen=True)
class Run:
    """A run whose search or retraining is done: its `results.json` and `config.json`."""

    folder: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.results["seed"])

    def value(self, column: str) -> float | None:
        """The run's number in a column; test accuracies only under their own recipe's name."""
        if column in COLUMNS:
            found = COLUMNS[column](self.results)
        else:
            found = _percent(self.results["test_accuracy"]) if column == self.tested else None
        return None if found is None else float(found)

    @property
    def tested(self) -> str:
        """The column of its test accuracy: networks of different recipes never share one."""
        recipe = self.config["retrain"]
        shown = f"{recipe['epochs']} epochs, {recipe['channels']} channels"
        return f"test accuracy ({shown}, recipe {digest(recipe)})"


@dataclass(frozen=True)
class Spread:
    """Numbers of some seeds."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; nan of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def interval(self) -> tuple[float, float]:
        """Student's 95% interval of the mean; infinite for a single value."""
        n = len(self.values)
        if n < 2:
            return -math.inf, math.inf
        half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * self.deviation / math.sqrt(n)
        return self.mean - half, self.mean + half


def read_runs(folder: Path) -> tuple[list[Run], list[Path]]:
    """Every run below `folder`, and the folders of those that have no result yet.

    Raises ConfigError where there is no run at all.
    """
    found, unfinished = [], []
    for file in sorted(folder.rglob("config.json")):
        path = file.parent
        run = _read(path)
        if run is None:
            unfinished.append(path)
        else:
            found.append(run)
    if not found and not unfinished:
        raise ConfigError(
            f"runs: no run below '{folder}'; set runs=<folder of a sweep>, as outputs"
        )
    return found, unfinished


def _read(path: Path) -> Run | None:
    try:
        results = json.loads((path / "results.json").read_text())
        config = json.loads((path / "config.json").read_text())
        phases = json.loads((path / "phases.json").read_text())
    except FileNotFoundError:
        return None
    return Run(path, results, config) if "search" in phases or "retrain" in phases else None


def groups(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed alone, by a name that tells them from the others.

    The name is the strategy's, and what else sets a group apart from the first of that strategy.
    """
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        by_config.setdefault(digest(_without_seed(run.config)), []).append(run)
    named: dict[str, list[Run]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for members in by_config.values():
        strategy, config = members[0].results["strategy"], _without_seed(members[0].config)
        apart = differing_keys(first.setdefault(strategy, config), config)
        shown = [f"{key}={_at(config, key)}" for key in apart if key != "seed"]
        named[" ".join([strategy, *shown])] = sorted(members, key=lambda run: run.seed)
    return named


def columns(runs: Sequence[Run]) -> list[str]:
    """The columns in which any run has a number, those of test accuracies first."""
    tested = sorted({run.tested for run in runs if run.results["test_accuracy"] is not None})
    return [c for c in [*tested, *COLUMNS] if any(run.value(c) is not None for run in runs)]


def spread(runs: Iterable[Run], column: str) -> Spread | None:
    """The numbers of those runs that have one."""
    values = [value for run in runs if (value := run.value(column)) is not None]
    return Spread(values) if values else None


def paired(runs: Sequence[Run], baseline: Sequence[Run], column: str) -> Spread | None:
    """Differences to the baseline's run of the same seed."""
    theirs = {run.seed: run.value(column) for run in baseline}
    pairs = [(run.value(column), theirs.get(run.seed)) for run in runs]
    values = [ours - other for ours, other in pairs if ours is not None and other is not None]
    return Spread(values) if values else None


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per group and column, with its spread and its paired differences; the CSV's lines."""
    table = []
    by_name = groups(runs)
    for column in columns(runs):
        for name, members in by_name.items():
            found = spread(members, column)
            if found is None:
                continue
            row = {
                "column": column, "runs": name, "n": len(found.values), "mean": found.mean,
                "deviation": found.deviation, "min": min(found.values), "max": max(found.values),
            }  # fmt: skip
            for baseline in BASELINES:
                others = [] if name == baseline else by_name.get(baseline, [])
                difference = paired(members, others, column)
                low, high = difference.interval() if difference else (math.nan, math.nan)
                row |= {
                    f"minus {baseline}": difference.mean if difference else math.nan,
                    f"minus {baseline}, low": low,
                    f"minus {baseline}, high": high,
                }
            table.append(row)
    return table


def compare(folder: Path, benchmark: Benchmark) -> str:
    """The table as text; also `compare.txt`, `compare.csv` and `compare.html` in `folder`."""
    runs, unfinished = read_runs(folder)
    table = rows(runs)
    parts = []
    for column in dict.fromkeys(row["column"] for row in table):
        parts.append(_text(column, [row for row in table if row["column"] == column]))
        if column == "benchmark accuracy" and benchmark.table:
            parts[-1] += _whole_table(benchmark)
    parts += [f"not finished: {path}" for path in unfinished]
    text = "\n\n".join(parts) + "\n"
    write_atomically(folder / "compare.txt", text.encode())
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, fieldnames=list(table[0]) if table else [])
    writer.writeheader()
    writer.writerows(table)
    write_atomically(folder / "compare.csv", lines.getvalue().encode())
    charts, by_name = [], groups(runs)
    for column in columns(runs):
        found = {name: spread(members, column) for name, members in by_name.items()}
        charts.append(strip_chart(column, {n: s.values for n, s in found.items() if s}))
    title = f"{len(runs)} runs of {folder.name}"
    shown = "".join(f'<div class="wide">{chart}</div>' for chart in charts)
    page = html_page(title, f"<h1>{escape(title)}</h1>{shown}<pre>{escape(text)}</pre>")
    write_atomically(folder / "compare.html", page.encode())
    return text


def _text(column: str, table: Sequence[Mapping[str, Any]]) -> str:
    width = max(len(row["runs"]) for row in table)
    accuracy = "accuracy" in column
    present = [b for b in BASELINES if accuracy and any(_known(row[f"minus {b}"]) for row in table)]
    head = f"{column}{' (%)' if accuracy or 'gap' in column else ''}"
    lines = [f"{head}\n{'':{width}}   n        mean          sd         min         max"]
    lines[0] += "".join(f"   paired difference to {name}" for name in present)
    for row in table:
        numbers = "".join(f" {_number(row[k]):>11}" for k in ("mean", "deviation", "min", "max"))
        line = f"{row['runs']:{width}} {row['n']:>3}{numbers}"
        for name in present:
            line += f"   {_difference(row, name):<{24 + len(name)}}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _difference(row: Mapping[str, Any], baseline: str) -> str:
    mean, low, high = (row[f"minus {baseline}{end}"] for end in ("", ", low", ", high"))
    if not _known(mean):
        return ""
    if not math.isfinite(low):
        return f"{mean:+.2f} (one seed)"
    verdict = "" if low > 0 or high < 0 else f", not distinguishable from {baseline}"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]{verdict}"


def _whole_table(benchmark: Benchmark) -> str:
    values = list(benchmark.read().values())
    shown = ", ".join(f"{q}%: {np.percentile(values, q):.2f}" for q in QUANTILES)
    return (
        f"\nall {len(values)} architectures of the table: mean {statistics.fmean(values):.2f}, "
        f"best {max(values):.2f}; quantiles {shown}"
    )


def _known(value: float) -> bool:
    return not math.isnan(value)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config
