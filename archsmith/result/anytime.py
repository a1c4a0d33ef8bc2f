"""The true accuracy of what searches have found so far, against processor time."""

import json
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from archsmith.differences import value_at
from archsmith.result.runs import FinishedRun

POINTS = 120  # of a curve

History = list[tuple[float, float]]  # processor seconds -> accuracy in % from then on


class Curve(NamedTuple):
    """Median and quartiles in % at each of `times`, in processor seconds."""

    times: list[float]
    low: list[float]
    median: list[float]
    high: list[float]
    runs: int


def history(run: FinishedRun) -> History:
    """The true accuracy of the cell of each epoch, or of the candidate with the best score so far
    of a searcher; empty without a benchmark's table.

    Processor time is spread over the epochs as their time was.
    """
    if not run.results.get("benchmark"):
        return []
    seconds = value_at(run.results, "cpu_seconds.search")
    lines = _search_lines(run)
    walls = list(accumulate(line.get("seconds", math.nan) for line in lines))
    true = value_at(run.results, "benchmark.accuracy_by_epoch") or _best_so_far(
        value_at(run.results, "benchmark.accuracy_by_candidate") or [],
        [line["score"] for line in lines if "score" in line],
    )
    if not seconds or not lines or len(true) != len(lines) or math.isnan(walls[-1]):
        return []
    return [(wall / walls[-1] * seconds, one) for wall, one in zip(walls, true, strict=True)]


def _search_lines(run: FinishedRun) -> list[dict[str, float]]:
    path = run.folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in map(json.loads, lines) if line["phase"] == "search"]


def _best_so_far(true: Sequence[float], scores: Sequence[float]) -> list[float]:
    """Of the candidates so far, the true accuracy of the first one with the best score."""
    if len(true) != len(scores):
        return []
    return [true[scores.index(best)] for best in accumulate(scores, max)]


def curve(histories: Sequence[History]) -> Curve:
    """From the second at which all searches have found something to the end of the longest; one
    that has ended keeps its last accuracy."""
    begun, until = max(one[0][0] for one in histories), max(one[-1][0] for one in histories)
    times = np.linspace(begun, until, POINTS)
    columns = []
    for one in histories:
        starts, values = np.array(one).T
        columns.append(values[np.searchsorted(starts, times, side="right") - 1])
    low, median, high = np.percentile(columns, (25, 50, 75), axis=0).tolist()
    return Curve(times.tolist(), low, median, high, len(histories))
