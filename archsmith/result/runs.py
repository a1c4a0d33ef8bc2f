"""Runs for `task=compare`: which of them share a table, and how each is labelled there.

Runs are comparable if everything except strategy and seed is equal, where images are compared by
fingerprint and not by path.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from archsmith.differences import differing_keys, digest, given, renamed, value_at
from archsmith.errors import ConfigError

BASELINES = ("random", "darts")  # strategies that the others are tested against
BENCHMARK, TESTED_COLUMN = "benchmark accuracy", "test accuracy"
RESULT = (TESTED_COLUMN, BENCHMARK, "discretised accuracy", "supernet accuracy")  # best first
# settings that distinguish the groups of a table, or do not affect results
OWN = ("strategy", "seed", "architecture", "weights", "export")


class Column(NamedTuple):
    """Where in `results.json` a value is; shares are shown in %, accuracies beside baselines."""

    key: str
    share: bool = False
    accuracy: bool = False

    @property
    def percent(self) -> bool:
        return self.share or self.accuracy


TESTED = Column("test_accuracy", share=True, accuracy=True)  # a column for each recipe
COLUMNS = {
    BENCHMARK: Column("benchmark.accuracy", accuracy=True),
    "supernet accuracy": Column("supernet_accuracy", share=True, accuracy=True),
    "discretised accuracy": Column("discretised_accuracy", share=True, accuracy=True),
    "discretisation gap": Column("diagnosis.discretisation_gap", share=True),
    "distance from the first epoch": Column("diagnosis.distance"),
    "alpha eigenvalue": Column("diagnosis.alpha_eigenvalue"),
    "signal to noise of the alphas' gradient": Column("diagnosis.alpha_signal"),
    "weight sharpness": Column("diagnosis.weight_sharpness"),
    "parameters": Column("parameters"),
    "macs": Column("macs"),
    "search epochs": Column("search_epochs"),
    "search seconds, this thread's processor time": Column("cpu_seconds.search"),
    "search seconds": Column("seconds.search"),
}


def column_named(name: str) -> Column:
    return COLUMNS.get(name, TESTED)


@dataclass(frozen=True)
class FinishedRun:
    """A run whose search or retraining is finished, with its `results.json` and `config.json`."""

    folder: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.results["seed"])

    @cached_property
    def values(self) -> dict[str, float]:
        """Column -> value, of those it has; a test accuracy is in the column of its recipe."""
        found = {
            name: (value_at(self.results, column.key), 100 if column.share else 1)
            for name, column in {self.tested: TESTED, **COLUMNS}.items()
        }
        return {name: float(one * of) for name, (one, of) in found.items() if one is not None}

    @property
    def tested(self) -> str:
        """The column of its test accuracy; each recipe has its own column."""
        recipe = self.config["retrain"]
        shown = f"{recipe['epochs']} epochs, {recipe['channels']} channels"
        return f"test accuracy ({shown}, recipe {digest(recipe)})"

    @property
    def latency(self) -> float | None:
        """Median ms of a pass, of runs that limit it (`budget`) or time their export."""
        limited = value_at(self.results, "budget.latency")
        found = limited or (self.results.get("latency") or {}).get("model.py")
        return float(found["median"]) if found else None

    @property
    def method(self) -> dict[str, Any]:
        """The settings of its strategy, how a searcher scores, and the architecture that was given
        instead of a search."""
        scored = value_at(self.results, "diagnosis.scored") is not None
        search = self.config["search"]
        return {
            **self.config["strategy"],
            "architecture": self.config.get("architecture"),
            **({key: search.get(key) for key in self._scoring} if scored else {}),
        }

    @property
    def _scoring(self) -> tuple[str, ...]:
        """Settings of the search that only tell how a searcher scores; the epochs, too, where the
        length of a search is a number of seconds."""
        return ("score", "epochs") if self.config["search"].get("seconds") else ("score",)

    @property
    def content(self) -> str:
        """The fingerprint of its images; older runs have none."""
        return str(self.results.get("data_fingerprint"))

    @property
    def data_seed(self) -> Any:
        return value_at(self.config, "data.seed")

    @property
    def surroundings(self) -> dict[str, Any]:
        """All settings it depends on, except strategy, seed and the images themselves."""
        data = {k: v for k, v in self.config.get("data", {}).items() if k not in ("root", "seed")}
        search = {k: v for k, v in self.config["search"].items() if k not in self._scoring}
        rest = {k: v for k, v in self.config.items() if k not in OWN}
        return rest | {"data": data, "search": search}


def read_runs(folder: Path) -> tuple[list[FinishedRun], list[Path]]:
    """Every run below `folder`, and the folders of runs without a result.

    Raises ConfigError if there is no run at all.
    """
    read = {file.parent: _read(file.parent) for file in sorted(folder.rglob("config.json"))}
    if not read:
        raise ConfigError(
            f"runs: no run below '{folder}', seen from {Path.cwd()}; start some, or set runs to a "
            "folder that holds runs"
        )
    return [run for run in read.values() if run], [path for path, run in read.items() if not run]


def _read(path: Path) -> FinishedRun | None:
    try:
        results = json.loads((path / "results.json").read_text())
        config = renamed(json.loads((path / "config.json").read_text()))
        phases = json.loads((path / "phases.json").read_text())
    except FileNotFoundError:
        return None
    return FinishedRun(path, results, config) if "search" in phases or "retrain" in phases else None


def tables(runs: Iterable[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Comparable runs, keyed by the settings that distinguish them; '' if all are comparable."""
    found = [
        part
        for alike in _by(runs, lambda run: digest(given(run.surroundings)))
        for part in _same_images(alike)
    ]
    facts = [members[0].surroundings | {"images": members[0].content[:8]} for members in found]
    apart = sorted({key for fact in facts for key in differing_keys(facts[0], fact)})
    return {
        " ".join(_told(fact, apart)): members for fact, members in zip(facts, found, strict=True)
    }


def _same_images(runs: list[FinishedRun]) -> list[list[FinishedRun]]:
    """Groups runs by their images; a split that differs only by the run's seed is no difference."""
    of_seed = _by(runs, lambda run: run.seed)
    drawn = all(run.data_seed == run.seed for run in runs)
    if drawn and all(len({run.content for run in members}) == 1 for members in of_seed):
        return [runs]
    return _by(runs, lambda run: (run.data_seed, run.content))


def _by(
    runs: Iterable[FinishedRun], key: Callable[[FinishedRun], Hashable]
) -> list[list[FinishedRun]]:
    found: dict[Hashable, list[FinishedRun]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return list(found.values())


def named_groups(runs: Iterable[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Groups of comparable runs that differ only in their seed, keyed by strategy name.

    The settings that differ from the first group of that name are appended to the key.
    """
    named: dict[str, list[FinishedRun]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for members in _by(runs, lambda run: digest([run.results["strategy"], given(run.method)])):
        strategy, settings = members[0].results["strategy"], members[0].method
        apart = differing_keys(first.setdefault(strategy, settings), settings)
        name = " ".join([strategy, *_told(settings, apart, short=True)])
        named[name] = sorted(members, key=lambda run: run.seed)
    return named


def _told(settings: Mapping[str, Any], keys: Sequence[str], *, short: bool = False) -> list[str]:
    """`key=value` per key, without parents if `short`; another ingredient as its class."""
    classes = [key.removesuffix("._target_") for key in keys if key.endswith("._target_")]
    shown = [key for key in keys if not any(key.startswith(f"{parent}.") for parent in classes)]
    leaves = [key.rpartition(".")[2] for key in shown]
    names = [
        leaf if short and leaves.count(leaf) == 1 else key
        for key, leaf in zip([*shown, *classes], [*leaves, *classes], strict=True)
    ]
    values = [shown_value(value_at(settings, key)) for key in [*shown, *classes]]
    return [f"{name}={value}" for name, value in zip(names, values, strict=True)]


def shown_value(value: Any) -> str:
    """A setting, abbreviated: an ingredient as its class, a file as the start of its digest."""
    if isinstance(value, Mapping):
        return str(value.get("_target_", "{...}")).rpartition(".")[2]
    if value is None:
        return "none"
    digits = isinstance(value, str) and len(value) == 64
    return value[:8] if digits else str(value).replace(" ", "")


def result_column(runs: Sequence[FinishedRun]) -> str | None:
    """The column of accuracies that tells most: of the final networks, if any run has trained one;
    None if no run has an accuracy."""
    found = columns(runs)
    return next((c for kind in RESULT for c in found if c.startswith(kind)), None)


def columns(runs: Sequence[FinishedRun]) -> list[str]:
    """The columns in which any run has a value, test accuracies first."""
    tested = sorted({run.tested for run in runs})
    return [c for c in [*tested, *COLUMNS] if any(c in run.values for run in runs)]
