"""What a sweep says by itself: which job of how many runs, the time left, and its comparison."""

import logging
import math
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from archsmith.cli.tasks import TASKS

log = logging.getLogger("archsmith.cli.sweep")
INSTANT = 2.0  # seconds; a job that takes less found everything done and says nothing of others


class Sweep(Callback):
    """Hydra's callback for every command; it only acts in the process that runs a sweep's jobs one
    after the other, and at the end of any sweep."""

    def __init__(self) -> None:
        self.jobs: int | None = None
        self.begun = 0.0
        self.took: list[float] = []  # seconds of jobs, without those that were finished before
        self.folders: list[Path] = []
        self.started = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.jobs = number_of_jobs(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self.jobs is None or not shows(config):
            return
        self.begun = time.monotonic()
        self.folders.append(Path(HydraConfig.get().runtime.output_dir))
        left = ""
        if self.took:
            seconds = sum(self.took) / len(self.took) * (self.jobs - self.started)
            left = f", {duration(seconds)} left"
        self.started += 1
        log.info("sweep: job %d of %d%s", self.started, self.jobs, left)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        seconds = time.monotonic() - self.begun
        if self.jobs is not None and seconds > INSTANT:
            self.took.append(seconds)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not shows(config):
            return
        from archsmith.data.benchmark import Benchmark
        from archsmith.errors import Failure
        from archsmith.result.compare import best, compare

        try:
            settings: Any = OmegaConf.to_container(config.benchmark, resolve=True)
            folder, benchmark = Path(config.hydra.sweep.dir), Benchmark(**settings)
            text = compare(folder, benchmark, only=self.folders or None)
            print(text, best(folder, only=self.folders or None), sep="\n", end="")
        except (Failure, ValueError) as error:
            log.info("sweep: nothing to compare (%s)", error)


def shows(config: DictConfig) -> bool:
    """Whether the task leaves runs to compare."""
    task = TASKS.get(config.task)
    return task is not None and bool({"search", "retrain"} & set(task.phases))


def number_of_jobs(config: DictConfig) -> int | None:
    """Of a sweep; None for a sweeper that does not say."""
    sweeper = config.hydra.sweeper
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    if "BasicSweeper" not in sweeper._target_:
        return None
    params = [f"{name}={value}" for name, value in (sweeper.params or {}).items()]
    said = [*params, *config.hydra.overrides.task]
    found = OverridesParser.create().parse_overrides(said)
    last = {one.key_or_group: one for one in found}  # the command line comes after the file
    counts = [
        len(list(one.sweep_string_iterator())) for one in last.values() if one.is_sweep_override()
    ]
    return math.prod(counts)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"
