"""What a sweep says by itself."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from test_command_line import TINY

from archsmith.cli import naming, sweep
from archsmith.cli.sweep import Sweep, duration, number_of_jobs


def config(*overrides: str):
    naming.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(naming.CONF)):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


@pytest.mark.parametrize(
    ("said", "params", "jobs"),
    [
        (["seed=0,1,2", "strategy=darts,pcdarts"], {}, 6),
        (["seed=range(10)", "search.epochs=1"], {"strategy": "a,b,c"}, 30),
        (["seed=1"], {"seed": "range(10)"}, 1),  # the command line wins over the file
        (["data.image_size=[8,8]", "x='a,b'"], {}, 1),
    ],
)
def test_jobs_are_counted_as_hydra_does(said: list[str], params: dict[str, str], jobs: int):
    found = config()
    found.hydra.sweeper.params = params
    found.hydra.overrides.task = said
    assert number_of_jobs(found) == jobs


def test_trials_of_a_tuner_are_counted_and_of_an_unknown_sweeper_not():
    assert number_of_jobs(config("hydra/sweeper=nni", "hydra.sweeper.n_trials=7")) == 7
    found = config()
    found.hydra.sweeper._target_ = "another.Sweeper"
    assert number_of_jobs(found) is None


def test_the_time_left_is_the_mean_of_jobs_that_ran(monkeypatch, caplog, tmp_path: Path):
    clock = iter([0, 100, 100, 101, 101, 401, 401])  # starts and ends: 100 s, 1 s, 300 s
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
    running = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)))
    monkeypatch.setattr(sweep.HydraConfig, "get", lambda: running)
    caplog.set_level("INFO")
    told, whole = Sweep(), config()
    whole.hydra.overrides.task = ["seed=0,1,2,3,4"]
    told.on_multirun_start(whole)
    for job in range(4):
        told.on_job_start(whole, task_function=None)
        if job < 3:
            told.on_job_end(whole, job_return=None)
    assert [record.getMessage() for record in caplog.records] == [
        "sweep: job 1 of 5",
        "sweep: job 2 of 5, about 7 minutes left",  # four of 100 s
        "sweep: job 3 of 5, about 5 minutes left",  # the second one was finished before
        "sweep: job 4 of 5, about 7 minutes left",  # two of 200 s
    ]


def test_durations():
    assert [duration(s) for s in (1.2, 89, 100, 5399, 7300)] == [
        "about 1 seconds", "about 89 seconds", "about 2 minutes", "about 90 minutes",
        "about 2.0 hours",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_sweep_ends_with_its_own_comparison_and_the_best(archsmith, tmp_path: Path):
    assert archsmith(*TINY, "task=search", "search.epochs=1", "seed=7").code == 0  # another run
    said = archsmith("-m", *TINY, "task=search", "search.epochs=1", "seed=0,1")
    assert said.code == 0, said.err
    assert "sweep: job 2 of 2" in said.out + said.err
    assert re.search(r"^discretised accuracy \(%\)$", said.out, re.M)
    assert re.search(r"^darts +2 ", said.out, re.M)  # the other run is not among them
    assert re.search(
        r"^best of 2 runs: outputs/darts-\S+, discretised accuracy [\d.]+%$", said.out, re.M
    )
    assert (tmp_path / "outputs" / "compare.html").is_file()
    checked = archsmith("-m", *TINY, "task=list", "seed=0,1")
    assert "sweep: job" not in checked.out + checked.err
    assert "best of" not in checked.out
