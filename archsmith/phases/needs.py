"""What a phase needs besides images, and the error if it is missing."""

from collections.abc import Callable
from dataclasses import dataclass

from archsmith.errors import ConfigError
from archsmith.job import Job


@dataclass(frozen=True)
class Need:
    """A test of whether a job has what is needed, and the line that says how to provide it."""

    there: Callable[[Job], bool]
    line: str


def _architecture(job: Job) -> bool:
    return job.architecture is not None or (job.folder / "architecture.json").is_file()


def _weights(job: Job) -> bool:
    given = job.weights is not None and job.weights.is_file()
    return given or (job.folder / "weights.safetensors").is_file()


NEEDS = {
    "architecture": Need(
        _architecture,
        "architecture: this task needs one; set architecture=<file, run directory or published "
        "name>, or run task=search first with the same settings",
    ),
    "weights": Need(
        _weights,
        "weights: this task needs a trained network; set architecture=<run directory that was "
        "retrained>, or weights=<file> beside architecture=<file>",
    ),
    "baseline": Need(
        lambda job: job.baseline is not None,
        "baseline: null, expected one; set baseline=resnet18",
    ),
    "benchmark.table": Need(
        lambda job: bool(job.benchmark.table),
        "benchmark.table: task=rank and search.score=table need one; set it to a CSV file",
    ),
}


def need(job: Job, *names: str) -> None:
    """Raises ConfigError for the first of these NEEDS that the job lacks."""
    for name in names:
        if not NEEDS[name].there(job):
            raise ConfigError(NEEDS[name].line)
