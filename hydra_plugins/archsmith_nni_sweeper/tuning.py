"""The sweeper's work: the search space from overrides, and the loop around an NNI tuner."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from archsmith import interrupt

log = logging.getLogger(__name__)
TUNERS = ("tpe", "evolution", "random", "grid")
RESULTS = "optimization_results.yaml"


def optimise(sweeper: Any, arguments: Sequence[str]) -> None:
    """Runs `n_trials` jobs and writes `optimization_results.yaml` into the sweep's folder.

    A job that fails, or returns no finite number, is reported to the tuner as failed and logged.

    Raises:
        ValueError: an unknown setting, or a sweep that the tuner cannot sample.
        Interrupted: the sweep was asked to stop; the same command makes the same proposals again.
        Exception: the first job's, if all jobs fail.
    """
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    fixed, space = search_space(parser.parse_overrides(list(arguments)))
    if sweeper.n_trials < 1 or sweeper.n_jobs < 1:
        raise ValueError("hydra.sweeper: n_trials and n_jobs must be at least 1")
    tuner = make_tuner(sweeper.tuner, sweeper.direction, sweeper.seed, dict(sweeper.tuner_args))
    tuner.update_search_space(space)
    folder = Path(str(sweeper.config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    done: list[tuple[float, list[str]]] = []
    failed: list[JobReturn] = []
    trial = 0
    while trial < sweeper.n_trials:
        ids = list(range(trial, min(trial + sweeper.n_jobs, sweeper.n_trials)))
        proposed = tuner.generate_multiple_parameters(ids)
        if not proposed:
            log.info("nni: the search space is exhausted after %d trials", trial)
            break
        batch = [overrides_of(parameters) for parameters in proposed]
        jobs = [[*fixed, *overrides] for overrides in batch]
        sweeper.validate_batch_is_legal(jobs)
        returns = sweeper.launcher.launch(jobs, initial_job_idx=trial)
        interrupt.check("sweep")
        for one, parameters, overrides, result in zip(ids, proposed, batch, returns, strict=False):
            value = value_of(result)
            if value is None:
                failed.append(result)
                log.warning("nni: trial %d failed: %s", one, " ".join(overrides))
                tuner.trial_end(one, False)
                continue
            tuner.receive_trial_result(one, parameters, value)
            tuner.trial_end(one, True)
            done.append((value, overrides))
            log.info("nni: trial %d gave %.4f: %s", one, value, " ".join(overrides))
        trial += len(proposed)
        _write(folder, sweeper.direction, done, len(failed))
    if not done and failed:
        _ = failed[0].return_value  # raises what the job raised
        raise ValueError("hydra.sweeper: no trial returned a finite number")


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
        if isinstance(sweep, IntervalSweep):
            kind = "loguniform" if "log" in sweep.tags else "uniform"
            if kind == "loguniform" and not (sweep.start or 0) > 0:
                raise ValueError(f"{key}: a logarithmic interval must start above 0")
            space[key] = {"_type": kind, "_value": [sweep.start, sweep.end]}
        else:
            space[key] = {"_type": "choice", "_value": list(override.sweep_string_iterator())}
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


def make_tuner(name: str, direction: str, seed: int | None, more: dict[str, Any]) -> Any:
    """An NNI tuner. Raises ValueError for an unknown one."""
    if direction not in ("maximize", "minimize"):
        raise ValueError(
            f"hydra.sweeper.direction: expected maximize or minimize, found '{direction}'"
        )
    if name not in TUNERS:
        raise ValueError(f"hydra.sweeper.tuner: unknown '{name}'; known: {', '.join(TUNERS)}")
    try:
        import nni.runtime.log
    except Exception as error:  # a broken NNI is not an error of the search
        raise ValueError(
            f"hydra/sweeper=nni: NNI cannot be imported ({type(error).__name__}: {error}); "
            "pip install nni==3.0, or leave the sweeper out"
        ) from error
    nni.runtime.log.silence_stdout()  # otherwise every line is printed twice
    if name == "tpe":
        from nni.algorithms.hpo.tpe_tuner import TpeTuner

        return TpeTuner(optimize_mode=direction, seed=seed, tpe_args=more or None)
    if name == "evolution":
        from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

        return EvolutionTuner(optimize_mode=direction, **more)
    if name == "random":
        from nni.algorithms.hpo.random_tuner import RandomTuner

        return RandomTuner(seed=seed, **more)
    from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner

    return GridSearchTuner(**more)


def _write(folder: Path, direction: str, done: list[tuple[float, list[str]]], failed: int) -> None:
    if not done:
        return
    best = (max if direction == "maximize" else min)(done, key=lambda pair: pair[0])
    content = {
        "name": "nni",
        "best_evaluated_result": best[0],
        "best_overrides": best[1],
        "trials": [{"value": value, "overrides": overrides} for value, overrides in done],
        "failed": failed,
    }
    log.info("nni: best of %d trials, %.4f: %s", len(done), best[0], " ".join(best[1]))
    OmegaConf.save(OmegaConf.create(content), folder / RESULTS)
