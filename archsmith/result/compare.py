"""Compares runs: mean, spread and paired differences over seeds. It only reads run folders."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit  # as scipy.stats.t.ppf, whose import takes a second

from archsmith.data.benchmark import Benchmark
from archsmith.files import write_atomically
from archsmith.result.report.charts import strip_chart
from archsmith.result.report.html import html_page
from archsmith.result.runs import Run, columns, groups, read_runs, tables

BASELINES = ("random", "darts")
CONFIDENCE = 0.95
QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Spread:
    """One value per seed."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; nan for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the mean by Student's t; infinite for a single value."""
        n = len(self.values)
        if n < 2:
            return -math.inf, math.inf
        half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * self.deviation / math.sqrt(n)
        return self.mean - half, self.mean + half


def spread(runs: Iterable[Run], column: str) -> Spread | None:
    """The values of those runs that have one."""
    values = [value for run in runs if (value := run.value(column)) is not None]
    return Spread(values) if values else None


def paired(runs: Sequence[Run], baseline: Sequence[Run], column: str) -> Spread | None:
    """Differences from the baseline's run with the same seed."""
    theirs = {run.seed: run.value(column) for run in baseline}
    pairs = [(run.value(column), theirs.get(run.seed)) for run in runs]
    values = [ours - other for ours, other in pairs if ours is not None and other is not None]
    return Spread(values) if values else None


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per table, column and group, with its spread and paired differences; the CSV's."""
    return [row for table, members in tables(runs).items() for row in _rows(table, members)]


def _rows(table: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    lines = []
    by_name = groups(runs)
    for column in columns(runs):
        for name, members in by_name.items():
            found = spread(members, column)
            if found is None:
                continue
            row = {
                "table": table, "column": column, "runs": name, "n": len(found.values),
                "mean": found.mean, "deviation": found.deviation, "min": min(found.values),
                "max": max(found.values),
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
            lines.append(row)
    return lines


def compare(folder: Path, benchmark: Benchmark) -> str:
    """The tables as text; also `compare.txt`, `compare.csv` and `compare.html` in `folder`."""
    runs, unfinished = read_runs(folder)
    by_table = tables(runs)
    parts = [_table_text(name, members, benchmark) for name, members in by_table.items()]
    if len(by_table) > 1:
        parts.insert(0, f"{len(by_table)} tables: runs differ in more than strategy and seed")
    text = "\n\n".join([*parts, *(f"not finished: {path}" for path in unfinished)]) + "\n"
    write_atomically(folder / "compare.txt", text.encode())
    _write_csv(folder / "compare.csv", rows(runs))
    title = f"{len(runs)} runs of {folder.name}"
    shown = "".join(_charts(name, members) for name, members in by_table.items())
    page = html_page(title, f"<h1>{escape(title)}</h1>{shown}<pre>{escape(text)}</pre>")
    write_atomically(folder / "compare.html", page.encode())
    return text


def _table_text(name: str, runs: Sequence[Run], benchmark: Benchmark) -> str:
    """A titled table of comparable runs, and a list of those without an accuracy."""
    table = _rows(name, runs)
    parts = [f"== {name}"] if name else []
    for column in dict.fromkeys(row["column"] for row in table):
        parts.append(_text(column, [row for row in table if row["column"] == column]))
        if column == "benchmark accuracy" and benchmark.table:
            parts[-1] += _whole_table(benchmark)
    measured = {row["runs"] for row in table if "accuracy" in row["column"]}
    parts += [
        f"{group}: no accuracy to compare, as none of its {len(members)} networks was trained; "
        "run task=all with the same settings"
        for group, members in groups(runs).items()
        if group not in measured
    ]
    return "\n\n".join(parts)


def _write_csv(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, fieldnames=list(table[0]) if table else [])
    writer.writeheader()
    writer.writerows(table)
    write_atomically(path, lines.getvalue().encode())


def _charts(name: str, runs: Sequence[Run]) -> str:
    charts, by_name = [], groups(runs)
    for column in columns(runs):
        found = {group: spread(members, column) for group, members in by_name.items()}
        charts.append(strip_chart(column, {n: s.values for n, s in found.items() if s}))
    shown = "".join(f'<div class="wide">{chart}</div>' for chart in charts)
    return (f"<h2>{escape(name)}</h2>" if name else "") + shown


def _text(column: str, table: Sequence[Mapping[str, Any]]) -> str:
    width = max(len(row["runs"]) for row in table)
    accuracy = "accuracy" in column
    present = [b for b in BASELINES if accuracy and any(_known(row[f"minus {b}"]) for row in table)]
    head = f"{column}{' (%)' if accuracy or 'gap' in column else ''}"
    lines = [f"{'':{width}}   n        mean          sd         min         max"]
    for row in table:
        numbers = "".join(f" {_number(row[k]):>11}" for k in ("mean", "deviation", "min", "max"))
        lines.append(f"{row['runs']:{width}} {row['n']:>3}{numbers}")
    for name in present:
        cells = [f"paired difference to {name}", *(_difference(row, name) for row in table)]
        wide = max(map(len, cells))
        lines = [f"{line}   {cell:{wide}}" for line, cell in zip(lines, cells, strict=True)]
    return "\n".join([head, *(line.rstrip() for line in lines)])


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
