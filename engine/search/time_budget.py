"""A budget of time instead of a number of epochs: how many epochs fit."""

import copy
import itertools
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine import interrupt
from engine.data.roles import Roles
from engine.evaluate import evaluate, restore_statistics
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


def epochs_within(seconds: float, net: Network, strategy: Strategy, roles: Roles) -> int:
    """The epochs of a search that take about so many seconds on this machine, at least 1.

    What a pruning search saves as it shrinks is not foreseen. On the CPU it is the processor time
    of this thread that is measured, which is the wall-clock time of a machine that does nothing
    else, whatever this one does.
    """
    device = next(net.parameters()).device
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    timing = timed_epoch(net, strategy, roles, clock)
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
            began = clock()
            measure(net, list(itertools.islice(loader, 1)), mixture)
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
    """Seconds of `STEPS` steps, after some that are not timed; of fewer once they took `LONG`."""
    seconds: list[float] = []
    while len(seconds) < STEPS + untimed and sum(seconds) < LONG:
        interrupt.check("timing")
        synchronize(device)
        began = clock()
        step()
        synchronize(device)
        seconds.append(clock() - began)
    return seconds[untimed:] or seconds[-1:]
