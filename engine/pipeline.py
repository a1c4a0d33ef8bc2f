"""The phases of a run by their names, each skipped when the run's folder holds it."""

from collections.abc import Callable

from engine.phases.baseline import baseline
from engine.phases.final import evaluate, export, retrain
from engine.phases.run import Run
from engine.phases.search import rank, search

PHASES: dict[str, Callable[[Run], None]] = {
    "search": search,
    "retrain": retrain,
    "evaluate": evaluate,
    "export": export,
    "baseline": baseline,
    "rank": rank,
}
