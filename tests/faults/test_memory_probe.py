"""F28, F30: memory that will not suffice, said before a long run."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults.toys import ToySearch, assert_same, scramble
from helpers import ROOT
from torch import nn

from archsmith.errors import OutOfMemory
from archsmith.train import memory_probe
from archsmith.train.available import Memory, control_groups, memory_of
from archsmith.train.memory_probe import Living, check_memory, step_memory
from archsmith.train.random_state import random_state
from search_spaces.space import Space

CPU = torch.device("cpu")
GB = 10**9


def plain_step(count: int) -> Callable[[], object]:
    """In the beginning the weight and its gradient are the peak, for large batches the images."""
    layer = nn.Linear(1000, 1000, bias=False)

    def step() -> None:
        layer(torch.ones(count, 1000)).relu().square().sum().backward()

    return step


def test_f28_what_lives_is_counted_once_and_leaves_when_it_dies():
    held = torch.zeros(8)
    with Living() as living:
        x = torch.zeros(100)  # 400 bytes
        y = x.view(10, 10)[2:]
        held.add_(1.0)
        del x
        assert living.now == 400
        del y
        assert living.now == 0
    assert max(living.after) == 400


@pytest.mark.parametrize("batch", [1, 64, 5000])
def test_f28_a_small_step_tells_of_a_large_one(batch: int):
    step = plain_step(batch)
    with Living() as living:
        step()
    assert step_memory(plain_step, 1)(batch) == max(living.after) + living.now


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["darts", *(pytest.param(n, marks=pytest.mark.slow) for n in (
        "pcdarts", "goldnas", "sddarts", "gdas", "drnas", "darts_second_order", "annealed"))],
)  # fmt: skip
def test_f28_the_probe_changes_nothing_of_a_search(
    name: str, toy_darts: Space, tmp_path: Path, monkeypatch, caplog
):
    plain, probed = ToySearch(toy_darts, name), ToySearch(toy_darts, name)
    plain.run(tmp_path / "plain")
    monkeypatch.setattr("archsmith.train.epochs.PROBED_STEPS", 1)
    with caplog.at_level(logging.INFO):
        probed.run(tmp_path / "probed")
    assert caplog.text.count("search: a step takes about") == 1
    assert_same(probed.tensors(), plain.tensors())


def test_f28_every_random_generator_is_left_alone(toy_darts: Space):
    scramble(3)
    before = random_state()
    step_memory(plain_step, 1)
    assert torch.equal(random_state()["torch"], before["torch"])
    assert random_state()["python"] == before["python"]


def judged(memory: Memory, monkeypatch, parts: int = 1) -> None:
    """A step of 64 images that takes 1 GB and 0.1 GB an image."""
    monkeypatch.setattr(memory_probe, "memory_of", lambda _: memory)
    check_memory(
        "search", lambda images: int((1 + images / 10) * GB), 64, parts, CPU,
        otherwise="runtime.checkpoint_cells=true",
    )  # fmt: skip


def test_f28_what_will_not_fit_is_a_warning_with_numbers(monkeypatch, caplog):
    caplog.set_level("WARNING")
    judged(Memory(8 * GB, 16 * GB), monkeypatch)
    assert caplog.text == ""
    judged(Memory(3 * GB, 4 * GB), monkeypatch)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "a step takes about 7.40 GB, and 3.00 GB of 4.00 GB are free" in said
    assert "set search.micro_batches=4 or search.batch_size=16 (about 2.60 GB)" in said
    assert "or runtime.checkpoint_cells=true" in said


def test_f28_what_cannot_fit_is_refused_at_once(monkeypatch):
    with pytest.raises(OutOfMemory, match=r"smallest batch 1.20 GB, and 0.50 GB of 1.00 GB"):
        judged(Memory(GB // 2, GB), monkeypatch)


@pytest.mark.slow
def test_f28_a_hopeless_run_ends_with_5_before_its_first_step(archsmith, monkeypatch):
    monkeypatch.setattr("archsmith.train.epochs.PROBED_STEPS", 1)
    monkeypatch.setattr(memory_probe, "memory_of", lambda _: Memory(1000, 1000))
    said = archsmith(
        "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3", "task=search",
        "space.layers=3", "space.nodes=1", "space.channels=4", "search.batch_size=12",
        "hydra.run.dir=d",
    )  # fmt: skip
    assert said.code == 5
    assert "runtime.checkpoint_cells=true" in said.err
    assert not list(Path("d").glob("checkpoints/*.pt"))


GROUPS = {
    "version 2": (
        "0::/jobs/one\n",
        {
            "sys/fs/cgroup/jobs/one": ("memory.max", "max", "memory.current", "5"),
            "sys/fs/cgroup/jobs": ("memory.max", "3000", "memory.current", "2000"),
        },
        "inactive_file 500",
    ),
    "version 1": (
        "9:cpu:/\n4:memory:/jobs\n",
        {
            "sys/fs/cgroup/memory/jobs": (
                "memory.limit_in_bytes", "3000", "memory.usage_in_bytes", "2000",
            )
        },
        "total_inactive_file 500",
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", GROUPS)
def test_the_limit_of_a_control_group_counts(version: str, tmp_path: Path):
    line, folders, stat = GROUPS[version]
    (tmp_path / "cgroup").write_text(line)
    for name, (limit, most, used, taken) in folders.items():
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / limit).write_text(most + "\n")
        (tmp_path / name / used).write_text(taken + "\n")
        (tmp_path / name / "memory.stat").write_text(f"anon 9\n{stat}\n")
    assert list(control_groups(tmp_path / "cgroup", tmp_path)) == [Memory(1500, 3000)]


def test_no_control_group_is_no_limit(tmp_path: Path):
    assert list(control_groups(tmp_path / "none", tmp_path)) == []
    assert 0 < memory_of(CPU).free < memory_of(CPU).total


MEASURED = """
import resource, sys, torch
sys.path[:0] = ["tests"]
from pathlib import Path
from test_every_config import composed, make
from archsmith.train.memory_probe import images_for, step_memory
from supernets.forms import use_form
from supernets.network import supernet
import copy

def resident():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
config = composed("strategy=" + sys.argv[1], "space.layers=5", "space.channels=8")
space = make(config.space, input_shape=(3, 32, 32), classes=10)
strategy = make(config.strategy, space=space)
net = supernet(space, strategy.mixed_op).train()
use_form(net, sys.argv[2], torch.device("cpu"))
strategy.setup(net, torch.device("cpu"))

def prepared(count):
    ours, its = copy.deepcopy((net, strategy))
    train, val = images_for(ours, count), images_for(ours, count)
    return lambda: its.step(ours, train, val, progress=1.0, move_alphas=True)

need = step_memory(prepared, 1)(32)
before = resident()
step = prepared(32)
step(), step()
print(need, resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("name", "form", "most"),
    [("darts", "reference", 1.2), ("darts", "fused", 1.2), ("pcdarts", "fused", 1.2),
     ("darts", "native", 2.0)],
)  # fmt: skip
def test_f28_the_estimate_is_near_the_resident_peak(name: str, form: str, most: float):
    """The kernel's figure of a fresh process, two steps of 32 images, whose C allocator gives freed
    blocks back at once. What it keeps otherwise, and buffers within operations, are in no estimate:
    they weigh where little is taken, as by the native form."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, name, form],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    need, measured = map(int, done.stdout.split())
    print(f"{name} {form}: estimate {need / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert 0.8 < measured / need < most


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: no CUDA device here")
def test_f28_the_estimate_is_near_the_peak_of_cuda(toy_darts: Space):
    device = torch.device("cuda")
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten()).to(
        device
    )

    def prepared(count: int) -> Callable[[], object]:
        x = torch.randn(count, 3, 32, 32, device=device)
        return lambda: net(x).square().sum().backward()

    need = step_memory(prepared, 1)(256)
    net.zero_grad()
    step = prepared(256)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    measured = torch.cuda.max_memory_allocated(device) - before
    assert need == pytest.approx(measured, rel=0.3)  # workspaces of the convolutions are extra
