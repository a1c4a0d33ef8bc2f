"""The phases of a run by their names, each skipped when the run's folder holds it."""

from collections.abc import Callable

from archsmith.phases.baseline import baseline
from archsmith.phases.final import evaluate, export, retrain
from archsmith.phases.run import Run
from archsmith.phases.search import rank, search

PHASES: dict[str, Callable[[Run], None]] = {
    "search": search,
    "retrain": retrain,
    "evaluate": evaluate,
    "export": export,
    "baseline": baseline,
    "rank": rank,
}
