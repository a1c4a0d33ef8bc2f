"""Compares runs: mean, spread and paired differences over seeds. It only reads run folders."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # as scipy.stats.t.ppf, whose import takes a second

from archsmith.data.benchmark import Benchmark
from archsmith.drawing.render import render
from archsmith.files import write_atomically
from archsmith.result.runs import (
    FinishedRun,
    column_named,
    columns,
    named_groups,
    read_runs,
    tables,
)

BASELINES = ("random", "darts")
CONFIDENCE = 0.95
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measurements(runs: Mapping[str, Sequence[FinishedRun]]) -> pd.DataFrame:
    """A row per value of a run: its `column`, the group of `runs`, the `seed` and the `value`."""
    lines = [
        (column, name, run.seed, run.values[column])
        for column in columns([run for members in runs.values() for run in members])
        for name, members in runs.items()
        for run in members
        if column in run.values
    ]
    return pd.DataFrame(lines, columns=["column", "runs", "seed", "value"])


def spreads(values: pd.DataFrame, baselines: Sequence[str] = BASELINES) -> pd.DataFrame:
    """A row per column and group of `measurements`: its spread, and the mean of the differences
    from each baseline's run with the same seed, with its 95% interval.
    """
    rows = values.groupby(["column", "runs"], sort=False)["value"].agg(
        n="count", mean="mean", deviation="std", min="min", max="max"
    )
    for baseline in baselines:
        ours, theirs = (values[(values.runs == baseline) == its] for its in (False, True))
        theirs = theirs.drop_duplicates(["column", "seed"], keep="last")
        pairs = ours.merge(theirs, on=["column", "seed"])
        pairs["difference"] = pairs.value_x - pairs.value_y
        found = pairs.groupby(["column", "runs_x"])["difference"].agg(["count", "mean", "std"])
        half = half_interval(found["count"], found["std"])
        rows[f"minus {baseline}"] = found["mean"]
        rows[f"minus {baseline}, low"] = found["mean"] - half
        rows[f"minus {baseline}, high"] = found["mean"] + half
    return rows.reset_index()


def half_interval(n: pd.Series, deviation: pd.Series) -> pd.Series:
    """Half the 95% confidence interval of a mean by Student's t; infinite for a single value."""
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * deviation / np.sqrt(n)
    return half.where(n > 1, math.inf)


def compare(folder: Path, benchmark: Benchmark) -> str:
    """The tables as text; also `compare.txt`, `compare.csv` and `compare.html` in `folder`."""
    runs, unfinished = read_runs(folder)
    found = {name: named_groups(members) for name, members in tables(runs).items()}
    values = {name: measurements(members) for name, members in found.items()}
    rows = {name: spreads(each) for name, each in values.items()}
    parts = [_table_text(name, found[name], rows[name], benchmark) for name in found]
    if len(found) > 1:
        parts.insert(0, f"{len(found)} tables: runs differ in more than strategy and seed")
    text = "\n\n".join([*parts, *(f"not finished: {path}" for path in unfinished)]) + "\n"
    write_atomically(folder / "compare.txt", text.encode())
    table = pd.concat(rows, names=["table"]).reset_index("table") if rows else pd.DataFrame()
    content = table.to_csv(index=False, na_rep="nan", lineterminator="\r\n")
    write_atomically(folder / "compare.csv", content.encode())
    page = render(
        "compare.html.j2",
        title=f"{len(runs)} runs of {folder.name}",
        tables={name: _by_group(each) for name, each in values.items()},
        text=text,
    )
    write_atomically(folder / "compare.html", page.encode())
    return text


def _by_group(values: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Column -> group -> its values."""
    return {
        column: {name: list(group.value) for name, group in part.groupby("runs", sort=False)}
        for column, part in values.groupby("column", sort=False)
    }


def _table_text(
    name: str, runs: Mapping[str, Sequence[FinishedRun]], rows: pd.DataFrame, benchmark: Benchmark
) -> str:
    """A titled table of comparable runs, and a list of those without an accuracy."""
    parts = [f"== {name}"] if name else []
    for column, part in rows.groupby("column", sort=False):
        parts.append(_text(column, part.to_dict("records")))
        if column == "benchmark accuracy" and benchmark.table:
            parts[-1] += _whole_table(benchmark)
    measured = {row.runs for row in rows.itertuples() if column_named(row.column).accuracy}
    parts += [
        f"{group}: no accuracy to compare, as none of its {len(members)} networks was trained; "
        "run task=all with the same settings"
        for group, members in runs.items()
        if group not in measured
    ]
    return "\n\n".join(parts)


def _text(column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    width, about = max(len(row["runs"]) for row in rows), column_named(column)
    lines = [f"{'':{width}}   n        mean          sd         min         max"]
    for row in rows:
        numbers = "".join(f" {_number(row[k]):>11}" for k in ("mean", "deviation", "min", "max"))
        lines.append(f"{row['runs']:{width}} {row['n']:>3}{numbers}")
    for name in BASELINES if about.accuracy else ():
        cells = [_difference(row, name) for row in rows]
        if any(cells):
            cells.insert(0, f"paired difference to {name}")
            wide = max(map(len, cells))
            lines = [f"{line}   {cell:{wide}}" for line, cell in zip(lines, cells, strict=True)]
    head = f"{column} (%)" if about.percent else column
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _difference(row: Mapping[str, Any], baseline: str) -> str:
    mean, low, high = (row[f"minus {baseline}{end}"] for end in ("", ", low", ", high"))
    if math.isnan(mean):
        return ""
    if not math.isfinite(low):
        return f"{mean:+.2f} (one seed)"
    verdict = "" if low > 0 or high < 0 else f", not distinguishable from {baseline}"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]{verdict}"


def _whole_table(benchmark: Benchmark) -> str:
    values = pd.Series(benchmark.read())
    quantiles = values.quantile(QUANTILES)
    shown = ", ".join(f"{100 * q:.0f}%: {value:.2f}" for q, value in quantiles.items())
    return (
        f"\nall {len(values)} architectures of the table: mean {values.mean():.2f}, "
        f"best {values.max():.2f}; quantiles {shown}"
    )


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
