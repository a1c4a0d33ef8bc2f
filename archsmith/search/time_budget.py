"""A budget of time instead of a number of epochs: how many epochs, and parts of one, fit."""

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
from archsmith.train.runtime import synchronize
from strategies.gradients import Batch, eagerly
from strategies.strategy import Strategy
from supernets.network import Network

STEPS = 6  # of each kind that are timed, after one that is not
LONG = 20.0  # seconds after which no more steps are timed
LEAST = 0.1  # of an epoch's steps; a shorter last epoch is left out
log = logging.getLogger(__name__)
Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Seconds: of steps with alphas moving and standing still, of what an epoch measures."""

    moving: list[float]
    still: list[float]
    measuring: float

    def step(self, warmup: float, of: Callable[[list[float]], float] = statistics.median) -> float:
        """A step's, over the whole search."""
        return warmup * of(self.still) + (1 - warmup) * of(self.moving)


class Pace:
    """How many epochs a search has. With a budget of seconds so many as fit into what is left;
    the last may have fewer steps.

    An epoch that took less than foreseen, because pruning has made the supernet smaller, leaves
    time for more of them, and one that took longer for fewer; the schedules follow.

    Args:
        epochs: of the whole search, as first estimated.
        steps: of a whole epoch.
        seconds: the budget; None keeps `epochs`.
    """

    def __init__(self, epochs: float, steps: int, seconds: float | None, clock: Clock):
        self.epochs, self.steps, self.seconds, self.clock = epochs, steps, seconds, clock
        self.spent, self.began = 0.0, 0.0  # seconds so far, and when this epoch began
        self.trained = 0.0  # and when its last step ended
        self._since = clock()

    @property
    def number(self) -> int:
        """Of epochs, a short one included."""
        return math.ceil(self.epochs)

    def steps_of(self, epoch: int) -> int:
        """Of the epoch (from 0)."""
        return min(self.steps, round((self.epochs - epoch) * self.steps))

    def progress(self, epoch: int, step: int) -> float:
        """The share of the search that is over after so many epochs and steps, from 0 to 1."""
        return min(1.0, (epoch + step / self.steps) / self.epochs)

    def tick(self) -> None:
        """Counts the time since the last call."""
        now = self.clock()
        self.spent, self._since = self.spent + now - self._since, now

    def steps_end(self) -> None:
        """The steps of an epoch are over; what it measures comes next."""
        self.tick()
        self.trained = self.spent

    def epoch_end(self, done: int) -> None:
        """Sets the epochs of the whole search where so many are done; progress never falls."""
        self.tick()
        last, measuring = self.spent - self.began, self.spent - self.trained
        self.began = self.spent
        if self.seconds is None or done >= self.epochs:
            return
        fit = done + fitting(self.seconds - self.spent, last, measuring)
        most = self.epochs * (done + 1) / done  # at which the next would end where this one did
        whole = math.ceil(most * self.steps) - 1
        self.epochs = from_first(min(round(fit * self.steps), whole) / self.steps)

    def state_dict(self) -> dict[str, Any]:
        self.tick()
        return {"epochs": self.epochs, "spent": self.spent, "began": self.began}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse; a search without a budget keeps the epochs that it is asked for."""
        if self.seconds is not None:
            self.epochs = float(state["epochs"])
        self.spent, self.began = float(state["spent"]), float(state["began"])
        self._since = self.clock()


def clock_of(device: torch.device) -> Clock:
    """Seconds; on the CPU the processor time of this thread, which other programs do not move."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def fitting(seconds: float, epoch: float, measuring: float) -> float:
    """The epochs that fit, where a whole one takes `epoch` seconds and any one `measuring` of them
    for what it measures; the last is left out where fewer than `LEAST` of its steps fit."""
    if epoch <= 0:
        return 0.0
    whole, rest = divmod(max(0.0, seconds), epoch)
    part = (rest - measuring) / (epoch - measuring) if rest > measuring else 0.0
    return whole + (part if part >= LEAST else 0.0)


def epochs_within(seconds: float, net: Network, strategy: Strategy, roles: Roles) -> float:
    """The epochs of a search that take about so many seconds on this machine, at least 1.

    What a pruning search saves as it shrinks is not foreseen; `Pace` gives it back. On the CPU it
    is the processor time of this thread that is measured, which is the wall-clock time of a machine
    that does nothing else, whatever this one does.
    """
    device = next(net.parameters()).device
    timing = timed_epoch(net, strategy, roles, clock_of(device))
    per_step, steps = timing.step(strategy.warmup), len(roles.train)
    epoch = steps * per_step + timing.measuring
    found = max(1.0, round(fitting(seconds, epoch, timing.measuring) * steps) / steps)
    log.info(
        "search: %.3g epochs of about %.1f s fit in search.seconds=%g (%.0f ms a step)",
        found, epoch, seconds, 1000 * per_step,
    )  # fmt: skip
    return found


def timed_epoch(net: Network, strategy: Strategy, roles: Roles, clock: Clock) -> Timing:
    """Times steps and one evaluation on a copy; random state and training loaders are left alone.

    The copy's batches are random numbers: what reading and augmenting images takes is not in it.
    """
    device = next(net.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        net, strategy = copy.deepcopy((net, strategy))
        train, val = _batch(roles, net), _batch(roles, net) if roles.val is not None else None
        net.train()

        def step(move_alphas: bool) -> None:
            strategy.step(
                net, train, val if move_alphas else None, progress=1.0, move_alphas=move_alphas
            )

        untimed = 1 if strategy.gradients is eagerly else 3  # passes are captured in the second
        moving = timed(lambda: step(True), device, clock, untimed)
        still = timed(lambda: step(False), device, clock, untimed) if strategy.warmup else moving
        strategy.gradients = eagerly  # gives the memory of graphs back
        mixture = strategy.mixture(noise=False)
        measuring = 0.0
        for measure, loader in ((restore_statistics, roles.statistics), (evaluate, roles.select)):
            first = list(itertools.islice(loader, 1))
            measure(net, first, mixture)  # a GPU chooses its kernels in the first pass
            synchronize(device)
            began = clock()
            measure(net, first, mixture)
            synchronize(device)
            measuring += (clock() - began) * len(loader)
        return Timing(moving, still, 2 * measuring)  # the supernet, then the discrete one


def _batch(roles: Roles, net: Network) -> Batch:
    """A batch of the shape of a training batch."""
    device = next(net.parameters()).device
    images, labels = next(iter(roles.select))
    size = min(roles.train.batch_size, len(roles.train.index))
    x = torch.randn(size, *images.shape[1:], device=device)
    return x, torch.randint(net.space.classes, (size,), device=device).to(labels.dtype)


def timed(
    step: Callable[[], object], device: torch.device, clock: Clock, untimed: int = 1
) -> list[float]:
    """Seconds of `STEPS` steps, after some that are not timed; of fewer once they took `LONG`, but
    of one at least."""
    seconds: list[float] = []
    while len(seconds) <= untimed or (
        len(seconds) < STEPS + untimed and sum(seconds[untimed:]) < LONG
    ):
        interrupt.check("timing")
        synchronize(device)
        began = clock()
        step()
        synchronize(device)
        seconds.append(clock() - began)
    return seconds[untimed:]
