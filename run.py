"""Archsmith: `python run.py strategy=pcdarts` searches, discretises, retrains, evaluates once and
exports.

Here configuration becomes objects, and errors become exit codes; everything below takes plain
objects.
"""

import logging
import os
import re
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from engine import interrupt
from engine.budget.limits import Budget
from engine.command import naming
from engine.command.check import check
from engine.command.cli import explain, list_choices, one_line, summary
from engine.command.compare import compare
from engine.command.preflight import preflight
from engine.command.settings import check_types
from engine.data.survey import Survey, survey
from engine.errors import ConfigError, Failure, JobError, configuring
from engine.export.files import check_formats
from engine.job import Job
from engine.parallel import distributed
from engine.phases.run import Run
from engine.pipeline import PHASES
from engine.records import nni_trial
from engine.records.run_folder import RESUME, locked
from engine.report.hparams import write_session
from engine.report.page import write_report
from engine.safety.checkpoint import checkpoint_seconds
from engine.search.benchmark import Benchmark
from engine.search.settings import SearchSettings
from search_spaces.architecture import Architecture
from search_spaces.genotype import published
from search_spaces.space import Space

CONF = Path(__file__).resolve().parent / "conf"
TASKS = {
    "all": ("search", "retrain", "evaluate", "export"),
    "search": ("search",),
    "retrain": ("retrain",),
    "evaluate": ("evaluate",),
    "export": ("export",),
    "rank": ("rank",),
    "baseline": ("baseline",),
}
log = logging.getLogger(__name__)
# Filled once Hydra is done: what fails before is the command line's fault.
composed: list[DictConfig] = []
naming.register()


def build(node: DictConfig, **live: Any) -> Any:
    """The object a configuration names; live objects complete what is `_partial_`."""
    try:
        made = instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Failure):
            raise cause from error
        said, key = one_line(cause or error), node._get_full_key("")
        if isinstance(cause, TypeError):  # of Python's own: it names types, no setting
            odd = [str(n) for n, v in node.items() if v is None or OmegaConf.is_config(v)]
            said += "".join(f"; found {key}.{name}={node.get(name)!r}" for name in odd)
        raise ConfigError(said if key in said else f"{key}: {said}") from error
    return made(**live) if live else made


def given_architecture(
    name: str | None, weights: str | None
) -> tuple[Architecture | None, Path | None]:
    """The architecture of a file, run directory or published name, and its weights, if any."""
    for key, value in (("architecture", name), ("weights", weights)):
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{key}: expected the name of a file or null, found {value!r}")
    if name is None:
        if weights is not None:
            raise ConfigError("weights: found without an architecture; set architecture=<file> too")
        return None, None
    path, weights_path = Path(name), Path(weights) if weights else None
    if path.is_dir():
        weights_path = weights_path or path / "weights.safetensors"
        path = path / "architecture.json"
    elif not path.exists() and re.fullmatch(r"\w+", name):
        path = published(name)
    return Architecture.load(path), weights_path


def build_space(
    config: DictConfig, shapes: dict[str, Any], architecture: Architecture | None
) -> Space:
    """The configured space; for a given architecture the one it names, among conf/space."""
    chosen: Space = build(config.space, **shapes)
    if architecture is None:
        return chosen
    name = architecture.space["name"]
    if name != chosen.name:
        if any(override.startswith("space=") for override in HydraConfig.get().overrides.task):
            architecture.check(chosen, "architecture")
        known = sorted(path.stem for path in (CONF / "space").glob("*.yaml"))
        if name not in known:
            raise ConfigError(
                f"architecture: found in space '{name}', which is not one of ours "
                f"({', '.join(known)}); "
                "set space=... to the configuration it was found in"
            )
        chosen = build(OmegaConf.load(CONF / "space" / f"{name}.yaml"), **shapes)  # type: ignore[arg-type]
    settings = {key: value for key, value in architecture.space.items() if key != "name"}
    unknown = sorted(set(settings) - set(chosen.settings))
    if unknown:
        raise ConfigError(
            f"architecture: space '{name}' has no setting '{unknown[0]}'; known: "
            f"{', '.join(chosen.settings)}"
        )
    try:
        space = chosen.resize(**settings | shapes)
        architecture.check(space)
    except (KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"architecture: its space '{name}' cannot be built ({type(error).__name__}: "
            f"{one_line(error)}); expected a file that a search wrote"
        ) from error
    return space


def make_job(config: DictConfig) -> Job:
    """Every object of a run; a wrong setting is refused before memory is taken."""
    choices = HydraConfig.get().runtime.choices
    if config.resume not in RESUME:
        raise ConfigError(f"resume: expected {', '.join(RESUME)}, found '{config.resume}'")
    whole = isinstance(config.seed, int) and not isinstance(config.seed, bool)
    if not whole or not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed: expected a whole number of at least 0, found {config.seed!r}")
    with configuring():
        plain = OmegaConf.to_container(config, resolve=True)
        check_types(plain, naming.defaults_of(HydraConfig.get().overrides.task))  # type: ignore[arg-type]
        search, recipe, runtime = (
            SearchSettings(**config.search),
            build(config.retrain),
            build(config.runtime),
        )
        architecture, weights = given_architecture(config.architecture, config.weights)
        device = runtime.start(distributed.local_device(config.device), config.seed)
        check_formats(config.export.formats)
        benchmark = Benchmark(**config.benchmark)
        budget = Budget(**config.budget)
        baseline = None if config.baseline is None else build(config.baseline)
        seconds = checkpoint_seconds(**config.checkpoint)
        data = build(config.data)
        space = build_space(
            config,
            dict(input_shape=tuple(data.input_shape), classes=len(data.classes)),
            architecture,
        )
        strategy = build(config.strategy)
        strategy(space)
    return Job(
        names={name: choices[name] for name in ("strategy", "space", "data")},
        settings=naming.identity(config),
        folder=Path(HydraConfig.get().runtime.output_dir),
        resume=config.resume,
        checkpoint_seconds=seconds,
        seed=config.seed,
        device=device,
        runtime=runtime,
        data=data,
        space=space,
        strategy=strategy,
        search=search,
        recipe=recipe,
        formats=list(config.export.formats),
        benchmark=benchmark,
        budget=budget,
        baseline=baseline,
        architecture=architecture,
        weights=weights,
    )


@contextmanager
def told_in_a_sweep(folder: Path) -> Iterator[None]:
    """A job of a sweep says at once why it fails: Hydra tells only when all have ended.

    A launcher may run it in another process: there signals are listened to, and an error goes home
    as its line and exit code.
    """
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        yield
        return
    try:
        with interrupt.listening():
            yield
    except Exception as error:
        code, line = explain(error, CONF, list, composed=True)
        log.error("%s failed: %s", folder, line or one_line(error), exc_info=line is None)
        raise JobError(
            line or f"{folder}: {type(error).__name__}: {one_line(error)}", code
        ) from error


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def app(config: DictConfig) -> float | None:
    """Runs the task; returns the accuracy that a sweep may optimise."""
    composed.append(config)
    if config.task == "list":
        print(list_choices(CONF))
        _leave_no_folder()
        return None
    if config.task == "compare":
        with configuring():
            print(compare(Path(config.runs), Benchmark(**config.benchmark)), end="")
        _leave_no_folder()
        return None
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.task == "check":
        with told_in_a_sweep(folder), locked(folder):
            print(check(folder, _survey(config.data), partial(make_job, config), _command()))
        return None
    if config.task not in TASKS:
        raise ConfigError(
            f"task: unknown '{config.task}'; known: {', '.join(TASKS)}, check, compare, list"
        )
    with told_in_a_sweep(folder), locked(folder):
        job = make_job(config)
        distributed.join(folder, job.settings | {"data_fingerprint": job.data.fingerprint()})
        phases = TASKS[config.task]
        if job.architecture is not None and config.task == "all":
            phases = phases[1:]
        if job.baseline is not None and config.task == "all":
            phases = (*phases, "baseline")
        preflight(job, phases)
        run = Run(job)
        for phase in phases:
            interrupt.check(phase)
            if phase not in distributed.TOGETHER and not distributed.finish():
                return None
            PHASES[phase](run)
        if not distributed.finish():
            return None
        write_report(job.folder, _command())
        write_session(job.folder, run.results.fields, job.settings, _changed())
    print(summary(run.results.fields, job.folder))
    accuracy = run.results.fields["test_accuracy"]
    if accuracy is None:
        accuracy = run.results.fields["discretised_accuracy"]
    nni_trial.final(accuracy)
    return accuracy


def _leave_no_folder() -> None:
    """Removes the folder that Hydra makes for every job, where nothing else is in it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if {path.name for path in folder.iterdir()} <= {".hydra", "run.log"}:
        shutil.rmtree(folder, ignore_errors=True)


def _survey(data: DictConfig) -> Callable[[], Survey] | None:
    """What looks at every file of a folder of images; None for other data."""
    if data._target_ != "engine.data.sets.folder":
        return None
    names = ("root", "image_size", "channels", "on_error", "workers")
    plain = OmegaConf.to_container(data, resolve=True)
    assert isinstance(plain, dict)
    return partial(survey, **{name: plain[name] for name in names})


def _command() -> str:
    """The command line that repeats this run; of a check, that starts it."""
    given = HydraConfig.get().overrides
    folder = [one for one in given.hydra if one.startswith("hydra.run.dir=")]
    overrides = (one for one in (*given.task, *folder) if one != "task=check")
    return " ".join(["python run.py", *map(shlex.quote, overrides)])


def _changed() -> list[str]:
    """Names of the settings and groups given on the command line."""
    given = HydraConfig.get().overrides.task
    return [override.lstrip("+~").partition("=")[0] for override in given]


def main() -> None:
    """The command line: one clear line and a documented exit code for whatever goes wrong."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    where = [str(CONF.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(where)  # for the processes of a launcher
    sys.argv += nni_trial.overrides()
    try:
        distributed.start()
        if distributed.size() > 1 and {"-m", "--multirun"} & set(sys.argv):
            raise ConfigError("torchrun: its processes share one run, found a sweep; leave out -m")
        with interrupt.listening():
            app()
    except Exception as error:  # the outermost frame: every failure ends here
        code, line = explain(
            error, CONF, lambda: naming.known_settings(CONF), composed=bool(composed)
        )
        earlier = distributed.failing(code)
        if earlier is not None:
            distributed.end(earlier)
        if line is None and distributed.size() == 1:
            raise
        print(f"archsmith: {line or traceback.format_exc()}", file=sys.stderr)
        distributed.end(code)


if __name__ == "__main__":
    main()
