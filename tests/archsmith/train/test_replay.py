"""Passes that are captured and replayed give what eager ones give, bit for bit.

There is no CUDA graph on a CPU; `recording` stands in for one, with the same hazards: Python
between the operations does not run again.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from recording import recorded
from test_every_config import composed, still
from torch import Tensor, nn

from archsmith.train.replay import Replay
from search_spaces.darts import darts
from strategies.contracts import LossTerm
from strategies.gradients import Batch, eagerly
from strategies.losses.self_distillation import SelfDistillation
from strategies.relaxation.softmax import Softmax
from strategies.strategy import Strategy
from supernets import forms
from supernets.forms import use_form
from supernets.mixture import Mixture
from supernets.network import Network, supernet

CPU = torch.device("cpu")
SPACE = darts(
    layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=10,
    candidates=["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"],
)  # fmt: skip
DRAWING = ("annealed", "ddarts", "drnas", "rdarts_dp", "sdarts_adv", "sdarts_rs", "snas")
CAPTURED = ("darts", "darts_second_order", "goldnas", "pcdarts", "rarts", "sddarts", "sharpdarts",
            *DRAWING)  # fmt: skip
HOST = ("gdas", "rome", "tas")  # read on the host what they draw
OVERRIDES = {
    "annealed": ["strategy.relaxation.noisy_edges=0.5"],
    "sddarts": ["strategy.losses.self_distillation.ramp=[0,0]"],
}


class Run:
    """Two epochs of four steps; `captures` counts what was captured, `passes` what Python ran."""

    def __init__(self, name: str, *overrides: str, capture: Callable | None, dtype: Any = None):
        torch.manual_seed(0)
        config = composed(*still(name), *OVERRIDES.get(name, []), *overrides).strategy
        self.strategy: Strategy = instantiate(config, _convert_="all")(space=SPACE)
        self.net: Network = supernet(SPACE, self.strategy.mixed_op).train()
        self.net.autocast = dtype
        use_form(self.net, "fused", CPU)
        self.net.drop_probability = torch.zeros(())  # as on CUDA
        self.strategy.setup(self.net, CPU)
        for term in self.strategy.losses.values():
            if isinstance(term, SelfDistillation):
                term.teachers.in_place = capture is not None  # likewise
        self.captures = self.passes = 0
        if capture is not None:

            def counting(compute: Callable) -> Any:
                self.captures += 1
                return capture(compute)

            self.strategy.gradients = Replay(self.strategy, self.net, lambda: counting)

    def train(self, between: Callable[[Strategy, Network, int], object] = lambda *_: None) -> "Run":
        loss, self.metrics = self.strategy.loss, []

        def counted(*args: Any, **more: Any) -> Any:
            self.passes += 1
            return loss(*args, **more)

        self.strategy.loss = counted  # type: ignore[method-assign]
        generator = torch.Generator().manual_seed(1)
        for step in range(8):
            if step % 4 == 0:
                self.strategy.epoch_start(step // 4, 2)
            moving = self.strategy.alphas_move(step // 4, 2)
            train, val = (
                (
                    torch.randn(4, 3, 8, 8, generator=generator),
                    torch.randint(10, (4,), generator=generator),
                )
                for _ in range(2)
            )
            found = self.strategy.step(self.net, train, val, progress=step / 8, move_alphas=moving)
            self.metrics.append({name: float(value) for name, value in found.items()})
            between(self.strategy, self.net, step)
        self.generator = torch.get_rng_state()
        return self

    def state(self) -> dict[str, Tensor]:
        return self.net.state_dict() | self.strategy.named_arch_parameters()


@cache
def eager(name: str) -> Run:
    """What several tests compare with, and none changes."""
    return Run(name, capture=None).train()


def assert_equal(one: Run, other: Run) -> None:
    assert one.metrics == other.metrics
    for (name, ours), theirs in zip(one.state().items(), other.state().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n != "pcdarts" else []) for n in CAPTURED],
)
def test_replays_equal_eager_steps(name: str):
    """Also of those that draw: a replay leaves the generator where an eager pass leaves it."""
    graphs = Run(name, capture=recorded).train()
    assert_equal(graphs, eager(name))
    assert graphs.captures
    assert not graphs.strategy.gradients.off
    assert graphs.passes < eager(name).passes + 3 * graphs.captures
    assert torch.equal(graphs.generator, eager(name).generator)


def test_each_kind_of_pass_is_eager_once_captured_once_and_checked_twice():
    """Eager, eager again and captured, checked on that batch and on the next; then Python has no
    part in it."""
    run = Run("darts", capture=recorded).train()
    assert (run.captures, run.passes) == (2, 10)  # for alphas and weights


@pytest.mark.slow
def test_a_new_learning_rate_is_no_new_capture():
    """Once before there is momentum, twice (alphas, weights) after it."""
    run = Run("darts_second_order", capture=recorded).train()
    rates = run.strategy.update.rates
    assert run.strategy.schedule(0.025, 0.001, 1, 2) != 0.025
    assert float(rates[0]) == pytest.approx(run.strategy.weight_optimizer.param_groups[0]["lr"])
    assert run.captures == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy.relaxation.start=5", "strategy.relaxation.end=0.1"],  # moves with every step
        ["+strategy/losses=ema_teacher", "strategy.losses.ema_teacher.start=0.5"],
        ["+strategy/losses=label_smoothing"],
        ["strategy/relaxation=sigmoid"],
        ["strategy.warmup=0.5"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_what_changes_between_steps_reaches_a_replay(overrides: list[str]):
    runs = [Run("darts", *overrides, capture=capture).train() for capture in (None, recorded)]
    assert_equal(runs[1], runs[0])
    assert runs[1].captures >= 2


@pytest.mark.slow
def test_a_resumed_state_is_that_of_the_replays():
    """Alphas, temperatures and moments are loaded into the tensors that a graph reads."""

    def reload(strategy: Strategy, net: Network, step: int) -> None:
        if step == 4:
            strategy.load_state_dict(strategy.state_dict())

    runs = [Run("goldnas", capture=capture).train(reload) for capture in (None, recorded)]
    assert_equal(runs[1], runs[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["goldnas", "pcdarts"])
def test_pruning_captures_again(name: str):
    def prune(strategy: Strategy, net: Network, step: int) -> None:
        if step == 3:
            left = {group: alive.clone() for group, alive in strategy.alive.items()}
            for table in left.values():
                table[0, -1] = False
            strategy.prune(left)

    runs = [Run(name, capture=capture).train(prune) for capture in (None, recorded)]
    assert_equal(runs[1], runs[0])
    kinds = 1 if name == "goldnas" else 2
    assert runs[1].captures == 2 * kinds


@pytest.mark.slow
def test_a_batch_of_another_size_is_another_graph():
    run = Run("darts", capture=recorded).train()
    before = run.captures
    small = torch.randn(2, 3, 8, 8), torch.randint(10, (2,))
    for expected in (before, before + 2, before + 2):
        metrics = run.strategy.step(run.net, small, small, progress=1.0, move_alphas=True)
        assert run.captures == expected
        assert 0 <= metrics["train_accuracy"] <= 1


@pytest.mark.parametrize("form", ["fused", "packed"])
def test_a_last_batch_is_captured_after_the_supernet_was_measured(form: str, monkeypatch):
    """The first of its size is eager, the next one comes an epoch later, and between them the cells
    have run in other ways, and keep the places of other gates."""
    if form == "packed":
        monkeypatch.setattr(forms, "launches", lambda device: True)
    run = Run("darts", capture=recorded)
    every, last = ((torch.randn(n, 3, 8, 8), torch.randint(10, (n,))) for n in (4, 2))
    for _ in range(2):
        for batch in (every, every, every, last):
            run.strategy.step(run.net, batch, batch, progress=0.5, move_alphas=True)
        found = Mixture.of(run.strategy.architecture(), SPACE, CPU)
        for mixture in (run.strategy.mixture(noise=False), found):
            with torch.no_grad():
                run.net.eval()(every[0], mixture)
        run.net.train()
    assert not run.strategy.gradients.off
    assert run.captures == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", HOST)
def test_what_is_read_on_the_host_is_never_captured(name: str):
    assert Run(name, capture=recorded).train().captures == 0


def test_a_replay_draws_what_the_eager_pass_would_draw():
    """Six draws of a pass that is eager, captured and checked twice, then replayed; the generator
    ends where six eager draws leave it."""
    net = nn.Linear(1, 1)

    class Drawing:
        def constants(self) -> tuple[()]:
            return ()

        def arch_parameters(self) -> list[Tensor]:
            return []

    def drawn(batch: Batch) -> dict[str, Tensor]:
        return {"drawn": torch.rand(3) + 0 * batch[0].sum()}

    replay = Replay(Drawing(), net, lambda: recorded)
    found, states = [], []
    for gradients in (eagerly, replay):
        torch.manual_seed(3)
        batch = torch.ones(2), torch.ones(2)
        found.append([gradients("pass", drawn, [batch], [])["drawn"] for _ in range(6)])
        states.append(torch.get_rng_state())
    assert torch.equal(torch.stack(found[0]), torch.stack(found[1]))
    assert torch.equal(*states)
    assert len(replay.graphs) == 1
    assert not replay.off


@pytest.mark.slow
def test_micro_batches_and_checkpointed_cells_are_never_captured():
    for change in ("micro_batches", "checkpoint_cells"):
        run = Run("darts", capture=recorded)
        setattr(run.strategy if change == "micro_batches" else run.net, change, 2)
        assert run.train().captures == 0


class Own(Softmax):
    """An ingredient from outside whose temperature is a Python number: a graph would freeze it."""

    def before_step(self, progress: float) -> None:
        self.sharpness = 1 + progress

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        return super().forward(alphas * self.sharpness, alive)


def test_a_subclass_that_does_not_speak_for_itself_is_not_captured():
    run = Run("darts", capture=recorded)
    run.strategy.relaxation = Own(1.0, 1.0)
    assert run.train().captures == 0


class Scaled(nn.Module):
    """An operation from outside that reads a Python number."""

    def __init__(self, by: float):
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Speaking(Scaled):
    def constants(self) -> float:
        return self.by


@pytest.mark.slow
@pytest.mark.parametrize("operation", [Scaled, Speaking])
def test_an_operation_from_outside_is_captured_if_it_says_what_it_reads(operation: type[Scaled]):
    def run(capture: Callable | None) -> Run:
        own = Run("darts", capture=capture)
        scaled = operation(1.0)
        own.net.head.insert(0, scaled)
        own.strategy.setup(own.net, CPU)

        def change(strategy: Strategy, net: Network, step: int) -> None:
            scaled.by = 1.0 if step < 4 else 2.0

        return own.train(change)

    graphs = run(recorded)
    assert_equal(graphs, run(None))
    assert graphs.captures == (4 if operation is Speaking else 0)


@pytest.mark.slow
def test_gradients_stay_when_another_graph_is_replayed():
    """The memory of a pool's graphs is one: what one wrote is gone when the next is replayed."""
    graphs: list[list[Tensor]] = []

    def one_pool(compute: Callable) -> Any:
        result, replay = recorded(compute)
        graphs.append([p.grad for p in everything(run) if p.grad is not None])
        mine = len(graphs) - 1

        def replayed() -> None:
            for other, written in enumerate(graphs):
                if other != mine:
                    for gradient in written:
                        gradient.fill_(torch.nan)
            replay()

        return result, replayed

    def everything(run: Run) -> list[Any]:
        return [*run.strategy.weights, *run.strategy.arch_parameters()]

    def finite(strategy: Strategy, net: Network, step: int) -> None:
        for parameter in everything(run):
            assert parameter.grad is None or parameter.grad.isfinite().all()

    run = Run("pcdarts", "strategy.warmup=0.5", capture=one_pool)
    assert_equal(run.train(finite), Run("pcdarts", "strategy.warmup=0.5", capture=None).train())
    assert run.captures == 2


@pytest.mark.slow
def test_memory_that_does_not_suffice_for_the_check_costs_the_check_alone(caplog):
    run = Run("darts", capture=recorded)
    loss, count = run.strategy.loss, iter(range(100))

    def scarce(*args: Any, **more: Any) -> Any:
        if next(count) in (4, 7):  # two eager passes; each kind's first check, beside its graph
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(*args, **more)

    run.strategy.loss = scarce  # type: ignore[method-assign]
    with caplog.at_level("INFO"):
        assert_equal(run.train(), eager("darts"))
    assert caplog.text.count("memory does not suffice to check the pass") == 2
    assert (run.captures, run.passes) == (2, 8)
    assert not run.strategy.gradients.off


def test_a_capture_that_fails_is_said_once_and_steps_go_on(caplog):
    def failing(compute: Callable) -> Any:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    run = Run("darts", capture=failing).train()
    assert_equal(run, eager("darts"))
    (said,) = (r.getMessage() for r in caplog.records)
    assert said.startswith("CUDA graphs: the pass 'alphas' cannot be captured (operation not")
    assert run.captures == 1


def test_the_cause_of_a_failed_capture_is_that_of_the_pass(caplog):
    """The end of a capture raises, too, after an error within; what is said is the first one."""

    def failing(compute: Callable) -> Any:
        try:
            recorded(compute)
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    run = Run("darts", capture=failing)
    run.strategy.losses["reads"] = Reads()
    run.train()
    (said,) = (r.getMessage() for r in caplog.records)
    assert "(a graph cannot read a tensor on the host, recording.py, line " in said


def with_wrong_alphas(name: str) -> "Run":
    """A run whose graphs give gradients of the alphas that are a tenth too large."""

    def wrong(compute: Callable) -> Any:
        result, replay = recorded(compute)
        for parameter in run.strategy.arch_parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1.1)
        return result, replay

    run = Run(name, capture=None)
    run.strategy.gradients = Replay(run.strategy, run.net, lambda: wrong)
    return run


def test_a_replay_that_differs_is_noticed_and_not_used(caplog):
    """A graph whose gradients are wrong: the step that finds it has those of the pass itself."""

    run = with_wrong_alphas("darts")
    assert_equal(run.train(), eager("darts"))
    (said,) = (r.getMessage() for r in caplog.records)
    assert "a replay of the pass 'alphas' differs from it by 1.0e-01 in alphas" in said


@pytest.mark.parametrize("frozen", ["batch", "temperature"])
def test_a_graph_is_checked_on_the_next_batch(frozen: str, caplog):
    """A graph that computes with the batch of its capture, or with the Python number of that step,
    is right there, and wrong in the next step, which has the gradients of the pass itself."""

    class Cooling(Own):
        def constants(self) -> tuple[()]:
            return ()  # not so

    def closed(compute: Callable) -> Any:
        result, replay = recorded(compute)
        held, first = list(inputs), [part.clone() for part in inputs]

        def stale() -> None:
            now = [part.clone() for part in held]
            torch._foreach_copy_(held, first)
            replay()
            torch._foreach_copy_(held, now)

        return result, stale if frozen == "batch" else replay

    inputs: list[Tensor] = []
    run = Run("darts", capture=closed)
    loss = run.strategy.loss

    def seen(net: Any, batch: Any, *args: Any, **more: Any) -> Any:
        inputs[:] = batch
        return loss(net, batch, *args, **more)

    run.strategy.loss = seen  # type: ignore[method-assign]
    reference = Run("darts", capture=None)
    if frozen == "temperature":
        run.strategy.relaxation = Cooling(1.0, 1.0)
        reference.strategy.relaxation = Cooling(1.0, 1.0)
    assert_equal(run.train(), reference.train())
    (said,) = (r.getMessage() for r in caplog.records)
    assert "a replay of the pass 'alphas' differs from it by" in said


def test_gradients_of_alphas_are_compared_apart_from_those_of_weights(caplog):
    """Of one pass for both: wrong alphas would be a small part of all gradients together."""

    run = with_wrong_alphas("goldnas")
    assert_equal(run.train(), eager("goldnas"))
    (said,) = (r.getMessage() for r in caplog.records)
    assert said.endswith("1.0e-01 in alphas; every pass is computed operation by operation")


def test_the_memory_of_a_check_is_given_back(monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(None))
    Run("darts", capture=recorded).train()
    assert len(given) == 4  # two checks for each of two kinds


class Reads(LossTerm):
    def __call__(self, net: Any, batch: Any, logits: Tensor, mixture: Any) -> Tensor:
        return logits.mean() * float(logits.detach().abs().max())

    def constants(self) -> tuple[()]:
        return ()


def test_reading_a_tensor_is_no_graph(caplog):
    run = Run("darts", capture=recorded)
    run.strategy.losses["reads"] = Reads()
    run.train()
    assert run.strategy.gradients.off
    assert "cannot read a tensor on the host" in caplog.text
