"""Compares runs: spreads over seeds and rank tests against baselines. It only reads run folders."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from archsmith.data.benchmark import Benchmark
from archsmith.files import write_atomically
from archsmith.result.comparison_page import Part, page
from archsmith.result.random_drawing import RandomDrawing
from archsmith.result.runs import (
    BASELINES,
    BENCHMARK,
    TESTED_COLUMN,
    FinishedRun,
    column_named,
    columns,
    named_groups,
    read_runs,
    tables,
)
from archsmith.result.statistics import (
    LEVEL,
    able,
    holm,
    interval,
    rank_test,
    shift,
    smallest,
)
from archsmith.result.verdict import standing

NUMBERS = ("mean", "deviation", "median", "25%", "75%", "min", "max")


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
    drawn = {name: _drawn(benchmark, each) for name, each in values.items()}
    parts = [_table_text(name, found[name], rows[name], drawn[name]) for name in found]
    if len(found) > 1:
        parts.insert(0, f"{len(found)} tables: runs differ in more than strategy and seed")
    text = "\n\n".join([*parts, *(f"not finished: {path}" for path in unfinished)]) + "\n"
    write_atomically(folder / "compare.txt", text.encode())
    table = pd.concat(rows, names=["table"]).reset_index("table") if rows else pd.DataFrame()
    content = table.to_csv(index=False, na_rep="nan", lineterminator="\r\n")
    write_atomically(folder / "compare.csv", content.encode())
    shown = [Part(name, found[name], rows[name], drawn[name]) for name in found]
    write_atomically(folder / "compare.html", page(folder, shown, unfinished).encode())
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


def _drawn(benchmark: Benchmark, values: pd.DataFrame) -> RandomDrawing | None:
    """What random drawing from the benchmark's table gives, if any of the runs was looked up."""
    found = values[values.column == BENCHMARK]
    if found.empty or not benchmark.table:
        return None
    groups = {name: list(group.value) for name, group in found.groupby("runs")}
    return RandomDrawing(benchmark.read(), groups)


def _table_text(
    name: str,
    runs: Mapping[str, Sequence[FinishedRun]],
    rows: pd.DataFrame,
    drawn: RandomDrawing | None,
) -> str:
    """A titled table of comparable runs, and a list of those without an accuracy."""
    parts = [f"== {name}"] if name else []
    for column, part in rows.groupby("column", sort=False):
        text = _text(column, part.to_dict("records"))
        if column == BENCHMARK and drawn:
            text += _whole_table(drawn)
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
        found = standing(rows, baseline)
        parts = {
            f"better than {baseline}": found.better,
            f"worse than {baseline}": found.worse,
            f"not distinguishable from {baseline}": found.like,
            f"too few seeds against {baseline}": found.few,
        }
        said.append("; ".join(f"{what}: {', '.join(who)}" for what, who in parts.items() if who))
    return [line for line in said if line]


def _whole_table(drawn: RandomDrawing) -> str:
    """The distribution of the table, and the chance of each group's mean under random drawing."""
    shown = ", ".join(f"{100 * q:.0f}%: {value:.2f}" for q, value in drawn.quantiles.items())
    best = ", ".join(f"of {n} {value:.2f}" for n, value in drawn.best.items())
    lines = [
        f"all {drawn.size} architectures of the table: mean {drawn.mean:.2f}, "
        f"best {drawn.most:.2f}; quantiles {shown}",
        f"without a search: the best of several at random, in the mean: {best}",
        *(
            f"  {cells.number} {said}: mean {cells.mean:.2f}, above {cells.above:.1%}"
            for said, cells in drawn.named.items()
        ),
        "chance that as many architectures drawn from the table have so high a mean:",
        *(f"  {name}: {p:.2g}" for name, p in drawn.chances.items()),
    ]
    return "".join(f"\n{line}" for line in lines)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
