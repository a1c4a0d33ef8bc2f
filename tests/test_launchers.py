"""Sweeps whose jobs run in other processes; each test skips where its launcher is not installed."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import RUN
from omegaconf import DictConfig

from archsmith import interrupt
from archsmith.cli import main

TINY = [
    "task=search", "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=6", "search.batch_size=16",
    "runtime.threads=1",
]  # fmt: skip
PLUGINS = {
    "processes": ("hydra_plugins.hydra_joblib_launcher", ".[joblib]"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", ".[submitit]"),
    "ray_cluster": ("hydra_plugins.hydra_ray_launcher", ".[ray]"),
}


def sweep(launcher: str, folder: Path, *overrides: str) -> subprocess.Popen:
    """`python run.py -m hydra/launcher=...` on toy settings, both outputs into `log.txt`."""
    plugin, extra = PLUGINS[launcher]
    pytest.importorskip(plugin, reason=f"needs pip install -e '{extra}'")
    command = [sys.executable, RUN, "-m", f"hydra/launcher={launcher}", *TINY, *overrides]
    with open(folder / "log.txt", "w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )


def finished(folder: Path) -> dict[str, Path]:
    """The architecture of each strategy that found one."""
    files = folder.glob("outputs/*/architecture.json")
    return {file.parent.name.partition("-")[0]: file for file in files}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", PLUGINS)
def test_one_failing_job_stops_nobody(launcher: str, tmp_path: Path):
    arguments = ["strategy=pcdarts,darts,random", "search.epochs=1"]  # pcdarts needs 4 | channels
    assert sweep(launcher, tmp_path, *arguments).wait(200) == 2
    said = (tmp_path / "log.txt").read_text()
    assert "archsmith: strategy.mixed_op.k: 6 channels cannot be split" in said
    found = finished(tmp_path)
    assert set(found) == {"darts", "random"}
    before = found["darts"].stat().st_mtime_ns

    assert sweep(launcher, tmp_path, *arguments).wait(200) == 2
    assert found["darts"].stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", "submitit_local"])
def test_a_sweep_that_is_stopped_saves_every_job_and_goes_on(launcher: str, tmp_path: Path):
    arguments = ["seed=0,1", "search.epochs=15", "data.size=240"]
    process = sweep(launcher, tmp_path, *arguments)
    for _ in range(600):
        if list((tmp_path / "outputs").glob("*/metrics.jsonl")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # to that process alone, as a scheduler may
    assert process.wait(100) == 75, (tmp_path / "log.txt").read_text()
    assert not list((tmp_path / "outputs").glob("*/phases.json"))

    assert sweep(launcher, tmp_path, *arguments).wait(300) == 0
    logs = list((tmp_path / "outputs").glob("*/metrics.jsonl"))
    assert len(logs) == 2
    for log in logs:
        assert [json.loads(line)["step"] for line in log.open()] == list(range(15))


def test_a_sweep_in_this_process_that_is_stopped_starts_no_other_job(archsmith, monkeypatch):
    """By a signal in the first of three jobs."""
    started = []

    def stopping(config: DictConfig) -> None:
        started.append(config.seed)
        os.kill(os.getpid(), signal.SIGTERM)
        interrupt.check("search")

    monkeypatch.setattr(main, "run_task", stopping)
    said = archsmith("-m", "seed=0,1,2")
    assert (said.code, started) == (75, [0])
    assert said.err.splitlines()[-1] == (
        "archsmith: search: stopped; what was saved is kept, run the same command again"
    )


def test_a_launcher_that_is_not_installed_is_named(archsmith):
    absent = [name for name, (plugin, _) in PLUGINS.items() if not find_spec(plugin)]
    if not absent:
        pytest.skip("every launcher is installed here")
    said = archsmith("-m", f"hydra/launcher={absent[0]}", "seed=0,1")
    assert said.code == 2
    assert f"pip install -e '{PLUGINS[absent[0]][1]}'" in said.err
