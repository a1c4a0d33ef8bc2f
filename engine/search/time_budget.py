"""A budget of time instead of a number of epochs: how many epochs fit."""

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

from engine import interrupt
from engine.data.roles import Roles
from engine.evaluate import evaluate, restore_statistics
from engine.parallel.distributed import from_first
from engine.runtime import synchronize
from strategies.gradients import Batch, eagerly
from strategies.strategy import Strategy
from supernets.network import Network

STEPS = 6  # of each kind that are timed, after one that is not
LONG = 20.0  # seconds after which no more steps are timed
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
    """How many epochs a search has. With a budget of seconds so many as fit into what is left.

    An epoch that took less than foreseen, because pruning has made the supernet smaller, leaves
    time for more of them, and one that took longer for fewer; the schedules follow.

    Args:
        epochs: of the whole search, as first estimated.
        seconds: the budget; None keeps `epochs`.
    """

    def __init__(self, epochs: int, seconds: float | None, clock: Clock):
        self.epochs, self.seconds, self.clock = epochs, seconds, clock
        self.spent, self.began = 0.0, 0.0  # seconds so far, and when this epoch began
        self._since = clock()

    def tick(self) -> None:
        """Counts the time since the last call."""
        now = self.clock()
        self.spent, self._since = self.spent + now - self._since, now

    def epoch_end(self, done: int) -> None:
        """Sets the epochs of the whole search where so many are done; progress never falls."""
        self.tick()
        last, self.began = self.spent - self.began, self.spent
        if self.seconds is None or last <= 0:
            return
        fit = done + max(0, round((self.seconds - self.spent) / last))
        most = math.ceil(self.epochs * (done + 1) / done) - 1  # (done + 1) / most > done / epochs
        self.epochs = from_first(max(done, min(fit, most)))

    def state_dict(self) -> dict[str, Any]:
        self.tick()
        return {"epochs": self.epochs, "spent": self.spent, "began": self.began}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse; a search without a budget keeps the epochs that it is asked for."""
        if self.seconds is not None:
            self.epochs = int(state["epochs"])
        self.spent, self.began = float(state["spent"]), float(state["began"])
        self._since = self.clock()


def clock_of(device: torch.device) -> Clock:
    """Seconds; on the CPU the processor time of this thread, which other programs do not move."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def epochs_within(seconds: float, net: Network, strategy: Strategy, roles: Roles) -> int:
    """The epochs of a search that take about so many seconds on this machine, at least 1.

    What a pruning search saves as it shrinks is not foreseen; `Pace` gives it back. On the CPU it
    is the processor time of this thread that is measured, which is the wall-clock time of a machine
    that does nothing else, whatever this one does.
    """
    device = next(net.parameters()).device
    timing = timed_epoch(net, strategy, roles, clock_of(device))
    per_step = timing.step(strategy.warmup)
    epoch = len(roles.train) * per_step + timing.measuring
    found = max(1, round(seconds / epoch))
    log.info(
        "search: %d epochs of about %.1f s fit in search.seconds=%g (%.0f ms a step)",
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
