"""Runs for `task=compare`: which of them share a table, and how each is labelled there.

Runs are comparable if everything except strategy and seed is equal, where images are compared by
fingerprint and not by path.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsmith.differences import differing_keys, digest, renamed
from archsmith.errors import ConfigError

# settings that distinguish the groups of a table, or do not affect results
OWN = ("strategy", "seed", "architecture", "weights", "export")

# column -> the value of a run, None if it has none; accuracies in %
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
    """A run whose search or retraining is finished, with its `results.json` and `config.json`."""

    folder: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.results["seed"])

    def value(self, column: str) -> float | None:
        """The run's value in a column; a test accuracy appears only in the column of its recipe."""
        if column in COLUMNS:
            found = COLUMNS[column](self.results)
        else:
            found = _percent(self.results["test_accuracy"]) if column == self.tested else None
        return None if found is None else float(found)

    @property
    def tested(self) -> str:
        """The column of its test accuracy; each recipe has its own column."""
        recipe = self.config["retrain"]
        shown = f"{recipe['epochs']} epochs, {recipe['channels']} channels"
        return f"test accuracy ({shown}, recipe {digest(recipe)})"

    @property
    def method(self) -> dict[str, Any]:
        """The settings of its strategy, and the architecture that was given instead of a search."""
        return {**self.config["strategy"], "architecture": self.config.get("architecture")}

    @property
    def content(self) -> str:
        """The fingerprint of its images; older runs have none."""
        return str(self.results.get("data_fingerprint"))

    @property
    def data_seed(self) -> Any:
        return self.config.get("data", {}).get("seed")

    @property
    def surroundings(self) -> dict[str, Any]:
        """All settings it depends on, except strategy, seed and the images themselves."""
        data = {k: v for k, v in self.config.get("data", {}).items() if k not in ("root", "seed")}
        rest = {k: v for k, v in self.config.items() if k not in OWN}
        return rest | {"data": data}


def read_runs(folder: Path) -> tuple[list[Run], list[Path]]:
    """Every run below `folder`, and the folders of runs without a result.

    Raises ConfigError if there is no run at all.
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
            f"runs: no run below '{folder}', seen from {Path.cwd()}; start some, or set runs to a "
            "folder that holds runs"
        )
    return found, unfinished


def _read(path: Path) -> Run | None:
    try:
        results = json.loads((path / "results.json").read_text())
        config = renamed(json.loads((path / "config.json").read_text()))
        phases = json.loads((path / "phases.json").read_text())
    except FileNotFoundError:
        return None
    return Run(path, results, config) if "search" in phases or "retrain" in phases else None


def tables(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Comparable runs, keyed by the settings that distinguish them; '' if all are comparable."""
    found = [
        part
        for alike in _by(runs, lambda run: digest(run.surroundings))
        for part in _same_images(alike)
    ]
    facts = [members[0].surroundings | {"images": members[0].content[:8]} for members in found]
    apart = sorted({key for fact in facts for key in differing_keys(facts[0], fact)})
    return {
        " ".join(_told(fact, apart)): members for fact, members in zip(facts, found, strict=True)
    }


def _same_images(runs: list[Run]) -> list[list[Run]]:
    """Groups runs by their images; a split that differs only by the run's seed is no difference."""
    of_seed = _by(runs, lambda run: run.seed)
    drawn = all(run.data_seed == run.seed for run in runs)
    if drawn and all(len({run.content for run in members}) == 1 for members in of_seed):
        return [runs]
    return _by(runs, lambda run: (run.data_seed, run.content))


def _by(runs: Iterable[Run], key: Callable[[Run], Hashable]) -> list[list[Run]]:
    found: dict[Hashable, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return list(found.values())


def groups(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Groups of comparable runs that differ only in their seed, keyed by strategy name.

    The settings that differ from the first group of that name are appended to the key.
    """
    named: dict[str, list[Run]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for members in _by(runs, lambda run: digest([run.results["strategy"], run.method])):
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
    return [
        f"{leaf if short and leaves.count(leaf) == 1 else key}={_value(_at(settings, key))}"
        for key, leaf in zip([*shown, *classes], [*leaves, *classes], strict=True)
    ]


def _value(value: Any) -> str:
    """A setting, abbreviated: an ingredient as its class, a file as the start of its digest."""
    if isinstance(value, Mapping):
        return str(value.get("_target_", "{...}")).rpartition(".")[2]
    if value is None:
        return "none"
    digits = isinstance(value, str) and len(value) == 64
    return value[:8] if digits else str(value).replace(" ", "")


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def columns(runs: Sequence[Run]) -> list[str]:
    """The columns in which any run has a value, test accuracies first."""
    tested = sorted({run.tested for run in runs if run.results["test_accuracy"] is not None})
    return [c for c in [*tested, *COLUMNS] if any(run.value(c) is not None for run in runs)]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
