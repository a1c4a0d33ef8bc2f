"""The phases of a run by name; a phase that is already finished in the run's folder is skipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from archsmith import interrupt
from archsmith.job import Job
from archsmith.parallel import distributed
from archsmith.phases.baseline import baseline_phase
from archsmith.phases.export import export_phase
from archsmith.phases.final import evaluate_phase, retrain_phase
from archsmith.phases.latency import latency_phase
from archsmith.phases.run import Run
from archsmith.phases.search import rank_phase, search_phase


@dataclass(frozen=True)
class Phase:
    """A step of a run.

    Args:
        function: computes the phase, unless it is finished in the run's folder.
        together: whether all processes take part, splitting the batches of the settings group named
            like the phase (`search.batch_size`); rank 0 runs the other phases alone.
        trains: the network that it trains, which is built on the meta device before the run starts.
        left_out: called with a job; whether a task of several phases skips this one.
    """

    function: Callable[[Run], None]
    together: bool = False
    trains: Literal["supernet", "final"] | None = None
    left_out: Callable[[Job], bool] = lambda job: False


PHASES: dict[str, Phase] = {
    "search": Phase(
        search_phase,
        together=True,
        trains="supernet",
        left_out=lambda job: job.architecture is not None,
    ),
    "retrain": Phase(retrain_phase, together=True, trains="final"),
    "evaluate": Phase(evaluate_phase),
    "export": Phase(export_phase),
    "baseline": Phase(baseline_phase, left_out=lambda job: job.baseline is None),
    "rank": Phase(rank_phase),
    "measure_latency": Phase(latency_phase),
}


def phases_for(job: Job, phases: Sequence[str]) -> tuple[str, ...]:
    """The phases of a task that the job needs; a task's only phase is always included."""
    if len(phases) == 1:
        return tuple(phases)
    return tuple(name for name in phases if not PHASES[name].left_out(job))


def run_through(run: Run, phases: Sequence[str]) -> bool:
    """Runs the phases; returns whether this process continues (of several, only rank 0)."""
    for name in phases:
        interrupt.check(name)
        if not PHASES[name].together and not distributed.finish():
            return False
        PHASES[name].function(run)
    return distributed.finish()
