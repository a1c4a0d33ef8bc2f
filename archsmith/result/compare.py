"""Compares runs: spreads over seeds and rank tests against baselines. It only reads run folders."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from archsmith.data.benchmark import Benchmark, without_search
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
from archsmith.result.statistics import (
    able,
    chance,
    holm,
    interval,
    mean_of_best,
    rank_test,
    shift,
    smallest,
)

BASELINES = ("random", "darts")
LEVEL = 0.05  # p-values up to this one, corrected, count as a difference
DRAWS = (3, 10)  # random architectures of which the table's best is taken
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NUMBERS = ("mean", "deviation", "median", "25%", "75%", "min", "max")
BENCHMARK, TESTED_COLUMN = "benchmark accuracy", "test accuracy"


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


def spreads(values: pd.DataFrame) -> pd.DataFrame:
    """A row per column and group of `measurements`: its spread over seeds, and the 95% interval of
    the mean from `low` to `high` (nan for fewer than 5 seeds)."""
    groups = values.groupby(["column", "runs"], sort=False)["value"]
    rows = groups.agg(
        n="count", mean="mean", deviation="std", median="median", min="min", max="max"
    )
    rows["25%"], rows["75%"] = groups.quantile(0.25), groups.quantile(0.75)
    intervals = [interval(list(group)) for _, group in groups]
    rows["low"], rows["high"] = zip(*intervals, strict=True) if intervals else ((), ())
    return rows.reset_index()


def differences(values: pd.DataFrame, baselines: Sequence[str] = BASELINES) -> pd.DataFrame:
    """A row per group and baseline of one column of `measurements`: the `shift` and the corrected
    p-value of the rank test. `p` is nan, and no part of the correction, where so few seeds can
    never differ (Tarone 1990)."""
    groups = {name: list(group.value) for name, group in values.groupby("runs")}
    pairs = [
        (name, baseline)
        for i, baseline in enumerate(baselines)
        for name in groups
        if baseline in groups and name not in baselines[: i + 1]
    ]
    tested = [(groups[name], groups[baseline]) for name, baseline in pairs]
    found = pd.DataFrame(pairs, columns=["runs", "baseline"])
    found["shift"] = [shift(*both) for both in tested]
    possible = able([smallest(*map(len, both)) for both in tested], LEVEL)
    rows = [i for i, possibly in enumerate(possible) if possibly]
    found["p"] = pd.Series(holm([rank_test(*tested[i]) for i in rows]), rows, dtype=float)
    return found


def compare(folder: Path, benchmark: Benchmark, only: Sequence[Path] | None = None) -> str:
    """The tables as text; also `compare.txt`, `compare.csv` and `compare.html` in `folder`.

    only: the folders of the runs to compare; None compares all below `folder`.
    """
    runs, unfinished = _read(folder, only)
    found = {name: named_groups(members) for name, members in tables(runs).items()}
    values = {name: measurements(members) for name, members in found.items()}
    rows = {name: _compared(each) for name, each in values.items()}
    parts = [_table_text(name, found[name], values[name], rows[name], benchmark) for name in found]
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


def best(folder: Path, only: Sequence[Path] | None = None) -> str:
    """A line on the run with the highest accuracy, of the last kind that any run has."""
    runs, _ = _read(folder, only)
    for column in (TESTED_COLUMN, BENCHMARK, "discretised accuracy"):
        found = [(run.values[name], run) for run in runs for name in run.values if column in name]
        if found:
            value, run = max(found, key=lambda one: one[0])
            return f"best of {len(found)} runs: {run.folder}, {column} {value:.2f}%\n"
    return ""


def _read(folder: Path, only: Sequence[Path] | None) -> tuple[list[FinishedRun], list[Path]]:
    """The runs below a folder and those that are not finished; of these folders, if given."""
    runs, unfinished = read_runs(folder)
    if only is None:
        return runs, unfinished
    wanted = {path.resolve() for path in only}
    return [run for run in runs if run.folder.resolve() in wanted], [
        path for path in unfinished if path.resolve() in wanted
    ]


def _compared(values: pd.DataFrame) -> pd.DataFrame:
    """The spreads of a table; in columns of accuracies beside the differences to baselines."""
    rows = spreads(values).set_index(["column", "runs"])
    for column, part in values.groupby("column"):
        for one in differences(part).itertuples() if column_named(column).accuracy else ():
            for name in ("shift", "p"):
                rows.loc[(column, one.runs), f"{name}, {one.baseline}"] = getattr(one, name)
    return rows.reset_index()


def _by_group(values: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Column -> group -> its values."""
    return {
        column: {name: list(group.value) for name, group in part.groupby("runs", sort=False)}
        for column, part in values.groupby("column", sort=False)
    }


def _table_text(
    name: str,
    runs: Mapping[str, Sequence[FinishedRun]],
    values: pd.DataFrame,
    rows: pd.DataFrame,
    benchmark: Benchmark,
) -> str:
    """A titled table of comparable runs, and a list of those without an accuracy."""
    parts = [f"== {name}"] if name else []
    for column, part in rows.groupby("column", sort=False):
        text = _text(column, part.to_dict("records"))
        if column == BENCHMARK and benchmark.table:
            text += _whole_table(benchmark, values[values.column == column])
        parts.append(text)
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
    head = "".join(f" {name:>10}" for name in NUMBERS).replace("deviation", "       sd")
    lines = [f"{'':{width}}   n{head}   95% of mean"]
    for row in rows:
        numbers = "".join(f" {_number(row[key]):>10}" for key in NUMBERS)
        lines.append(f"{row['runs']:{width}} {row['n']:>3}{numbers}   {_interval(row)}")
    for name in BASELINES if about.accuracy else ():
        cells = [_difference(row, name) for row in rows]
        if any(cells):
            cells.insert(0, f"against {name}")
            wide, long = max(map(len, cells)), max(map(len, lines))
            lines = [f"{a:{long}}   {b:{wide}}" for a, b in zip(lines, cells, strict=True)]
    titled = f"{column} (%)" if about.percent else column
    return "\n".join([titled, *_finding(rows), *(line.rstrip() for line in lines)])


def _interval(row: Mapping[str, Any]) -> str:
    return "" if math.isnan(row["low"]) else f"{_number(row['low'])} to {_number(row['high'])}"


def _difference(row: Mapping[str, Any], baseline: str) -> str:
    shift, p = (row.get(f"{name}, {baseline}", math.nan) for name in ("shift", "p"))
    if math.isnan(shift):
        return ""
    if math.isnan(p):
        return f"{shift:+.2f}, too few seeds"
    return f"{shift:+.2f}, p={p:.2g}" + ("" if p <= LEVEL else ", not distinguishable")


def _finding(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on who is better and worse than a baseline, and who cannot be told from it."""
    said = []
    for baseline in BASELINES:
        shifts = {row["runs"]: row.get(f"shift, {baseline}", math.nan) for row in rows}
        shifts = {name: shift for name, shift in shifts.items() if not math.isnan(shift)}
        if not shifts:
            continue
        p = {row["runs"]: row.get(f"p, {baseline}", math.nan) for row in rows}
        parts = {
            f"better than {baseline}": [n for n in shifts if p[n] <= LEVEL and shifts[n] > 0],
            f"worse than {baseline}": [n for n in shifts if p[n] <= LEVEL and shifts[n] < 0],
            f"not distinguishable from {baseline}": [n for n in shifts if p[n] > LEVEL],
            f"too few seeds against {baseline}": [n for n in shifts if math.isnan(p[n])],
        }
        said.append("; ".join(f"{what}: {', '.join(who)}" for what, who in parts.items() if who))
    return said


def _whole_table(benchmark: Benchmark, values: pd.DataFrame) -> str:
    """The distribution of the table, and the chance of each group's mean under random drawing."""
    table = pd.Series(benchmark.read())
    quantiles = table.quantile(QUANTILES)
    shown = ", ".join(f"{100 * q:.0f}%: {value:.2f}" for q, value in quantiles.items())
    lines = [
        f"all {len(table)} architectures of the table: mean {table.mean():.2f}, "
        f"best {table.max():.2f}; quantiles {shown}",
        *_without_search(table),
        "chance that as many architectures drawn from the table have so high a mean:",
        *(
            f"  {name}: {chance(list(table), list(group.value)):.2g}"
            for name, group in values.groupby("runs")
        ),
    ]
    return "".join(f"\n{line}" for line in lines)


def _without_search(table: pd.Series) -> list[str]:
    """What random drawing and some cells that are easily named have."""
    drawn = ", ".join(f"of {n} {mean_of_best(list(table), n):.2f}" for n in DRAWS)
    lines = [f"without a search: the best of several at random, in the mean: {drawn}"]
    for said, found in without_search(table.to_dict()).items():
        if found:
            above = (table < fmean(found)).mean()
            lines.append(f"  {len(found)} {said}: mean {fmean(found):.2f}, above {above:.1%}")
    return lines


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
