"""A budget of seconds becomes epochs, and leaves the search as it was."""

from typing import Any

import pytest
import torch
from test_every_config import composed, make
from torch.torch_version import TorchVersion

from archsmith.search import time_budget
from archsmith.search.time_budget import Pace, Timing, epochs_in, epochs_within, timed
from archsmith.train.runtime import describe_device
from search_spaces.space import Space
from supernets.network import supernet


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("pcdarts", marks=pytest.mark.slow), "goldnas"])
def test_more_seconds_are_more_epochs_and_nothing_is_changed(
    name: str, toy_darts: Space, monkeypatch
):
    strategy = make(composed(f"strategy={name}").strategy, space=toy_darts)
    net = supernet(toy_darts, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    small = ["data=synthetic", "data.size=64", "data.classes=3"]
    channels, height, _ = toy_darts.input_shape
    data = make(composed(*small, f"data.image_size={height}").data)
    assert data.input_shape == toy_darts.input_shape, channels
    roles = data.loaders(8, one_level=not strategy.update.two_level, seed=0)
    state = torch.get_rng_state()
    before = [t.detach().clone() for t in (*net.parameters(), *strategy.arch_parameters())]
    alive = {group: table.clone() for group, table in strategy.alive.items()}

    timings = iter([Timing([0.2, 0.1, 0.3], [0.05] * 3, 0.6)] * 2)
    timed_epoch = time_budget.timed_epoch
    measured = []

    def timed(*given: Any) -> Timing:
        measured.append(timed_epoch(*given))
        return next(timings)

    monkeypatch.setattr(time_budget, "timed_epoch", timed)
    steps = len(roles.train)
    moving = 1 - strategy.warmup
    epoch = steps * (strategy.warmup * 0.05 + moving * 0.2) + 0.6  # medians
    short = 0.6 + 2.2 * (epoch - 0.6) / steps  # seconds of an epoch of 2.2 steps
    assert epochs_within(7 * epoch + short, net, strategy, roles) == 7 + 2 / steps
    assert epochs_within(0.01 * epoch, net, strategy, roles) == 1
    assert all(len(one.moving) == 6 and min(one.moving) > 0 for one in measured)
    assert all(one.measuring > 0 for one in measured)

    assert torch.equal(torch.get_rng_state(), state)
    after = (*net.parameters(), *strategy.arch_parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(torch.equal(alive[group], table) for group, table in strategy.alive.items())
    assert (roles.train.epoch, roles.train.batch) == (0, 0)
    assert strategy.weight_optimizer.state == {}


MEASURING = 1.0  # seconds of any epoch, a short one too


def spent(seconds: float, estimate: float, costs: Any) -> tuple[float, list[float]]:
    """What a search takes whose epochs take so long one by one, and the epochs it had by each."""
    now, planned, done = 0.0, [], 0
    pace = Pace(estimate, 50, seconds, lambda: now)
    while done < pace.epochs:
        now += (costs(done + 1) - MEASURING) * pace.steps_of(done) / 50
        pace.steps_end()
        now += MEASURING
        done += 1
        pace.epoch_end(done)
        planned.append(pace.epochs)
    assert pace.number == done
    return now, planned


@pytest.mark.parametrize(
    ("estimate", "costs", "near"),
    [
        (10, lambda done: 10.0, 0.01),  # as foreseen
        (10, lambda done: max(3.0, 10.0 - done), 0.02),  # pruning makes epochs shorter
        (10, lambda done: 13.0, 0.02),  # steps take longer than those that were timed
        (20, lambda done: 10.0, 0.01),
        (7, lambda done: 10.0, 0.01),
        (2.5, lambda done: 40.0, 0.01),  # few and long
        (4, lambda done: 28.0, 0.01),
        (2.2, lambda done: 60.0, 0.01),
    ],
)
def test_b5_a_search_takes_its_seconds(estimate: float, costs: Any, near: float):
    taken, _ = spent(100.0, estimate, costs)
    assert taken == pytest.approx(100.0, rel=near)


def test_b5_a_short_epoch_is_the_last_and_pays_for_what_it_measures():
    _, planned = spent(100.0, 10, lambda done: 31.0)  # of them 1 s to measure
    assert planned == [1 + 2.2, 1 + 2.2, 3.2, 3.2]  # 7 s are left: 6 of the 30 s of steps
    assert epochs_in(62.0 + 3.9, 31.0, 1.0) == 2.0  # 2.9 s of 30 are less than a tenth
    assert epochs_in(62.0 + 4.0, 31.0, 1.0) == pytest.approx(2.1)
    pace = Pace(3.2, 50, 100.0, lambda: 0.0)
    assert [pace.steps_of(epoch) for epoch in range(4)] == [50, 50, 50, 10]
    assert pace.progress(2, 25) == 2.5 / 3.2
    assert pace.progress(3, 10) == pytest.approx(1.0)
    assert pace.progress(4, 0) == 1.0


def test_b5_what_pruning_saves_is_given_back_as_epochs_and_progress_never_falls():
    _, planned = spent(100.0, 10, lambda done: 10.0 if done < 4 else 4.0)
    assert planned[:3] == [10, 10, 10]
    assert planned[-1] == pytest.approx(3 + 17.3, abs=0.04)  # 70 s of 4 s, the last of 1 + 1 s
    stands = [done / epochs for done, epochs in enumerate(planned, 1)]
    next_ends = [(done + 1) / epochs for done, epochs in enumerate(planned, 1)]
    assert all(end > before for before, end in zip(stands, next_ends[1:], strict=False))


def test_a_resumed_search_goes_on_with_its_seconds_and_epochs():
    now = 0.0
    first = Pace(10, 50, 100.0, lambda: now)
    now = 5.0
    first.epoch_end(1)  # half of what was foreseen: 20 would fit, and progress may not fall
    now = 7.0
    state = first.state_dict()
    assert state == {"epochs": 19.98, "spent": 7.0, "began": 5.0}
    now = 1000.0  # another process, much later
    other = Pace(10, 50, 100.0, lambda: now)
    other.load_state_dict(state)
    now = 1003.0
    other.epoch_end(2)
    assert (other.spent, other.epochs) == (10.0, 20)
    unbound = Pace(3, 50, None, lambda: now)
    unbound.load_state_dict(state)
    assert unbound.epochs == 3


def test_c9_the_first_steps_never_count(monkeypatch):
    """Two that load kernels and capture, of 30 s each, then steps of 0.5 s; and steps of 30 s."""
    now, took = 0.0, iter([30.0, 30.0, *[0.5] * 9])

    def step() -> None:
        nonlocal now
        now += next(took)

    cpu = torch.device("cpu")
    assert timed(step, cpu, lambda: now, untimed=2) == [0.5] * 6
    took = iter([30.0] * 9)
    assert timed(step, cpu, lambda: now, untimed=2) == [30.0]


@pytest.mark.parametrize(
    ("graphs", "version", "captures"),
    [("auto", "2.11.0", False), ("auto", "2.15.0", True), (True, "2.11.0", True),
     (False, "2.15.0", False)],
)  # fmt: skip
def test_c9_graphs_by_themselves_ask_for_a_torch_that_survives_a_failed_capture(
    graphs: bool | str, version: str, captures: bool, monkeypatch
):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    runtime = make(composed(f"runtime.graphs={graphs}").runtime)
    assert runtime.captures(torch.device("cuda")) == captures
    assert not runtime.captures(torch.device("cpu"))


def test_c9_a_gpus_name_says_what_is_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H")
    name = describe_device(torch.device("cuda:0"))
    assert name == "cuda:0 (H, float32 as TF32 in convolutions)"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert describe_device(torch.device("cuda:0")) == "cuda:0 (H)"
