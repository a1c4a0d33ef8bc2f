"""The phases of a run by their names, each skipped when the run's folder holds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from archsmith import interrupt
from archsmith.job import Job
from archsmith.parallel import distributed
from archsmith.phases.baseline import baseline
from archsmith.phases.final import evaluate, export, retrain
from archsmith.phases.run import Run
from archsmith.phases.search import rank, search


@dataclass(frozen=True)
class Phase:
    """A step of a run.

    Args:
        function: computes the phase, unless the run's folder holds it.
        together: whether all processes take part, which share the batches of the settings of the
            phase's name (`search.batch_size`); the first process does the others alone.
        trains: the network that it trains, which is tried without memory before the run begins.
        left_out: whether a task of several phases does without it for a job.
    """

    function: Callable[[Run], None]
    together: bool = False
    trains: Literal["supernet", "final"] | None = None
    left_out: Callable[[Job], bool] = lambda job: False


PHASES: dict[str, Phase] = {
    "search": Phase(
        search,
        together=True,
        trains="supernet",
        left_out=lambda job: job.architecture is not None,
    ),
    "retrain": Phase(retrain, together=True, trains="final"),
    "evaluate": Phase(evaluate),
    "export": Phase(export),
    "baseline": Phase(baseline, left_out=lambda job: job.baseline is None),
    "rank": Phase(rank),
}


def phases_for(job: Job, phases: Sequence[str]) -> tuple[str, ...]:
    """Those of a task's phases that the job needs; the only phase of a task is never left out."""
    if len(phases) == 1:
        return tuple(phases)
    return tuple(name for name in phases if not PHASES[name].left_out(job))


def run_through(run: Run, phases: Sequence[str]) -> bool:
    """Runs phases; says whether this process goes on: of several only the first does."""
    for name in phases:
        interrupt.check(name)
        if not PHASES[name].together and not distributed.finish():
            return False
        PHASES[name].function(run)
    return distributed.finish()
