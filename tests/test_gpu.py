"""What only a GPU can show, in the mode of a user's run: cuDNN chooses by timing, and TF32 is on.

Each strategy takes two steps on CUDA as it does on the CPU; a replayed CUDA graph takes the steps
that eager operations take, in a search and in a retraining, also in bfloat16 and channels last; a
step does not wait for the device; a capture that fails does no harm; `run.py` runs.

Everything also runs on the CPU, with recorded operations for graphs, so that the tests themselves
are tried where there is no GPU.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from recording import recorded
from test_command_line import TINY
from test_every_config import OWN, SEARCHERS, STRATEGIES, composed, still
from torch import Tensor
from toy_recipe import EDGES, RECIPE

from archsmith.result.latency import measure_latency
from archsmith.result.retrain import Retraining
from archsmith.train.replay import Capture, Replay, captures_safely, cuda_capture
from archsmith.train.runtime import PRECISIONS
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.contracts import LossTerm
from strategies.strategy import Strategy
from strategies.topology.gumbel_top import GumbelTop
from strategies.update.smooth import Smooth
from supernets.forms import use_form
from supernets.network import Network, final_network, supernet

CPU = torch.device("cpu")
DRAWING = ["annealed", "drnas", "rdarts_dp", "sdarts_rs", "sddarts", "snas"]


class Machine(NamedTuple):
    """A device, and how its graphs are captured."""

    device: torch.device
    capturing: Callable[[], Capture]

    @property
    def real(self) -> bool:
        return self.device.type == "cuda"

    def tries(self, name: str) -> None:
        """On the CPU the test itself is tried with two strategies; the rest is skipped."""
        if not self.real and name not in ("pcdarts", "snas"):
            pytest.skip("on the CPU two strategies are enough")


@pytest.fixture(
    params=[
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
            ],
        ),
        pytest.param("cpu", marks=pytest.mark.slow),
    ]
)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """In the mode in which a user's run starts; what it sets is restored."""
    kept = {
        (place, name): getattr(place, name)
        for place, name in (
            (torch.backends.cudnn, "benchmark"),
            (torch.backends.cudnn, "deterministic"),
            (torch.backends.cudnn, "allow_tf32"),
            (torch.backends.cuda.matmul, "allow_tf32"),
        )
    }
    environment, strict = dict(os.environ), torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    runtime = instantiate(composed("runtime.deterministic=false").runtime, _convert_="all")
    device = runtime.start(request.param, 0)
    try:
        yield Machine(device, cuda_capture if device.type == "cuda" else lambda: recorded)
    finally:
        for (place, name), value in kept.items():
            setattr(place, name, value)
        torch.use_deterministic_algorithms(strict)
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def exact() -> Iterator[None]:
    """Float32 as it is, and the same sums every time; the fixture restores the mode."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    yield


def batches(device: torch.device, count: int, images: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(images, 3, 16, 16, generator=generator)
        y = torch.randint(10, (images,), generator=generator)
        yield x.to(device), y.to(device)


def two_steps(
    name: str, space: Space, device: torch.device
) -> tuple[list[torch.Tensor], list[float]]:
    """Alphas and losses after two steps from the same start on the same batches."""
    torch.manual_seed(0)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).to(device)
    strategy.setup(net, device)
    if strategy.relaxation.samples:  # devices draw different noise
        strategy.relaxation.forward = strategy.relaxation.expected
    if isinstance(strategy.topology, GumbelTop):
        strategy.topology.noisy = lambda beta: beta
    if isinstance(strategy.update, Smooth):
        strategy.update.epsilon = 0.0
    losses = steps(strategy, net, 2)
    return [p.detach().cpu() for p in strategy.arch_parameters()], losses


TWO = [
    *((name, "user") for name in STRATEGIES if name not in SEARCHERS),
    *((name, "exact") for name in ("darts", "pcdarts", "goldnas", "gdas")),
]


@pytest.mark.parametrize(("name", "how"), TWO)
def test_two_steps_on_cuda_equal_the_cpu(name: str, how: str, toy_darts: Space, machine: Machine):
    """Adam's first steps are lr * sign(g): an alpha may differ by 2 lr where g is near 0.

    Losses are compared at 1e-3 relative, alphas at 5% of the distance they moved, in the mean; with
    TF32, which keeps ten bits of each factor, at 1e-2 and 25%.
    """
    machine.tries(name)
    space = OWN.get(name, toy_darts).resize(input_shape=(3, 16, 16))
    with exact() if how == "exact" else nullcontext():
        alphas, losses = two_steps(name, space, CPU)
        there, there_losses = two_steps(name, space, machine.device)
    assert there_losses == pytest.approx(losses, rel=1e-3 if how == "exact" else 1e-2)
    share = 0.05 if how == "exact" else 0.25
    for ours, theirs in zip(alphas, there, strict=True):
        moved = 2 * 3e-4
        assert (ours - theirs).abs().mean() < share * moved


def prepared(
    name: str, space: Space, machine: Machine, *, graphs: bool, how: str = "float32"
) -> tuple[Strategy, Network]:
    """On the device, in the fused form."""
    torch.manual_seed(0)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).to(machine.device).train()
    last = how == "channels_last" and machine.real
    use_form(net, "fused", machine.device, channels_last=last)
    net.autocast = PRECISIONS.get(how)
    strategy.setup(net, machine.device)
    if graphs:
        strategy.gradients = Replay(strategy, net, machine.capturing)
    return strategy, net


def steps(strategy: Strategy, net: Network, count: int, *, late: bool = False) -> list[float]:
    """Losses of steps on batches of their own; `late` in the search strategies drop and disturb."""
    torch.manual_seed(2)
    device = next(net.parameters()).device
    if late:
        strategy.epoch_start(8, 10)
    drawn = batches(device, 2 * count)
    losses = []
    for step in range(count):
        metrics = strategy.step(
            net, next(drawn), next(drawn), progress=late / 2 + step / 100, move_alphas=True
        )
        losses.append(float(metrics["train_loss"]))
    return losses


CAPTURED = [
    *((name, how) for name in ("darts", "pcdarts", "goldnas") for how in PRECISIONS),
    *((name, "channels_last") for name in ("darts", "pcdarts")),
    ("darts_second_order", "float32"),
    *((name, "float32") for name in DRAWING),
]


@pytest.mark.parametrize(("name", "how"), CAPTURED)
def test_cuda_graphs_take_the_steps_of_eager_operations(
    name: str, how: str, toy_darts: Space, machine: Machine
):
    """Seven steps: eager, captured and checked, checked again, then replays; at 5e-3, as sums have
    other orders. Those that draw draw the same. 1e-1 in bfloat16."""
    machine.tries(name)
    eager = steps(*prepared(name, toy_darts, machine, graphs=False, how=how), 7, late=True)
    strategy, net = prepared(name, toy_darts, machine, graphs=True, how=how)
    replayed = steps(strategy, net, 7, late=True)
    assert not strategy.gradients.off
    assert any(graph is not None for graph in strategy.gradients.graphs.values())
    assert replayed == pytest.approx(eager, rel=1e-1 if how == "bfloat16" else 5e-3)


@contextmanager
def no_waits(machine: Machine) -> Iterator[None]:
    """On the CPU nothing waits: tests/strategies/test_no_host_reads.py."""
    if machine.real:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if machine.real:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", ["darts", "darts_second_order", "pcdarts", "goldnas", *DRAWING])
def test_a_step_does_not_wait_for_the_device(
    name: str, graphs: bool, toy_darts: Space, machine: Machine
):
    """After four: tables are copied in the first, graphs captured and checked in the next two."""
    machine.tries(name)
    strategy, net = prepared(name, toy_darts, machine, graphs=graphs)
    steps(strategy, net, 4, late=True)
    train, val = batches(machine.device, 2)
    with no_waits(machine):
        strategy.step(net, train, val, progress=0.9, move_alphas=True)


class Reads(LossTerm):
    """Reads a tensor on the host, which no capture allows."""

    def __call__(self, net: Any, batch: Any, logits: Tensor, mixture: Any) -> Tensor:
        return 0 * logits.mean() * float(logits.detach().abs().max())

    def constants(self) -> tuple[()]:
        return ()


def test_a_capture_that_fails_does_no_harm(toy_darts: Space, machine: Machine, caplog):
    """Its cause is logged, steps go on as eager ones, random numbers are drawn, and another
    supernet can be captured."""
    if machine.real and not captures_safely(machine.device):
        pytest.skip("in this torch a failed capture leaves the allocator unusable")
    eager = prepared("snas", toy_darts, machine, graphs=False)
    failing = prepared("snas", toy_darts, machine, graphs=True)
    for strategy, _ in (eager, failing):
        strategy.losses["reads"] = Reads()
    expected = steps(*eager, 4)
    assert steps(*failing, 4) == pytest.approx(expected, rel=5e-3)
    assert failing[0].gradients.off
    (said,) = (r.getMessage() for r in caplog.records if "CUDA graphs" in r.getMessage())
    assert "cannot be captured" in said
    assert f", {'test_gpu' if machine.real else 'recording'}.py, line " in said
    assert torch.rand(3, device=machine.device).isfinite().all()
    strategy, net = prepared("pcdarts", toy_darts, machine, graphs=True)
    steps(strategy, net, 5)
    assert not strategy.gradients.off


def test_the_memory_of_a_check_is_given_back(toy_darts: Space, machine: Machine):
    """What is reserved after the checks is less than the peak, when eager pass and graph were in
    memory together."""
    strategy, net = prepared("darts", toy_darts, machine, graphs=True)
    if machine.real:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps(strategy, net, 3)
    if machine.real:
        assert torch.cuda.memory_reserved() < torch.cuda.max_memory_reserved()


# -- retraining


def retraining(space: Space, machine: Machine, *, graphs: bool, how: str) -> list[float]:
    """Losses of two epochs of five steps, with drop-path in the second, on new batches."""
    torch.manual_seed(0)
    found = Architecture.of(space, dict.fromkeys(space.groups, EDGES))
    net = final_network(space, found, auxiliary=True).to(machine.device)
    last = how == "channels_last" and machine.real
    use_form(net, "auto" if machine.real else "reference", machine.device, channels_last=last)
    net.drop_probability = torch.zeros((), device=machine.device)  # on the CPU, too
    recipe = replace(RECIPE, precision=how if how in PRECISIONS else "float32")
    training = Retraining(net, [], recipe)  # type: ignore[arg-type]
    if graphs:
        training.replay(machine.capturing)
    losses, drawn = [], batches(machine.device, 11)
    for training.epoch in range(2):
        training.start_epoch()
        for _ in range(5):
            metrics, _ = training.train_step(next(drawn))
            losses.append(float(metrics["train_loss"]))
    batch = next(drawn)
    if graphs:
        assert isinstance(training.gradients, Replay)
        assert not training.gradients.off
        assert any(graph is not None for graph in training.gradients.graphs.values())
        with no_waits(machine):
            training.train_step(batch)
    return losses


@pytest.mark.parametrize("how", [*PRECISIONS, "channels_last"])
def test_a_retraining_with_graphs_takes_the_steps_of_eager_operations(
    how: str, toy_darts: Space, machine: Machine
):
    eager = retraining(toy_darts, machine, graphs=False, how=how)
    replayed = retraining(toy_darts, machine, graphs=True, how=how)
    assert replayed == pytest.approx(eager, rel=1e-1 if how == "bfloat16" else 1e-2)


def test_fused_updates_are_those_of_single_weights(toy_darts: Space, machine: Machine):
    """In the first epoch nothing is dropped, so that devices draw nothing."""
    there = retraining(toy_darts, machine, graphs=False, how="float32")[:5]
    here = retraining(
        toy_darts, Machine(CPU, lambda: recorded), graphs=False, how="float32"
    )[:5]  # fmt: skip
    assert there == pytest.approx(here, rel=2e-2)


def test_a_latency_is_that_of_replays(toy_darts: Space, machine: Machine, caplog):
    found = Architecture.of(toy_darts, dict.fromkeys(toy_darts.groups, EDGES))
    one = measure_latency(final_network(toy_darts, found), machine.device, 2)
    assert 0 < one.low <= one.median <= one.high
    assert "cannot be captured" not in caplog.text


# -- whole runs


def test_run_py_runs_on_the_device(archsmith, tmp_path: Path, machine: Machine, caplog):
    """A search, a retraining, the test, exports and their latency."""
    given = [*TINY, f"device={machine.device.type}", "strategy=pcdarts", "strategy.warmup=0"]
    more = ["search.epochs=2", "retrain.epochs=2", "export.latency=true"]
    if machine.real:
        more += ["search.precision=bfloat16", "retrain.precision=bfloat16"]
        more += ["runtime.channels_last=true", "runtime.graphs=true"]
    assert archsmith(*given, *more, f"hydra.run.dir={tmp_path}/run").code == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["device"].startswith(machine.device.type)
    assert 0 <= results["test_accuracy"] <= 1
    assert "CUDA graphs" not in caplog.text


def test_a_deterministic_run_is_repeated_to_the_bit(archsmith, tmp_path: Path, machine: Machine):
    given = [*TINY, f"device={machine.device.type}", "strategy=darts", "task=search"]
    for run in "ab":
        said = archsmith(
            *given, "runtime.deterministic=true", f"hydra.run.dir={tmp_path / run}", "resume=never"
        )
        assert said.code == 0, said.err
    files = [(tmp_path / run / "architecture.json").read_bytes() for run in "ab"]
    assert files[0] == files[1]
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in "ab"
    ]
    assert lines[0] == lines[1]
