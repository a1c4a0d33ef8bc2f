"""A time budget instead of a number of epochs: how many epochs fit, possibly with a fraction."""

import copy
import itertools
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from archsmith import interrupt
from archsmith.data.roles import Roles
from archsmith.parallel.distributed import from_first
from archsmith.train.evaluate import evaluate, restore_statistics
from archsmith.train.memory_probe import images_for
from archsmith.train.runtime import synchronize
from strategies.gradients import eagerly
from strategies.strategy import Strategy
from supernets.network import Network

STEPS = 6  # timed steps per kind, after untimed ones
LONG = 20.0  # seconds; after this time no more steps are timed
LEAST = 0.1  # share of an epoch's steps; a shorter last epoch is left out
log = logging.getLogger(__name__)
Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Seconds of steps with and without an alpha update, and of the measurements after an epoch."""

    moving: list[float]
    still: list[float]
    measuring: float

    def step(self, warmup: float, of: Callable[[list[float]], float] = statistics.median) -> float:
        """Seconds per step, averaged over the whole search."""
        return warmup * of(self.still) + (1 - warmup) * of(self.moving)


class Stopwatch:
    """The seconds that a training has taken, in all processes of a run.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Clock):
        self.clock, self.spent = clock, 0.0
        self._since = clock()

    def tick(self) -> None:
        """Adds the time since the last call."""
        now = self.clock()
        self.spent, self._since = self.spent + now - self._since, now

    def go_on(self, spent: float) -> None:
        """Continues from what an earlier process has spent."""
        self.spent, self._since = spent, self.clock()


class Pace(Stopwatch):
    """The number of epochs of a search. Under a time budget, as many as fit into the remaining
    time; the last may have fewer steps.

    If an epoch is faster than estimated, because pruning has shrunk the supernet, more epochs
    follow; if it is slower, fewer. The schedules adapt.

    Args:
        epochs: the initial estimate for the whole search.
        steps: steps of a full epoch.
        seconds: the time budget; None keeps `epochs`.
    """

    def __init__(self, epochs: float, steps: int, seconds: float | None, clock: Clock):
        super().__init__(clock)
        self.epochs, self.steps, self.seconds = epochs, steps, seconds
        self.began = 0.0  # seconds at the start of this epoch
        self.trained = 0.0  # seconds at the end of its last step

    @property
    def number(self) -> int:
        """Number of epochs, including a short last one."""
        return math.ceil(self.epochs)

    def steps_of(self, epoch: int) -> int:
        """Number of steps of an epoch (from 0)."""
        return min(self.steps, round((self.epochs - epoch) * self.steps))

    def progress(self, epoch: int, step: int) -> float:
        """The completed share of the search after `epoch` epochs and `step` steps, in [0, 1]."""
        return min(1.0, (epoch + step / self.steps) / self.epochs)

    def steps_end(self) -> None:
        """Called after the last step of an epoch, before its measurements."""
        self.tick()
        self.trained = self.spent

    def epoch_end(self, done: int) -> None:
        """Updates the total number of epochs after `done` epochs; progress never decreases."""
        self.tick()
        last, measuring = self.spent - self.began, self.spent - self.trained
        self.began = self.spent
        if self.seconds is None or done >= self.epochs:
            return
        fit = done + epochs_in(self.seconds - self.spent, last, measuring)
        most = self.epochs * (done + 1) / done  # with this many, progress would stand still
        whole = math.ceil(most * self.steps) - 1
        self.epochs = from_first(min(round(fit * self.steps), whole) / self.steps)

    def state_dict(self) -> dict[str, Any]:
        self.tick()
        return {"epochs": self.epochs, "spent": self.spent, "began": self.began}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; without a budget, the configured epochs are kept."""
        if self.seconds is not None:
            self.epochs = float(state["epochs"])
        self.began = float(state["began"])
        self.go_on(float(state["spent"]))


def clock_of(device: torch.device) -> Clock:
    """A clock in seconds; on the CPU it is this thread's processor time, whatever else runs."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def epochs_in(seconds: float, epoch: float, measuring: float) -> float:
    """The number of epochs that fit, if each takes `epoch` seconds, `measuring` of them for
    measurements; a last epoch with less than a share of `LEAST` of the steps is left out."""
    if epoch <= 0:
        return 0.0
    whole, rest = divmod(max(0.0, seconds), epoch)
    part = (rest - measuring) / (epoch - measuring) if rest > measuring else 0.0
    return whole + (part if part >= LEAST else 0.0)


def epochs_within(seconds: float, net: Network, strategy: Strategy, roles: Roles) -> float:
    """The number of epochs that take about this many seconds on this machine, at least 1.

    The estimate ignores the time that pruning saves; `Pace` adds it back later. On the CPU, the
    processor time of this thread is measured, which equals wall-clock time on an idle machine.
    """
    device = next(net.parameters()).device
    timing = timed_epoch(net, strategy, roles, clock_of(device))
    per_step, steps = timing.step(strategy.warmup), len(roles.train)
    epoch = steps * per_step + timing.measuring
    found = max(1.0, round(epochs_in(seconds, epoch, timing.measuring) * steps) / steps)
    log.info(
        "search: %.3g epochs of about %.1f s fit in search.seconds=%g (%.0f ms a step)",
        found, epoch, seconds, 1000 * per_step,
    )  # fmt: skip
    return found


def timed_epoch(net: Network, strategy: Strategy, roles: Roles, clock: Clock) -> Timing:
    """Times steps and one evaluation on a copy; random state and training loaders are not changed.

    The batches are random numbers, so the time to read and augment images is not included.
    """
    device = next(net.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        net, strategy = copy.deepcopy((net, strategy))
        size = min(roles.train.batch_size, len(roles.train.index))
        train, val = images_for(net, size), images_for(net, size) if roles.val is not None else None
        net.train()

        def step(move_alphas: bool) -> None:
            strategy.step(
                net, train, val if move_alphas else None, progress=1.0, move_alphas=move_alphas
            )

        untimed = 1 if strategy.gradients is eagerly else 3  # the second one captures graphs
        moving = timed(lambda: step(True), device, clock, untimed)
        still = timed(lambda: step(False), device, clock, untimed) if strategy.warmup else moving
        strategy.gradients = eagerly  # frees the memory of graphs
        mixture = strategy.mixture(noise=False)
        measuring = 0.0
        for measure, loader in ((restore_statistics, roles.statistics), (evaluate, roles.select)):
            first = list(itertools.islice(loader, 1))
            measure(net, first, mixture)  # the first pass on a GPU selects kernels
            synchronize(device)
            began = clock()
            measure(net, first, mixture)
            synchronize(device)
            measuring += (clock() - began) * len(loader)
        return Timing(moving, still, 2 * measuring)  # supernet and discrete network


def timed(
    step: Callable[[], object], device: torch.device, clock: Clock, untimed: int = 1
) -> list[float]:
    """Seconds of `STEPS` steps, after `untimed` warm-up steps; stops early once they have taken
    `LONG`, but times at least one. Several processes take as many steps as rank 0."""
    seconds: list[float] = []
    while len(seconds) <= untimed or from_first(
        len(seconds) < STEPS + untimed and sum(seconds[untimed:]) < LONG
    ):
        interrupt.check("timing")
        synchronize(device)
        began = clock()
        step()
        synchronize(device)
        seconds.append(clock() - began)
    return seconds[untimed:]
