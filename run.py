"""Archsmith: `python run.py strategy=pcdarts` searches, discretises, retrains, evaluates once and
exports.

Here configuration becomes objects, and errors become exit codes; everything below takes plain
objects.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from engine import interrupt, naming, nni_trial
from engine.benchmark import Benchmark
from engine.checkpoint import checkpoint_seconds
from engine.cli import explain, list_choices, one_line, summary
from engine.compare import compare
from engine.errors import ConfigError, Failure, configuring
from engine.export import check_formats
from engine.job import Job
from engine.pipeline import Pipeline
from engine.preflight import preflight
from engine.report import write_report
from engine.run_folder import RESUME, locked
from engine.search_settings import SearchSettings
from engine.settings import check_types
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
}
log = logging.getLogger(__name__)
composed: list[
    DictConfig
] = []  # filled once Hydra is done: what fails before is the command line's fault
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
        device = runtime.start(config.device, config.seed)
        check_formats(config.export.formats)
        benchmark = Benchmark(**config.benchmark)
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
        form=runtime.form,
        checkpoint_cells=runtime.checkpoint_cells,
        data=data,
        space=space,
        strategy=strategy,
        search=search,
        recipe=recipe,
        formats=list(config.export.formats),
        benchmark=benchmark,
        architecture=architecture,
        weights=weights,
    )


@contextmanager
def told_in_a_sweep(folder: Path) -> Iterator[None]:
    """A job of a sweep says at once why it fails: Hydra tells only when all have ended."""
    try:
        yield
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            log.error("%s failed: %s", folder, one_line(error))
        raise


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def app(config: DictConfig) -> float | None:
    """Runs the task; returns the accuracy that a sweep may optimise."""
    composed.append(config)
    if config.task == "list":
        print(list_choices(CONF))
        return None
    if config.task == "compare":
        with configuring():
            print(compare(Path(config.runs), Benchmark(**config.benchmark)), end="")
        return None
    if config.task not in TASKS:
        raise ConfigError(
            f"task: unknown '{config.task}'; known: {', '.join(TASKS)}, compare, list"
        )
    folder = Path(HydraConfig.get().runtime.output_dir)
    with locked(folder), told_in_a_sweep(folder):
        job = make_job(config)
        phases = TASKS[config.task]
        if job.architecture is not None and config.task == "all":
            phases = phases[1:]
        preflight(job, phases)
        pipeline = Pipeline(job)
        for phase in phases:
            interrupt.check(phase)
            getattr(pipeline, phase)()
        write_report(job.folder, _command())
    print(summary(pipeline.results.fields, job.folder))
    accuracy = pipeline.results.fields["test_accuracy"]
    if accuracy is None:
        accuracy = pipeline.results.fields["discretised_accuracy"]
    nni_trial.final(accuracy)
    return accuracy


def _command() -> str:
    """The command line that repeats this run."""
    hydra_config = HydraConfig.get()
    return " ".join(["python run.py", *map(shlex.quote, hydra_config.overrides.task)])


def main() -> None:
    """The command line: one clear line and a documented exit code for whatever goes wrong."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv += nni_trial.overrides()
    try:
        with interrupt.listening():
            app()
    except Exception as error:  # the outermost frame: every failure ends here
        code, line = explain(
            error, CONF, lambda: naming.known_settings(CONF), composed=bool(composed)
        )
        if line is None:
            raise
        print(f"archsmith: {line}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
