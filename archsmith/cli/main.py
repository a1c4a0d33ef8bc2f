"""The command line: tasks become phases, and errors become exit codes.

`archsmith/cli/objects.py` makes objects of the configuration, and everything below takes plain
objects.
"""

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from archsmith import interrupt
from archsmith.cli import naming
from archsmith.cli.command_line import (
    check_options,
    next_commands,
    options_first,
    setting_of,
    typed,
)
from archsmith.cli.messages import explain, list_choices, one_line, summary
from archsmith.cli.naming import CONF
from archsmith.cli.streams import check_words, escape_output
from archsmith.errors import ConfigError, DataError, JobError, configuring
from archsmith.parallel import distributed
from archsmith.train import garbage, nni_trial

if TYPE_CHECKING:
    from archsmith.data.survey import Survey

log = logging.getLogger(__name__)
# Filled once Hydra is done: what fails before is the command line's fault.
composed: list[DictConfig] = []
naming.register()


class Ended(BaseException):
    """A run's error on its way home: for an Exception, Hydra prints a line of its own."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@contextmanager
def told() -> Iterator[None]:
    """What a run raises goes through Hydra untold, and a refused one leaves no folder.

    A job of a sweep says at once why it fails: Hydra tells only when all have ended. A launcher may
    run it in another process: there signals are listened to, and an error goes home as its line and
    exit code.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        try:
            yield
        except Exception as error:
            if isinstance(error, ConfigError | DataError):
                _leave_no_folder()
            raise Ended(error) from error
        return
    try:
        with interrupt.listening():
            yield
    except Exception as error:
        if isinstance(error, ConfigError | DataError):
            _leave_no_folder()
        code, line = explain(error, CONF, list, composed=True)
        log.error("%s failed: %s", folder, line or one_line(error), exc_info=line is None)
        raise JobError(
            line or f"{folder}: {type(error).__name__}: {one_line(error)}", code
        ) from error


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(config: DictConfig) -> float | None:
    """Runs the task; returns the accuracy that a sweep may optimise."""
    composed.append(config)
    escape_output()
    with told():
        return run_task(config)


def run_task(config: DictConfig) -> float | None:
    """As `app`, and raises what goes wrong."""
    if config.task not in TASKS:
        raise ConfigError(f"task: unknown '{config.task}'; known: {', '.join(TASKS)}")
    return TASKS[config.task](naming.inherited(config, HydraConfig.get()))


# -- tasks: each imports what it needs when it runs, as torch alone takes seconds
# ----------------------------------------------------------------------------


def list_task(config: DictConfig) -> None:
    """Prints every choice of every group."""
    print(list_choices(CONF))
    _leave_no_folder()


def compare_task(config: DictConfig) -> None:
    """Prints runs side by side."""
    from archsmith.data.benchmark import Benchmark
    from archsmith.result.compare import compare

    with configuring():
        print(compare(Path(config.runs), Benchmark(**config.benchmark)), end="")
    _leave_no_folder()


def check_task(config: DictConfig) -> None:
    """Prints what a run will meet."""
    from archsmith.cli.check import check
    from archsmith.cli.objects import make_job
    from archsmith.train.run_folder import locked

    folder = Path(HydraConfig.get().runtime.output_dir)
    with locked(folder):
        print(
            check(
                folder,
                _survey(config.data),
                partial(make_job, config),
                str(typed().without("task")),
            )
        )


def run_phases(config: DictConfig, phases: tuple[str, ...]) -> float | None:
    """Runs phases; returns the accuracy that a sweep may optimise."""
    log.info("starting: settings and images are read")
    with garbage.uncollected():
        from archsmith.cli.objects import make_job
        from archsmith.cli.preflight import preflight
        from archsmith.phases.pipeline import PHASES
        from archsmith.phases.run import Run
        from archsmith.result.report.hparams import write_session
        from archsmith.result.report.page import write_report
        from archsmith.train.doubts import warnings_kept
        from archsmith.train.run_folder import locked

        job = make_job(config)
    with locked(job.folder), warnings_kept() as warnings:
        distributed.join(job.folder, job.settings | {"data_fingerprint": job.fingerprint})
        if job.architecture is not None and config.task == "all":
            phases = phases[1:]
        if job.baseline is not None and config.task == "all":
            phases = (*phases, "baseline")
        preflight(job, phases)
        run = Run(job)
        warnings.keep_in(run.results)
        for phase in phases:
            interrupt.check(phase)
            if phase not in distributed.TOGETHER and not distributed.finish():
                return None
            PHASES[phase](run)
        if not distributed.finish():
            return None
        write_report(job.folder, str(typed()))
        changed = [setting_of(override) for override in HydraConfig.get().overrides.task]
        write_session(job.folder, run.results.fields, job.settings, changed)
    following = next_commands(typed(), config, run.results.fields, job.folder)
    print(summary(run.results.fields, job.folder, following))
    accuracy = run.results.fields["test_accuracy"]
    if accuracy is None:
        accuracy = run.results.fields["discretised_accuracy"]
    nni_trial.final(accuracy)
    return accuracy


TASKS: dict[str, Callable[[DictConfig], float | None]] = {
    "all": partial(run_phases, phases=("search", "retrain", "evaluate", "export")),
    "search": partial(run_phases, phases=("search",)),
    "retrain": partial(run_phases, phases=("retrain",)),
    "evaluate": partial(run_phases, phases=("evaluate",)),
    "export": partial(run_phases, phases=("export",)),
    "rank": partial(run_phases, phases=("rank",)),
    "baseline": partial(run_phases, phases=("baseline",)),
    "check": check_task,
    "compare": compare_task,
    "list": list_task,
}


def _leave_no_folder() -> None:
    """Removes the folder that Hydra makes for every job, where nothing else is in it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names <= {".hydra", "run.log", ".lock"}:
        shutil.rmtree(folder, ignore_errors=True)


def _survey(data: DictConfig) -> "Callable[[], Survey] | None":
    """What looks at every file of a folder of images; None for other data."""
    from archsmith.data.survey import survey

    if data._target_ != "archsmith.data.sets.folder":
        return None
    names = ("root", "image_size", "channels", "on_error", "workers")
    plain = OmegaConf.to_container(data, resolve=True)
    assert isinstance(plain, dict)
    return partial(survey, **{name: plain[name] for name in names})


def main() -> None:
    """The command line: one clear line and a documented exit code for whatever goes wrong."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    where = [str(CONF.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(where)  # for the processes of a launcher
    bug: BaseException | None = None
    escape_output()
    try:
        check_words([os.getcwd(), *sys.argv])
        sys.argv[1:] = options_first([*sys.argv[1:], *nni_trial.overrides()])
        check_options(sys.argv[1:])
        distributed.start()
        if distributed.size() > 1 and {"-m", "--multirun"} & set(sys.argv):
            raise ConfigError("torchrun: its processes share one run, found a sweep; leave out -m")
        with interrupt.listening():
            app()
    except (Exception, Ended) as raised:  # the outermost frame: every failure ends here
        error = raised.error if isinstance(raised, Ended) else raised
        code, line = explain(
            error, CONF, lambda: naming.known_settings(CONF), composed=bool(composed)
        )
        earlier = distributed.failing(code)
        if earlier is not None:
            distributed.end(earlier)
        if line is not None or distributed.size() > 1:
            traced = "".join(traceback.format_exception(error))
            print(f"archsmith: {line or traced}", file=sys.stderr)
            distributed.end(code)
        bug = error
    if bug is not None:
        raise bug
