"""The sweeper's work: the search space from overrides, and the loop around an NNI tuner."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from archsmith import interrupt
from search_spaces.settings import Count, checked, setting

log = logging.getLogger(__name__)
TUNERS = {"tpe": "TPE", "evolution": "Evolution", "random": "Random", "grid": "GridSearch"}
RESULTS = "optimization_results.yaml"


def optimise(sweeper: Any, arguments: Sequence[str]) -> None:
    """Runs `n_trials` jobs and writes `optimization_results.yaml` into the sweep's folder.

    A job that fails, or returns no finite number, is reported to the tuner as failed and logged.

    Raises:
        ValueError: an unknown setting, or a sweep that the tuner cannot sample.
        Interrupted: the sweep was asked to stop; the same command makes the same proposals again.
        Exception: the first job's, if all jobs fail.
    """
    fixed, space = search_space(_parsed(sweeper, arguments))
    with setting("hydra.sweeper"):
        n_trials, n_jobs = counts(sweeper.n_trials, sweeper.n_jobs)
        tuner = make_tuner(sweeper.tuner, sweeper.direction, sweeper.seed, dict(sweeper.tuner_args))
    tuner.update_search_space(space)
    done: list[tuple[float, list[str]]] = []
    failed: list[JobReturn] = []
    folder, first = Path(str(sweeper.config.hydra.sweep.dir)), 0
    while first < n_trials:
        ids = list(range(first, min(first + n_jobs, n_trials)))
        proposed = tuner.generate_multiple_parameters(ids)
        if not proposed:
            log.info("nni: the search space is exhausted after %d trials", first)
            break
        returns = _launched(sweeper, [[*fixed, *overrides_of(one)] for one in proposed], first)
        first += len(proposed)  # a tuner may propose fewer than asked for
        for trial, parameters, result in zip(ids, proposed, returns, strict=False):
            value, overrides = value_of(result), overrides_of(parameters)
            if value is None:
                failed.append(result)
                log.warning("nni: trial %d failed: %s", trial, " ".join(overrides))
            else:
                tuner.receive_trial_result(trial, parameters, value)
                done.append((value, overrides))
                log.info("nni: trial %d gave %.4f: %s", trial, value, " ".join(overrides))
            tuner.trial_end(trial, value is not None)
        _write(folder, sweeper.direction, done, len(failed))
    if not done and failed:
        _ = failed[0].return_value  # raises what the job raised
        raise ValueError("hydra.sweeper: no trial returned a finite number")


def _parsed(sweeper: Any, arguments: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    return parser.parse_overrides(list(arguments))


def _launched(sweeper: Any, jobs: list[list[str]], first: int) -> Sequence[JobReturn]:
    sweeper.validate_batch_is_legal(jobs)
    returns: Sequence[JobReturn] = sweeper.launcher.launch(jobs, initial_job_idx=first)
    interrupt.check("sweep")
    return returns


@checked
def counts(n_trials: Count, n_jobs: Count) -> tuple[int, int]:
    """The numbers of trials, in all and at the same time."""
    return n_trials, n_jobs


def search_space(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Any]]:
    """The fixed overrides, and NNI's description of the swept ones.

    `a,b`, `choice(...)` and `range(...)` are choices, `interval(a, b)` is uniform, and
    `tag(log, interval(a, b))` is log-uniform.
    """
    fixed, space = [], {}
    for override in overrides:
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
            continue
        key = override.get_key_element()
        sweep: Any = override.value()
        if not isinstance(sweep, IntervalSweep):
            space[key] = {"_type": "choice", "_value": list(override.sweep_string_iterator())}
            continue
        kind = "loguniform" if "log" in sweep.tags else "uniform"
        if kind == "loguniform" and not (sweep.start or 0) > 0:
            raise ValueError(f"{key}: a logarithmic interval must start above 0")
        space[key] = {"_type": kind, "_value": [sweep.start, sweep.end]}
    if not space:
        raise ValueError(
            "hydra/sweeper=nni: nothing to optimise; give a setting several values, as "
            "'strategy.alpha_optimizer.lr=tag(log,interval(1e-4,1e-2))'"
        )
    return fixed, space


def overrides_of(parameters: dict[str, Any]) -> list[str]:
    """A proposal as command-line overrides; numpy numbers are converted to Python's."""
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in parameters.items()}
    return [f"{key}={value}" for key, value in plain.items()]


def value_of(result: JobReturn) -> float | None:
    """The value that a job returned; None if it failed or the value is not a finite number."""
    if result.status != JobStatus.COMPLETED or result.return_value is None:
        return None
    value = float(result.return_value)
    return value if math.isfinite(value) else None


@checked
def make_tuner(
    tuner: Literal["tpe", "evolution", "random", "grid"],
    direction: Literal["maximize", "minimize"],
    seed: int | None,
    tuner_args: dict[str, Any],
) -> Any:
    """An NNI tuner. Raises ValueError for an unknown one."""
    try:
        import nni.runtime.log
        from nni.tools.package_utils.tuner_factory import create_builtin_class_instance
    except Exception as error:  # a broken NNI is not an error of the search
        raise ValueError(
            f"NNI cannot be imported ({type(error).__name__}: {error}); "
            "pip install nni==3.0, or leave the sweeper out"
        ) from error
    nni.runtime.log.silence_stdout()  # otherwise every line is printed twice
    more = {"tpe_args": tuner_args or None} if tuner == "tpe" else tuner_args
    more |= {"optimize_mode": direction} if tuner in ("tpe", "evolution") else {}
    more |= {"seed": seed} if tuner in ("tpe", "random") else {}
    return create_builtin_class_instance(TUNERS[tuner], more, "tuners")


def _write(folder: Path, direction: str, done: list[tuple[float, list[str]]], failed: int) -> None:
    if not done:
        return
    best, overrides = (max if direction == "maximize" else min)(done, key=lambda pair: pair[0])
    content = {
        "name": "nni",
        "best_evaluated_result": best,
        "best_overrides": overrides,
        "trials": [{"value": value, "overrides": overrides} for value, overrides in done],
        "failed": failed,
    }
    log.info("nni: best of %d trials, %.4f: %s", len(done), best, " ".join(overrides))
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(content), folder / RESULTS)
