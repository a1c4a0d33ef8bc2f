"""F3 to F6, F17, F50, F51: a run asked to stop, in every phase, and a folder with two runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faults.toys import image_tree
from helpers import ROOT, RUN

from archsmith import interrupt
from archsmith.data import image_folder
from archsmith.errors import ConfigError
from archsmith.result import retrain
from archsmith.result.export import files as export
from archsmith.train.run_folder import locked
from strategies.strategy import Strategy

TINY = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "search.epochs=2", "search.batch_size=12", "runtime.threads=1",
    "retrain.layers=3", "retrain.channels=4", "retrain.epochs=2", "retrain.batch_size=16",
    "hydra.run.dir=d", "export.formats=[genotype]",
]  # fmt: skip
TIMES = ("seconds", "cpu_seconds", "peak_memory_bytes")


def results(folder: str = "d") -> dict:
    found = json.loads(Path(folder, "results.json").read_text())
    return {k: v for k, v in found.items() if k not in TIMES}


def after(monkeypatch, owner: object, name: str, calls: int, act=None) -> None:
    """Sends SIGTERM to this process in that call of a function."""
    real, made = getattr(owner, name), 0

    def counting(*args, **more):
        nonlocal made
        made += 1
        if made == calls:
            (act or (lambda: os.kill(os.getpid(), signal.SIGTERM)))()
        return real(*args, **more)

    monkeypatch.setattr(owner, name, counting)


MOMENTS = {
    "search step": (Strategy, "step", 3),
    "evaluation in the search": (torch.nn.functional, "cross_entropy", 6),
    "retraining step": (retrain.Retraining, "train_step", 4),
    "final evaluation": ("archsmith.phases.run", "evaluate", 1),
    "export": (export, "_write", 1),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict:
    """What the same command leaves when nobody interrupts it, from another process."""
    folder = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, RUN, *TINY],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        "results": json.loads((folder / "d" / "results.json").read_text()),
        "weights": (folder / "d" / "weights.safetensors").read_bytes(),
        "architecture": (folder / "d" / "architecture.json").read_bytes(),
    }


@pytest.mark.parametrize(
    "moment",
    MOMENTS,
)
@pytest.mark.slow
def test_f03_f04_stopped_in_every_phase_and_run_again(
    moment: str, archsmith, uninterrupted, monkeypatch
):
    owner, name, calls = MOMENTS[moment]
    with monkeypatch.context() as patch:
        after(patch, sys.modules[owner] if isinstance(owner, str) else owner, name, calls)
        said = archsmith(*TINY)
    assert said.code == 75, said.err
    assert "run the same command" in said.err
    again = archsmith(*TINY)
    assert again.code == 0, again.err
    expected = {k: v for k, v in uninterrupted["results"].items() if k not in TIMES}
    assert results() == expected
    assert Path("d/weights.safetensors").read_bytes() == uninterrupted["weights"]
    assert Path("d/architecture.json").read_bytes() == uninterrupted["architecture"]


def test_f04_stopped_while_images_are_read(archsmith, tmp_path: Path, monkeypatch):
    image_tree(tmp_path / "images")
    with monkeypatch.context() as patch:
        after(patch, image_folder, "attempt", 3)
        said = archsmith("data=folder", f"data.root={tmp_path / 'images'}")
    assert said.code == 75
    assert "data: stopped" in said.err


def test_f04_stopped_while_images_are_downloaded(archsmith, tmp_path: Path, monkeypatch):
    """The attempt under way ends, no other begins, and nothing of it stays."""
    attempts = []

    def cut(place: str, train: bool, download: bool) -> None:
        attempts.append(Path(place, "half").write_bytes(b"x"))
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("connection reset")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", cut)
    root = tmp_path / "images"
    said = archsmith("data=cifar10", f"data.root={root}", "data.download=true")
    assert said.code == 75, said.err
    assert "data: stopped" in said.err
    assert len(attempts) == 1
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_f05_each_signal_sets_the_flag_and_only_once(number: signal.Signals):
    before = signal.getsignal(number)
    with interrupt.listening():
        assert not interrupt.requested()
        os.kill(os.getpid(), number)
        assert interrupt.requested()
        assert all(signal.getsignal(one) == signal.SIG_DFL for one in interrupt.SIGNALS)
    assert signal.getsignal(number) == before
    assert not interrupt.requested()


def test_f05_a_second_signal_ends_a_busy_process_at_once(tmp_path: Path):
    code = (
        "import time\nfrom archsmith import interrupt\n"
        "with interrupt.listening():\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert child.wait(10) == -signal.SIGINT


@pytest.mark.slow
def test_f17_a_finished_command_prints_its_result_and_trains_nothing(archsmith, monkeypatch):
    first = archsmith(*TINY, "task=search")
    assert first.code == 0
    before = results()
    monkeypatch.setattr(Strategy, "step", lambda *_, **__: pytest.fail("a step was made"))
    again = archsmith(*TINY, "task=search")
    assert again.code == 0
    assert "discretised accuracy" in again.out
    assert results() == before


@pytest.mark.slow
def test_f50_a_second_process_is_told_who_has_the_folder(archsmith, tmp_path: Path):
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from archsmith.train.run_folder import locked\n"
        f"with locked(Path({str(tmp_path / 'd')!r})):\n"
        "    print('ready', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    try:
        said = archsmith(*TINY)
        assert said.code == 2
        assert f"is in use by process {child.pid} on " in said.err
        assert " since " in said.err
    finally:
        child.kill()
        child.wait()
    with locked(tmp_path / "d"):  # the kernel has dropped the lock of the dead
        pass


def test_f50_a_lock_is_free_after_a_failure(tmp_path: Path):
    with pytest.raises(ConfigError), locked(tmp_path):
        raise ConfigError("x")
    with locked(tmp_path):
        pass


@pytest.mark.slow
def test_f51_one_failing_job_of_a_sweep_is_shown_and_the_others_finish(archsmith, monkeypatch):
    real = Strategy.step

    def failing(self, *args, **more):
        if torch.initial_seed() == 1:
            raise ConfigError("strategy: seed 1 fails")
        return real(self, *args, **more)

    tiny = [one for one in TINY if not one.startswith("hydra.run.dir")]
    sweep = ["-m", *tiny, "task=search", "search.epochs=1", "seed=0,1,2"]
    with monkeypatch.context() as patch:
        patch.setattr(Strategy, "step", failing)
        said = archsmith(*sweep)
    assert said.code == 2
    assert said.err.count("strategy: seed 1 fails") + said.out.count("strategy: seed 1 fails") == 2
    done = sorted(p.parent.name for p in Path("outputs").glob("*/phases.json"))
    assert [name.split("-")[3] for name in done] == ["s0", "s2"]
    steps = []
    monkeypatch.setattr(
        Strategy, "step", lambda *a, **m: (steps.append(torch.initial_seed()), real(*a, **m))[1]
    )
    assert archsmith(*sweep).code == 0
    assert set(steps) == {1}


@pytest.mark.slow
def test_f30_one_network_of_a_sweep_too_large_to_retrain_is_told_and_the_others_finish(
    archsmith, monkeypatch
):
    real = retrain.Retraining.train_step

    def failing(self, *args):
        if torch.initial_seed() == 1 and self.loader:  # not the trial step of the preflight
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(self, *args)

    tiny = [one for one in TINY if not one.startswith("hydra.run.dir")]
    sweep = ["-m", *tiny, "search.epochs=1", "seed=0,1,2"]
    with monkeypatch.context() as patch:
        patch.setattr(retrain.Retraining, "train_step", failing)
        said = archsmith(*sweep)
    assert said.code == 5
    told = "retrain: out of memory, also with batches in 2 parts"
    assert told in said.err
    assert [line for line in said.out.splitlines() if told in line and "-s1-" in line]
    done = {path.parent.name.split("-")[3]: path for path in Path("outputs").glob("*/phases.json")}
    phases = {seed: set(json.loads(path.read_text())) for seed, path in done.items()}
    everything = {"search", "retrain", "evaluate", "export"}
    assert phases == {"s0": everything, "s1": {"search"}, "s2": everything}
    monkeypatch.setattr(Strategy, "step", lambda *_, **__: pytest.fail("searched again"))
    assert archsmith(*sweep).code == 0
    assert set(json.loads(done["s1"].read_text())) == everything
