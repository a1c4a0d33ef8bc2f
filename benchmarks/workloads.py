"""The workloads and forms of the benchmarks, and how a step is timed and its memory measured."""

import gc
import resource
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

FIRST = 3  # steps that are not counted: eager, captured and checked, checked again
LAUNCHES = "cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from recording import recorded  # noqa: E402

from archsmith.parallel.averaged import averaged  # noqa: E402
from archsmith.parallel.data_parallel import across_processes  # noqa: E402
from archsmith.train.replay import Capture, Replay, cuda_capture  # noqa: E402
from archsmith.train.runtime import forget_peak, peak_memory, synchronize  # noqa: E402
from strategies.update import first_order  # noqa: E402
from supernets.forms import use_form  # noqa: E402
from supernets.network import CellModule, supernet  # noqa: E402

Found = TypeVar("Found")
CPU = torch.device("cpu")
SMALL = ["space.layers=3", "space.nodes=1"]
STILL = "strategy.warmup=0"
PAPER = "experiment=paper"
# name -> what it is, and the settings that make it, at the papers' sizes
WORKLOADS: dict[str, tuple[str, list[str]]] = {
    "W1": ("DARTS, 8 cells, C = 16", [PAPER, "strategy=darts"]),
    "W1b": (
        "the same, second order by finite differences",
        [PAPER, "strategy=darts_second_order", "strategy.update.hessian=finite_difference"],
    ),
    "W2": ("PC-DARTS, K = 4, the same sizes", [PAPER, "strategy=pcdarts", STILL]),
    "W3": ("NAS-Bench-201, C = 16, N = 5", [PAPER, "strategy=darts", "space=nasbench201"]),
    "demo": ("the demo: DARTS, 5 cells, C = 8, on 1x8x8 images", ["strategy=darts"]),
    "tiny": ("3 cells with one node, to try a benchmark", ["strategy=darts", *SMALL]),
}
# "public": the reference form, as the public implementations write it, which compute the
# gradients of all weights in the alpha step too
FORMS = ["public", "reference", "fused", "native"]
# a form, and what else is asked for
CUDA_FORMS = [
    "public",
    "reference",
    "fused",
    "fused+graphs",
    "fused+graphs+bfloat16",
    "fused+graphs+bfloat16+channels_last",
]


def capturing(device: torch.device) -> Callable[[], Capture]:
    """Captures CUDA graphs; on a CPU, where benchmarks only try themselves, what stands in for
    them."""
    return cuda_capture if device.type == "cuda" else lambda: recorded


def all_gradients(self: Any, strategy: Any, net: nn.Module, train: Any, val: Any) -> Tensor:
    loss, _ = strategy.loss(net, val, "val")
    loss.backward(inputs=[*strategy.arch_parameters(), *strategy.weights])
    return loss


def form_on_meta(net: nn.Module) -> None:
    """Cells compute in their form on meta tensors, too, where they are else the reference."""
    for cell in net.modules():
        if isinstance(cell, CellModule) and cell.form is not None:
            vars(cell)["states"] = cell.form.states


def random_images(
    batch: int, shape: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and labels (B,) of ten classes."""
    images = torch.randn(batch, *shape, device=device)
    return images, torch.randint(10, (batch,), device=device)


def prepared(
    overrides: list[str], form: str, batch: int, device: torch.device = CPU
) -> Callable[[], Any]:
    """A function that takes one search step: alphas on one batch, weights on another.

    Images are 3x32x32 at the papers' sizes, else those of the demo's data, 1x8x8.
    """
    form, *extras = form.split("+")
    torch.manual_seed(0)
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("config", overrides=overrides)
    shape = (3, 32, 32) if PAPER in overrides else (1, 8, 8)
    space = instantiate(config.space, _convert_="all")(input_shape=shape, classes=10)
    strategy = instantiate(config.strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train().to(device)
    own = "reference" if form == "public" else form
    last = "channels_last" in extras and device.type != "cpu"
    use_form(net, own, device, channels_last=last)
    if device.type == "meta":
        form_on_meta(net)
    net.autocast = torch.bfloat16 if "bfloat16" in extras else None
    strategy.setup(net, device)
    if "graphs" in extras:
        strategy.gradients = Replay(strategy, net, capturing(device))
    across_processes(net)
    if strategy.averages:
        strategy.gradients = averaged(strategy.gradients)
    train, val = (random_images(batch, shape, device) for _ in range(2))
    gc.collect()
    gc.freeze()  # as a search does (archsmith.train.garbage.settled)
    public = form == "public" and type(strategy.update) is first_order.FirstOrder

    def step() -> Any:
        how: AbstractContextManager[Any] = nullcontext()
        if public:
            how = patch.object(first_order.FirstOrder, "alpha_gradients", all_gradients)
        with how:
            return strategy.step(net, train, val, progress=0.5, move_alphas=True)

    return step


def resident() -> float:
    """The largest resident set of this process so far, in MiB.

    Linux hands `ru_maxrss` on from parent to child, so there it is read from /proc.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def memory(overrides: list[str], form: str, batch: int, threads: int) -> float:
    """Peak of two steps on the CPU above a process in which everything is imported, in MiB."""
    command = [sys.executable, __file__, form, str(batch), str(threads), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def operations(step: Callable[[], Any], device: torch.device = CPU) -> int:
    """torch operations in a step, views included; on CUDA, what the host launches."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
    counted = ("aten::",) if device.type == "cpu" else LAUNCHES
    return sum(event.count for event in profile.key_averages() if event.key.startswith(counted))


class Alone(NamedTuple):
    """Of a step: seconds, the MiB at its peak, and torch's operations, on CUDA launches."""

    seconds: list[float]
    mib: float
    operations: int


def alone(make: Callable[[], Callable[[], Any]], n: int, device: torch.device) -> Alone:
    """A step measured with nothing else in memory, n times after `FIRST` that are not counted; no
    seconds if it runs out of memory. The peak is above what was taken before; on the CPU it is that
    of the process, which never falls. What the step held is free again afterwards."""
    forget_peak(device)
    before, seconds = peak_memory(device), []
    try:
        step = make()
        for repeat in range(FIRST + n):
            synchronize(device)
            began = time.perf_counter()
            step()
            synchronize(device)
            if repeat >= FIRST:
                seconds.append(time.perf_counter() - began)
        peak = (peak_memory(device) - before) / 2**20
        return Alone(seconds, peak, operations(step, device))
    except torch.OutOfMemoryError:
        return Alone([], 0.0, 0)
    finally:
        step = None
        gc.unfreeze()
        gc.collect()


def going_on(what: str, run: Callable[[], Found]) -> Found | None:
    """What `run` returns; None after an error, which is printed, so that others are measured."""
    try:
        return run()
    except Exception as error:  # whatever it is
        said = " ".join(str(error).split())[:300]
        print(f"{what} failed: {type(error).__name__}: {said}", flush=True)
        traceback.print_exc()
        return None


def print_alone(
    made: Mapping[str, Callable[[], Callable[[], Any]]], n: int, device: torch.device
) -> bool:
    """Prints a table of forms that are each measured `alone`, line by line; returns whether none
    failed. One that does not fit into memory has not."""
    base, failed = None, False
    print("| form | ms a step, median (min to max) | times faster | MiB | launches |")
    print("|---|---|---|---|---|", flush=True)
    for form, make in made.items():
        found = going_on(form, partial(alone, make, n, device))
        failed = failed or found is None
        if found is None:
            continue
        if not found.seconds:
            print(f"| {form} | out of memory | | | |", flush=True)
            continue
        low, median, high = (
            1000 * of(found.seconds) for of in (min, statistics.median, max)
        )  # fmt: skip
        base = base or median
        print(
            f"| {form} | {median:.1f} ({low:.1f} to {high:.1f}) | {base / median:.2f} "
            f"| {found.mib:.0f} | {found.operations:,} |",
            flush=True,
        )
    return not failed


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    prepared(["strategy=darts", *SMALL], sys.argv[1], 2)()
    before = resident()
    step = prepared(sys.argv[4:], sys.argv[1], int(sys.argv[2]))
    for _ in range(2):
        step()
    print(resident() - before)
