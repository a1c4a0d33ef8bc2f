"""The command line: runs a task (`archsmith/cli/tasks.py`) and turns errors into exit codes.

`archsmith/cli/objects.py` builds objects from the configuration; all code below it takes plain
objects.
"""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from archsmith import interrupt
from archsmith.cli import naming
from archsmith.cli.command_line import check_options, options_first
from archsmith.cli.messages import explain, one_line
from archsmith.cli.naming import CONF
from archsmith.cli.streams import check_words, escape_output
from archsmith.cli.tasks import leave_no_folder, task_of
from archsmith.errors import ConfigError, DataError, JobError
from archsmith.parallel import distributed
from archsmith.train import nni_trial

log = logging.getLogger(__name__)
# Filled once Hydra has composed the configuration: earlier failures are command-line errors.
composed: list[DictConfig] = []
naming.register()


class Ended(BaseException):
    """Carries a run's error through Hydra, which prints a line of its own for an `Exception`."""

    def __init__(self, error: Exception):
        super().__init__(error)
        self.error = error


@contextmanager
def told() -> Iterator[None]:
    """A context manager that passes a run's exceptions through Hydra; `main` reports them.

    A run refused for its settings or data leaves no folder. A job of a sweep logs its error at
    once, as Hydra reports only after the last job. A launcher may run it in another process: there
    it installs signal handlers, and the error is sent back as a `JobError`, a line and an exit
    code. A stopped job of this process ends the sweep: no other one starts.
    """
    own = interrupt.is_listening()
    try:
        with interrupt.listening():
            yield
    except Exception as error:
        if isinstance(error, ConfigError | DataError):
            leave_no_folder()
        stopped = own and interrupt.requested()
        if stopped or HydraConfig.get().mode != RunMode.MULTIRUN:
            raise Ended(error) from error
        folder = HydraConfig.get().runtime.output_dir
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
    """Runs the task like `app`, but lets every exception through."""
    task = task_of(config)
    return task.function(task, naming.inherited(config, HydraConfig.get()))


def main() -> None:
    """The entry point: every failure ends in one clear line and a documented exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    where = [str(CONF.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(where)  # inherited by a launcher's processes
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
