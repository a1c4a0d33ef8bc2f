"""`compare.html`: the finding, tables, charts and cells of compared runs, with links to them."""

import math
from collections.abc import Mapping, Sequence
from os.path import relpath
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from archsmith.differences import value_at
from archsmith.drawing.charts import COLOURS, Axis
from archsmith.drawing.render import render
from archsmith.result.anytime import curve, history
from archsmith.result.comparison_charts import Mark, anytime, brief, dots, percents, scatter
from archsmith.result.importance import importances
from archsmith.result.random_drawing import RandomDrawing
from archsmith.result.runs import BASELINES, BENCHMARK, FinishedRun, column_named, result_column
from archsmith.result.statistics import LEVEL
from archsmith.result.verdict import verdict

Groups = Mapping[str, Sequence[FinishedRun]]
Row = dict[str, Any]

DOTTED = 40  # groups of which every seed is drawn
THUMBNAILS = 12  # strategies whose best cells are drawn
CELLS = 2  # drawn of each
LARGEST = 60_000  # bytes of a drawing that still is one
BAR = (4, 156)  # ends of an interval's bar
COSTS = {  # name -> column of a run; of the table and, but for times, the scatters
    "parameters": "parameters",
    "multiply-accumulates": "macs",
    "latency, ms": "latency",
    "processor seconds of search": "search seconds, this thread's processor time",
}
GROUPS = 7  # that have a colour of their own; more cannot be told apart
OTHERS = "#7f8790"  # of all other groups


class Part(NamedTuple):
    """Comparable runs by group, and the rows of their spreads and differences; `name` tells them
    from other parts."""

    name: str
    runs: Groups
    rows: pd.DataFrame
    drawn: RandomDrawing | None


def page(folder: Path, parts: Sequence[Part], unfinished: Sequence[Path]) -> str:
    """The page, for a place in `folder`: links to runs are relative to it."""
    runs = [run for part in parts for members in part.runs.values() for run in members]
    return render(
        "compare.html.j2",
        title=f"{len(runs)} runs of {folder.resolve().name}",
        parts=[
            _facts(part, folder, colours)
            for part, colours in zip(parts, _colours(parts), strict=True)
        ],
        importances=importances(runs),
        unfinished=[_relative(path, folder) for path in unfinished],
        baselines=BASELINES,
        level=LEVEL,
        about=column_named,
        brief=brief,
        other=OTHERS,
    )


def _colours(parts: Sequence[Part]) -> list[dict[str, str]]:
    """For each part: group -> colour; the same in all parts, if there are enough colours. Beyond
    the palette all groups of a part have one."""
    own = [[row["runs"] for row in _result_rows(part)] for part in parts]
    every = [*dict.fromkeys(name for names in own for name in names)]
    if len(every) <= GROUPS:
        own = [every] * len(parts)
    return [dict(zip(one, [*COLOURS[:GROUPS], *[OTHERS] * len(one)], strict=False)) for one in own]


def _result_rows(part: Part) -> list[Row]:
    """Rows of the column that tells most, from the highest mean on."""
    column = result_column([run for members in part.runs.values() for run in members])
    rows = part.rows[part.rows["column"] == column].sort_values(
        "mean", ascending=False, kind="stable"
    )
    found: list[Row] = rows.to_dict("records")
    return found


def _facts(part: Part, folder: Path, colours: Mapping[str, str]) -> Row:
    """What the template shows of a part."""
    rows = _result_rows(part)
    column = rows[0]["column"] if rows else ""
    found = {
        name: _marks(name, part.runs[name], column, folder, colours[name])
        for name in (row["runs"] for row in rows)
    }
    looked_up = part.drawn if column == BENCHMARK else None
    pairs = [pair for one in found.values() for pair in one]
    return {
        "name": part.name,
        "verdict": verdict(rows, looked_up),
        "looked_up": looked_up is not None,
        "about": _about(part.runs, column),
        "column": column,
        "rows": [_table_row(row, part, colours) for row in rows],
        "bar": _bar_axis(rows),
        "costs": [cost for cost in COSTS if any(_costs(m, cost) for m in part.runs.values())],
        "without": [name for name in part.runs if name not in found],
        "drawn": part.drawn,
        "dots": _dots(found),
        "dotted": DOTTED,
        "scatters": _scatters(pairs),
        "anytime": _anytime(part.runs, colours),
        "colours": {name: colours[name] for name in found if colours[name] != OTHERS},
        "others": len([name for name in found if colours[name] == OTHERS]),
        "cells": _thumbnails(pairs)[:THUMBNAILS],
        "undrawn": max(0, len({run.results["strategy"] for run, _ in pairs}) - THUMBNAILS),
        "runs": [
            {"name": name, "run": run, "mark": mark, "costs": {c: _cost(run, c) for c in COSTS}}
            for name, one in found.items()
            for run, mark in one
        ],
        "columns": {
            name: group.to_dict("records")
            for name, group in part.rows.groupby("column", sort=False)
        },
    }


def _about(runs: Groups, column: str) -> str:
    """How many runs of what."""
    members = [run for one in runs.values() for run in one]
    results = members[0].results
    seeds = sorted({len(one) for one in runs.values()})
    each = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    what = ", ".join(str(results[key]) for key in ("space", "data") if results.get(key))
    strategies = {run.results["strategy"] for run in members}
    counted = f"{_number(members, 'run')} of {_number(strategies, 'strategy', 'strategies')}"
    counted += f" in {len(runs)} variants" if len(runs) > len(strategies) else ""
    counted += f", {each} each" if len(runs) > 1 else ""
    return "; ".join(one for one in (what, counted, column and f"compared by {column}") if one)


def _number(of: Any, one: str, many: str | None = None) -> str:
    return f"{len(of)} {one if len(of) == 1 else many or one + 's'}"


def _cost(run: FinishedRun, cost: str) -> float | None:
    return run.latency if COSTS[cost] == "latency" else run.values.get(COSTS[cost])


def _costs(runs: Sequence[FinishedRun], cost: str) -> list[float]:
    return [found for run in runs if (found := _cost(run, cost)) is not None]


def _table_row(row: Row, part: Part, colours: Mapping[str, str]) -> Row:
    """A row of the table, with the medians of costs."""
    costs = {cost: _costs(part.runs[row["runs"]], cost) for cost in COSTS}
    return row | {
        "colour": colours[row["runs"]],
        "costs": {cost: median(found) if found else None for cost, found in costs.items()},
        "chance": part.drawn.chances.get(row["runs"]) if part.drawn else None,
    }


def _bar_axis(rows: Sequence[Row]) -> Axis | None:
    """Of the bars of intervals in the table."""
    ends = [row[key] for row in rows for key in ("min", "max", "low", "high")]
    return Axis(percents(end for end in ends if not math.isnan(end)), *BAR, ".4g") if rows else None


def _relative(path: Path, folder: Path) -> str:
    return Path(relpath(path.resolve(), folder.resolve())).as_posix()


def _marks(
    name: str, runs: Sequence[FinishedRun], column: str, folder: Path, colour: str
) -> list[tuple[FinishedRun, Mark]]:
    """The runs of a group that have a value, each as a dot that says what it is."""
    found = []
    for run in runs:
        if column in run.values:
            value, report = run.values[column], run.folder / "report.html"
            href = quote(_relative(report, folder)) if report.is_file() else None
            said = f"{name}, seed {run.seed}: {value:.2f}%\n{_relative(run.folder, folder)}"
            found.append((run, Mark(value, colour, said, href)))
    return found


def _dots(found: Mapping[str, Sequence[tuple[FinishedRun, Mark]]]) -> Row | None:
    """The runs of the first groups."""
    drawn = {name: [mark for _, mark in found[name]] for name in list(found)[:DOTTED]}
    return dots(drawn) if drawn else None


def _scatters(marks: Sequence[tuple[FinishedRun, Mark]]) -> list[Row]:
    """Accuracy against each cost that at least two runs have and that differs between them."""
    found = []
    for cost in list(COSTS)[:-1]:
        points = [
            mark._replace(cost=value, said=f"{mark.said}\n{cost}: {value:,.6g}")
            for run, mark in marks
            if (value := _cost(run, cost)) is not None
        ]
        if len({point.cost for point in points}) > 1:
            found.append({"cost": cost, **scatter(points, cost)})
    return found


def _anytime(runs: Groups, colours: Mapping[str, str]) -> Row | None:
    """The true accuracy against processor time, of the groups whose runs all have it."""
    curves = {}
    for name, members in runs.items():
        histories = [history(run) for run in members]
        if name in colours and all(histories):
            curves[name] = curve(histories)
    if not curves:
        return None
    best = [value_at(run.results, "benchmark.best") for one in runs.values() for run in one]
    return anytime(curves, max((one for one in best if one), default=None))


def _thumbnails(marks: Sequence[tuple[FinishedRun, Mark]]) -> list[Row]:
    """The cells of the best run of each strategy, of those that have drawings."""
    of: dict[str, list[tuple[FinishedRun, Mark]]] = {}
    for run, mark in marks:
        of.setdefault(run.results["strategy"], []).append((run, mark))
    found = []
    for name, one in of.items():
        run, mark = max(one, key=lambda pair: pair[1].value)
        files = [f for f in sorted(run.folder.glob("cell_*.svg")) if f.stat().st_size <= LARGEST]
        if files:
            found.append(
                {
                    "name": name,
                    "run": run,
                    "mark": mark,
                    "of": len(one),
                    "cells": [file.read_text(encoding="utf-8") for file in files[:CELLS]],
                    "more": len(files[CELLS:]),
                }
            )
    return found
