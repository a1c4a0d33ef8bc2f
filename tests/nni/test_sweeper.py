"""The NNI sweeper and what a run says to an NNI experiment."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from archsmith import interrupt
from archsmith.errors import Interrupted
from archsmith.train import nni_trial
from hydra_plugins.archsmith_nni_sweeper.tuning import (
    make_tuner,
    optimise,
    overrides_of,
    search_space,
    value_of,
)

ROOT = Path(__file__).resolve().parents[2]


def finished(value: Any) -> JobReturn:
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = value
    return result


class Launcher:
    """Runs a function in place of jobs, and keeps what it was given."""

    def __init__(self, job: Any):
        self.job, self.jobs = job, []

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.jobs += jobs
        return [self.job(dict(one.split("=") for one in overrides)) for overrides in jobs]


def sweep(folder: Path, job: Any, *arguments: str, **settings: Any) -> Launcher:
    launcher = Launcher(job)
    chosen = {"tuner": "tpe", "direction": "maximize", "n_trials": 6, "n_jobs": 2, "seed": 0}
    sweeper = SimpleNamespace(
        **chosen | {"tuner_args": {}} | settings,
        launcher=launcher,
        hydra_context=SimpleNamespace(config_loader=None),
        config=OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}),
        validate_batch_is_legal=lambda jobs: None,
    )
    optimise(sweeper, arguments)
    return launcher


def parsed(*arguments: str) -> tuple[list[str], dict[str, Any]]:
    return search_space(OverridesParser.create().parse_overrides(list(arguments)))


def test_hydra_finds_the_sweeper():
    assert "NNISweeper" in [plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)]


def test_overrides_become_a_search_space():
    fixed, space = parsed(
        "data=digits", "strategy=darts,pcdarts", "a=tag(log,interval(1e-4,1e-1))",
        "b=interval(0,2)", "c=range(1,4)",
    )  # fmt: skip
    assert fixed == ["data=digits"]
    assert space == {
        "strategy": {"_type": "choice", "_value": ["darts", "pcdarts"]},
        "a": {"_type": "loguniform", "_value": [1e-4, 1e-1]},
        "b": {"_type": "uniform", "_value": [0, 2]},
        "c": {"_type": "choice", "_value": ["1", "2", "3"]},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["data=digits"], "nothing to optimise"), (["a=tag(log,interval(0,1))"], "start above 0")],
)
def test_what_cannot_be_optimised_is_refused(arguments: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


@pytest.mark.parametrize("tuner", ["tpe", "evolution", "random"])
def test_the_best_of_a_sweep_is_written(tuner: str, tmp_path: Path):
    def job(given: dict[str, str]) -> JobReturn:
        return finished(1 - (float(given["x"]) - 0.3) ** 2)

    launcher = sweep(tmp_path, job, "k=v", "x=interval(0,1)", tuner=tuner)
    assert len(launcher.jobs) == 6
    assert all(overrides[0] == "k=v" for overrides in launcher.jobs)
    found = OmegaConf.load(tmp_path / "optimization_results.yaml")
    values = [trial.value for trial in found.trials]
    assert found.best_evaluated_result == max(values)
    assert found.best_overrides == found.trials[values.index(max(values))].overrides
    assert found.failed == 0


def test_the_grid_ends_when_all_has_been_tried(tmp_path: Path):
    launcher = sweep(tmp_path, lambda given: finished(0.5), "x=1,2,3", tuner="grid", n_trials=9)
    assert sorted(jobs[0] for jobs in launcher.jobs) == ["x=1", "x=2", "x=3"]


def test_failed_jobs_and_odd_numbers_are_left_out(tmp_path: Path):
    broken = JobReturn(status=JobStatus.FAILED)
    results = iter([broken, finished(math.nan), finished(None), finished(0.5)])
    sweep(tmp_path, lambda given: next(results), "x=interval(0,1)", n_trials=4)
    found = OmegaConf.load(tmp_path / "optimization_results.yaml")
    assert [trial.value for trial in found.trials] == [0.5]
    assert found.failed == 3


def test_where_all_fail_the_first_error_is_raised(tmp_path: Path):
    def job(given: dict[str, str]) -> JobReturn:
        broken = JobReturn(status=JobStatus.FAILED)
        broken.return_value = RuntimeError("no space left")
        return broken

    with pytest.raises(RuntimeError, match="no space left"):
        sweep(tmp_path, job, "x=interval(0,1)", n_trials=2)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"^tuner: expected one of tpe, .* found 'bohb'"):
        make_tuner("bohb", "maximize", 0, {})
    with pytest.raises(ValueError, match=r"^direction: expected one of"):
        make_tuner("tpe", "up", 0, {})


def test_numbers_of_numpy_become_plain():
    import numpy as np

    assert overrides_of({"a": np.float64(0.5), "b": "c"}) == ["a=0.5", "b=c"]
    assert value_of(finished(np.float64(0.5))) == 0.5


def test_outside_an_experiment_nothing_is_imported_or_said():
    code = (
        "import sys; from archsmith.train import nni_trial; nni_trial.intermediate(0.1); "
        "nni_trial.final(0.2); assert nni_trial.overrides() == []; assert 'nni' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NNI_PLATFORM"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_inside_an_experiment_the_proposal_becomes_overrides(monkeypatch, tmp_path: Path):
    said: list[tuple[str, float]] = []
    fake = SimpleNamespace(
        get_next_parameter=lambda: {"strategy": "pcdarts", "strategy.warmup": 0.1},
        report_intermediate_result=lambda value: said.append(("intermediate", value)),
        report_final_result=lambda value: said.append(("final", value)),
    )
    monkeypatch.setitem(sys.modules, "nni", fake)
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    assert nni_trial.overrides() == [
        "strategy=pcdarts", "strategy.warmup=0.1", f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    nni_trial.intermediate(0.25)
    nni_trial.final(0.5)
    nni_trial.final(None)
    assert said == [("intermediate", 0.25), ("final", 0.5)]


def test_a_sweep_that_is_stopped_proposes_no_more(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(interrupt, "requested", lambda: True)
    launcher = Launcher(lambda given: finished(0.5))
    with pytest.raises(Interrupted):
        sweep(tmp_path, launcher.job, "x=1,2,3", tuner="grid", n_jobs=1)
    assert not (tmp_path / "optimization_results.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("platform", [pytest.param("", marks=pytest.mark.slow), "local"])
def test_a_search_runs_without_nni(archsmith, monkeypatch, platform: str):
    for name in [name for name in sys.modules if name.partition(".")[0] == "nni"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nni", None)
    monkeypatch.setenv("NNI_PLATFORM", platform)
    monkeypatch.delenv("NNI_OUTPUT_DIR", raising=False)
    said = archsmith("task=search", "strategy=random", "data=synthetic", "space.layers=3")
    assert said.code == 0, said.err


def test_the_sweeper_says_in_a_line_that_nni_is_missing(archsmith, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "nni"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nni", None)
    said = archsmith("-m", "hydra/sweeper=nni", "seed=0,1")
    assert said.code == 2
    assert "archsmith: hydra.sweeper: NNI cannot be imported" in said.err


def test_a_broken_nni_breaks_nothing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "nni", None)
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.delenv("NNI_OUTPUT_DIR", raising=False)
    assert nni_trial.overrides() == []
    nni_trial.final(0.5)
    assert "the search goes on without it" in caplog.text
