"""How much of the variance of the results each swept setting explains."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from archsmith.differences import differing_keys, value_at
from archsmith.result.runs import FinishedRun, result_column, shown_value
from archsmith.result.statistics import explained

EACH = 3  # runs per value, in the mean, that are needed to say anything
BINS = 4  # of a setting that has more values than that allows


class Importance(NamedTuple):
    """A setting's share of the variance of the results, and the share that is expected of a setting
    without any effect; both are nan where there are too few runs, the share where all are equal.

    groups: value, or range of values -> mean result in %, and number of runs.
    """

    setting: str
    runs: int
    groups: dict[str, tuple[float, int]]
    share: float
    by_chance: float


def importances(runs: Sequence[FinishedRun]) -> list[Importance]:
    """The settings in which runs of the same strategy differ, the most important first, and then
    strategy and seed; none if strategies and seeds are all that differs.

    A setting is judged by the runs of those strategies in which it varies.
    """
    kind = (result_column(runs) or "").partition(" (")[0]
    found = [(run, value) for run in runs if (value := _result(run, kind)) is not None]
    by_strategy: dict[str, list[tuple[FinishedRun, float]]] = {}
    for run, value in found:
        by_strategy.setdefault(run.results["strategy"], []).append((run, value))
    where: dict[str, list[tuple[FinishedRun, float]]] = {}
    for members in by_strategy.values():
        for key in swept([run for run, _ in members]):
            where.setdefault(key, []).extend(members)
    shares = [
        _importance(key, [(value_at(_settings(run), key), value) for run, value in members])
        for key, members in where.items()
    ]
    if not shares:
        return []
    others = {
        "strategy": [(run.results["strategy"], value) for run, value in found],
        "seed": [(str(run.seed), value) for run, value in found],
    }
    return [
        *sorted(shares, key=lambda one: (np.isnan(one.share), -one.share)),
        *(_importance(key, pairs) for key, pairs in others.items() if len(dict(pairs)) > 1),
    ]


def swept(runs: Sequence[FinishedRun]) -> list[str]:
    """Dotted names of the settings in which runs differ, but for seed and paths; where a class
    differs, that stands for the settings within it."""
    settings = [_settings(run) for run in runs]
    keys = sorted({key for one in settings for key in differing_keys(settings[0], one)})
    classes = [key.removesuffix("._target_") for key in keys if key.endswith("._target_")]
    return [
        *(key for key in keys if not any(key.startswith(f"{parent}.") for parent in classes)),
        *classes,
    ]


def _settings(run: FinishedRun) -> dict[str, Any]:
    return {**run.surroundings, "strategy": run.config["strategy"], "search": run.config["search"]}


def _result(run: FinishedRun, kind: str) -> float | None:
    """The accuracy of a kind, whatever the recipe."""
    return next((v for name, v in run.values.items() if kind and name.startswith(kind)), None)


def _importance(setting: str, pairs: Sequence[tuple[Any, float]]) -> Importance:
    """The share of a setting from its value and the result of each run."""
    groups = _grouped(pairs)
    few = len(pairs) < EACH * len(groups)
    share, by_chance = (np.nan, np.nan) if few else explained([*groups.values()])
    means = {name: (fmean(values), len(values)) for name, values in groups.items()}
    return Importance(setting, len(pairs), means, share, by_chance)


def _grouped(pairs: Sequence[tuple[Any, float]]) -> dict[str, list[float]]:
    """Results by value; by ranges with about as many runs each, where numbers have many values."""
    values = [value for value, _ in pairs]
    bins = min(BINS, len(pairs) // EACH)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    groups: dict[str, list[float]] = {}
    if numbers and len({*values}) > len(pairs) // EACH and bins > 1:
        ends = np.quantile(values, np.linspace(0, 1, bins + 1))
        places = np.searchsorted(ends[1:-1], values, side="left")
        for i in range(bins):
            inside = [j for j, place in enumerate(places) if place == i]
            if inside:
                low, high = (edge(values[j] for j in inside) for edge in (min, max))
                groups[f"{low:.3g} to {high:.3g}"] = [pairs[j][1] for j in inside]
        return groups
    for value, result in sorted(pairs, key=lambda pair: _order(pair[0])):
        groups.setdefault(shown_value(value), []).append(result)
    return groups


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers in their order, then everything else by name."""
    numeric = isinstance(value, (int, float))
    return not numeric, value if numeric else shown_value(value)
