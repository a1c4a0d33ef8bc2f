"""The tasks of the command line: a literal table with one entry per task.

A new task is an entry in TASKS and a function; a task made of phases needs only the entry. One from
outside is an entry of the setting `tasks`.
Functions import what they need when they are called, as importing torch takes seconds.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from archsmith.cli.command_line import (
    Following,
    next_commands,
    nothing,
    others,
    setting_of,
    then,
    typed,
)
from archsmith.cli.messages import list_choices, one_line, result_summary
from archsmith.data.names import printable
from archsmith.errors import ConfigError, configuring
from archsmith.parallel import distributed
from archsmith.train import garbage, nni_trial

if TYPE_CHECKING:
    from archsmith.data.survey import Survey
    from archsmith.job import Job
    from archsmith.result.classifier import Classifier

log = logging.getLogger(__name__)
IMAGES = "images"  # a need of a task; the others are in archsmith/phases/needs.py


@dataclass(frozen=True)
class Task:
    """What `task=<name>` does.

    Args:
        help: a line of `--help` and `task=list`.
        function: called with this entry and the configuration; returns the accuracy that a sweep
            may optimise, or None.
        phases: names in `archsmith/phases/pipeline.py`, in order.
        needs: `images` and names in `archsmith/phases/needs.py`; the task is refused if one is
            missing.
        following: the commands to suggest next.
    """

    name: str
    help: str
    function: Callable[["Task", DictConfig], float | None]
    phases: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    following: Following = nothing

    @property
    def line(self) -> str:
        """The help line, with the needs other than images."""
        needs = ", ".join(name for name in self.needs if name != IMAGES)
        return f"{self.help}; needs {needs}" if needs else self.help


def task_of(config: DictConfig) -> Task:
    """The task named by the configuration, of `TASKS` or of the user's `tasks`.

    Raises ConfigError for an unknown one.
    """
    if config.task in TASKS:
        return TASKS[config.task]
    if config.task not in config.tasks:
        known = ", ".join([*TASKS, *config.tasks])
        raise ConfigError(f"task: unknown '{config.task}'; known: {known}")
    path = config.tasks[config.task]
    try:
        found = get_object(path)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"tasks.{config.task}: '{path}' cannot be imported ({one_line(error)}); give the "
            "dotted name of a Task, and its folder in PYTHONPATH"
        ) from error
    if not isinstance(found, Task):
        raise ConfigError(
            f"tasks.{config.task}: expected a Task of archsmith.cli.tasks, found {found!r}"
        )
    return found


def help_lines() -> list[str]:
    """One line per task."""
    return [f"{f'task={task.name}':<20} {task.line}" for task in TASKS.values()]


# -- functions
# ------------------------------------------------------------------------------------------------


def list_task(task: Task, config: DictConfig) -> None:
    """Prints every choice of every group, and every task."""
    from archsmith.cli.naming import CONF

    print(list_choices(CONF), "", "Tasks", *(f"  {line}" for line in help_lines()), sep="\n")
    leave_no_folder()


def compare_task(task: Task, config: DictConfig) -> None:
    """Prints a comparison of runs."""
    from archsmith.data.benchmark import Benchmark
    from archsmith.result.compare import compare
    from search_spaces.settings import setting

    with configuring():
        with setting("benchmark"):
            benchmark = Benchmark(**config.benchmark)
        print(compare(Path(config.runs), benchmark), end="")
    leave_no_folder()


def check_task(task: Task, config: DictConfig) -> None:
    """Prints a report on what a run will need."""
    from archsmith.cli.check import check_report
    from archsmith.cli.objects import make_job
    from archsmith.train.run_folder import locked

    folder = Path(HydraConfig.get().runtime.output_dir)
    command = str(typed().without("task"))
    with locked(folder):
        survey, job = _survey(config.data), partial(make_job, config)
        print(check_report(folder, survey, job, command, task.phases))


def _told(one: Any) -> Any:
    """The same prediction, after its classes were printed or its file was reported as unread."""
    if one.unread is None:
        said = ", ".join(f"{label} ({share:.1%})" for label, share in one.top)
        print(f"{printable(one.file)}: {said}")
    else:
        log.warning("not read: %s", one.unread)
    return one


def _classifier(job: "Job") -> "Classifier":
    """The trained network of a job with given weights, on its device. Raises ConfigError if it
    reads text."""
    from archsmith.result.classifier import Classifier
    from archsmith.result.network import load_final

    assert job.architecture is not None
    assert job.weights is not None
    trained = load_final(job.weights, job.space, job.architecture)
    if trained.preprocessing.reads_text:
        raise ConfigError(
            "task=predict: names the class of images, and this network reads text; export it, and "
            'run `python model.py "how it begins"`'
        )
    return Classifier(trained.net, trained.preprocessing).to(job.device).eval()


def predict_task(task: Task, config: DictConfig) -> None:
    """Prints the class of each image file, and writes them to the file `predict.csv`, if it is set.

    Raises ConfigError if there is nothing to predict with, of, or into; DataError if no file can be
    read.
    """
    with garbage.uncollected():
        from archsmith.cli.objects import make_job
        from archsmith.errors import DataError
        from archsmith.phases.needs import need
        from archsmith.result.predict import PredictSettings, image_files, write_csv
        from archsmith.train.record import Progress

    if config.images is None:
        raise ConfigError(
            "images: null, expected what to predict; set images=<file, folder or pattern>"
        )
    job = make_job(config)  # which checks the settings
    settings = PredictSettings(**config.predict)
    if settings.csv is not None and not Path(settings.csv).absolute().parent.is_dir():
        raise ConfigError(f"predict.csv: no folder for '{settings.csv}'; make it, or set another")
    need(job, *task.needs)
    net = _classifier(job)
    files = image_files(config.images)
    with Progress("predict", len(files)) as progress:
        predictions = net.predict_files(files, top=settings.top, batch_size=settings.batch_size)
        found = [_told(one) for one in progress.batches(predictions)]
    unread = sum(one.unread is not None for one in found)
    if unread == len(found):
        raise DataError(f"images: none of {unread} files can be read; the first: {found[0].unread}")
    if settings.csv is not None:
        write_csv(Path(settings.csv), found, min(settings.top, len(net.classes)))
    if unread:
        log.warning("%d of %d files were not read", unread, len(found))
    leave_no_folder()


def run_phases(task: Task, config: DictConfig) -> float | None:
    """Runs the task's phases; returns the accuracy that a sweep may optimise."""
    log.info("starting: settings and images are read")
    with garbage.uncollected():
        from archsmith.cli.objects import make_job
        from archsmith.cli.preflight import preflight
        from archsmith.phases.needs import need
        from archsmith.phases.pipeline import PHASES, phases_for, run_through
        from archsmith.phases.run import Run
        from archsmith.train.doubts import warnings_kept
        from archsmith.train.run_folder import locked

        job = make_job(config)
    phases = phases_for(job, task.phases)
    with locked(job.folder), warnings_kept() as warnings:
        together = [name for name, phase in PHASES.items() if phase.together]
        same = job.settings | {"data_fingerprint": job.fingerprint}
        distributed.join(job.folder, same, together)
        if distributed.first():
            need(job, *(name for name in task.needs if name != IMAGES))
        preflight(job, phases)
        run = Run(job)
        warnings.keep_in(run.results)
        with run.logging():
            if not run_through(run, phases):
                return None
            _report(run)
    results = run.results.fields
    known = results | {"has_supernet": job.space.has_supernet}
    following = next_commands(typed(), config, known, job.folder, task.following)
    print(result_summary(results, job.folder, following))
    accuracy: float | None = results["test_accuracy"]
    accuracy = results["discretised_accuracy"] if accuracy is None else accuracy
    nni_trial.final(accuracy)
    return accuracy


def _report(run: Any) -> None:
    """Writes the report, and sends the results to the loggers."""
    from archsmith.result.report.page import write_report

    write_report(run.job.folder, str(typed()))
    run.conclude([setting_of(override) for override in HydraConfig.get().overrides.task])


def _survey(data: DictConfig) -> "Callable[[], Survey] | None":
    """A function that inspects every file of an image folder; None for other data."""
    from archsmith.data.sets import SURVEYS

    if data._target_ not in SURVEYS:
        return None
    survey, plain = SURVEYS[data._target_], OmegaConf.to_container(data, resolve=True)
    assert isinstance(plain, dict)
    return partial(survey, **{name: plain[name] for name in signature(survey).parameters})


def leave_no_folder() -> None:
    """Removes the folder that Hydra creates for every job if it holds nothing else."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names <= {".hydra", "run.log", ".lock", ".holder"}:
        shutil.rmtree(folder, ignore_errors=True)


# -- the table
# ------------------------------------------------------------------------------------------------

_ENTRIES = (
    Task("all", "search, retrain, evaluate once, export; with baseline=... that network, too",
         run_phases, ("search", "retrain", "evaluate", "export", "baseline"), (IMAGES,), others),
    Task("search", "find an architecture", run_phases, ("search",), (IMAGES,), then("all")),
    Task("retrain", "train the final network on all training images",
         run_phases, ("retrain",), (IMAGES, "architecture"), then("all")),
    Task("evaluate", "test the trained network, once",
         run_phases, ("evaluate",), (IMAGES, "architecture", "weights"), then("export")),
    Task("export", "write files that need no Archsmith",
         run_phases, ("export",), ("architecture", "weights")),
    Task("predict", "name the class of images=<file, folder, pattern>",
         predict_task, (), ("architecture", "weights")),
    Task("rank", "compare the supernet's ranking with a benchmark's",
         run_phases, ("rank",), (IMAGES, "benchmark.table")),
    Task("baseline", "train other networks as the found one is",
         run_phases, ("baseline",), (IMAGES, "architecture", "baseline")),
    Task("measure_latency", "time every option of the space on this device, into latency.csv",
         run_phases, ("measure_latency",), (IMAGES,)),
    Task("check", "say what a run will take: images, time, memory; train nothing",
         check_task, ("search", "retrain", "baseline"), (IMAGES,)),
    Task("compare", "print the runs below a folder, runs=outputs, side by side", compare_task),
    Task("list", "print every choice of every group, and the tasks", list_task),
)  # fmt: skip
TASKS = {task.name: task for task in _ENTRIES}
