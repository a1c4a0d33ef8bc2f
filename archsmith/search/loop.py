"""The search loop, the only one: alpha and weight steps, an architecture file after each epoch."""

import copy
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from archsmith import interrupt
from archsmith.data.loader import Loader
from archsmith.data.roles import Roles
from archsmith.errors import ConfigError, Interrupted
from archsmith.parallel import distributed
from archsmith.search.diagnosis import degenerate
from archsmith.search.measure import Found, discretised_accuracy, measure
from archsmith.search.pareto import Pareto
from archsmith.search.pictures import pictures
from archsmith.search.settings import SearchSettings
from archsmith.search.state import SearchState
from archsmith.search.time_budget import Pace, clock_of
from archsmith.train import garbage
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.finite import Watch, judged_at, largest, not_learning
from archsmith.train.memory import sparing
from archsmith.train.memory_probe import PROBED_STEPS, check_memory, images_for, step_memory
from archsmith.train.record import Progress, Record
from search_spaces.architecture import Architecture
from search_spaces.settings import located
from strategies.gradients import Batch, eagerly
from strategies.strategy import Strategy
from supernets.network import Network

log = logging.getLogger(__name__)

REMEDY = (
    "lower strategy.weight_optimizer.lr, or set strategy.clip; if it is the alphas', lower "
    "strategy.alpha_optimizer.lr"
)


def search(
    net: Network,
    strategy: Strategy,
    roles: Roles,
    settings: SearchSettings,
    *,
    folder: Path,
    record: Record,
    checkpoints: Checkpoints,
    meta: dict[str, Any],
    stop: Callable[[], bool] = interrupt.requested,
    epochs: float | None = None,
) -> Found:
    """Runs (or continues) the search and returns the architecture of the last epoch.

    Writes `architectures/epoch_NNN.json`, metrics and pictures into `folder`. `net` and `strategy`
    are set up on their device. `stop` is called after every step. `epochs` replaces the number in
    `settings`; under a time budget it may be fractional.

    Raises:
        ConfigError: the alphas would never move, or an ingredient rejects the epoch's end.
        NumbersError: a loss, a weight or an alpha is no longer finite.
        OutOfMemory: it occurred again with twice as many micro-batches, or is certain to occur.
        CheckpointError: a checkpoint cannot be written, or an existing one cannot be used.
        Interrupted: `stop` returned True; all progress is saved.
    """
    device, steps = next(net.parameters()).device, len(roles.train)
    pace = Pace(epochs or settings.epochs, steps, settings.seconds, clock_of(device))
    if not strategy.alphas_move(pace.number - 1, pace.epochs):
        raise ConfigError(
            f"strategy.warmup: {strategy.warmup} of search.epochs={pace.number} leaves no epoch in "
            "which alphas move; lower strategy.warmup, or raise search.epochs or search.seconds"
        )
    strategy.for_batches(settings.batch_size)
    strategy.micro_batches = settings.micro_batches
    if pace.epochs * steps >= PROBED_STEPS and distributed.size() == 1:
        probe_memory(net, strategy, min(settings.batch_size, len(roles.train.index)))
    state = SearchState(net, strategy, roles, pace)
    task = _Search(state, settings, folder, record, checkpoints, meta, stop)
    try:
        with garbage.settled():
            return sparing(
                "search", task.run, state.halve, device, drop=lambda: _drop_graphs(strategy)
            )
    finally:
        _drop_graphs(strategy)  # frees the graphs' memory for retraining


def _drop_graphs(strategy: Strategy) -> bool:
    """Makes passes eager from now on; returns whether graphs were in use."""
    before, strategy.gradients = strategy.gradients, eagerly
    return before is not eagerly


def probe_memory(net: Network, strategy: Strategy, batch: int) -> None:
    """Warns if a step exceeds free memory. Raises OutOfMemory if even the smallest batch does."""

    def prepared(count: int) -> Callable[[], object]:
        ours, its = copy.deepcopy((net, strategy))
        ours.train()
        train, val = images_for(ours, count), images_for(ours, count)
        return lambda: its.step(ours, train, val, progress=1.0, move_alphas=True)

    parts, device = strategy.micro_batches, next(net.parameters()).device
    more = "" if net.checkpoint_cells else "runtime.checkpoint_cells=true, or "
    otherwise = f"{more}fewer space.channels, layers or candidates"
    check_memory("search", step_memory(prepared, parts), batch, parts, device, otherwise=otherwise)


class _Search:
    """A search in progress: writes its metrics and saves its checkpoints."""

    def __init__(
        self,
        state: SearchState,
        settings: SearchSettings,
        folder: Path,
        record: Record,
        checkpoints: Checkpoints,
        meta: dict[str, Any],
        stop: Callable[[], bool],
    ):
        self.state, self.pace, self.folder = state, state.pace, folder
        self.curvature, self.warned = settings.curvature, False
        self.record, self.checkpoints, self.meta, self.stop = record, checkpoints, meta, stop
        loaders = {"train": state.roles.train, "val": state.roles.val}
        self.watch = Watch("search", REMEDY, folder, loaders)

    def run(self) -> Found:
        """Searches from the last checkpoint to the end."""
        state, found = self.state, None
        saved = self.checkpoints.load()
        if saved is not None:
            state.load_state_dict(saved)
            self.record.resume("search", state.epoch)
            log.info("search: continued in epoch %d of %d", state.epoch + 1, self.pace.number)
        else:
            self.record.resume("search", 0)
            self.save()  # fails now if checkpoints cannot be written
        pareto = Pareto(self.folder, state.strategy.space, state.epoch)
        steps = len(state.roles.train)
        done = state.epoch * steps + state.step
        with Progress("search", round(self.pace.epochs * steps), done) as progress:
            while not state.stopped and state.epoch < self.pace.epochs:
                began = time.perf_counter()
                for _ in _steps(state, self.watch, progress):
                    self.pause()
                    if self.checkpoints.due():
                        self.save()
                device = next(state.net.parameters()).device
                self.record.cost("search", state.epoch, progress.step_seconds, device)
                found = self.end_epoch(pareto, began)
                over = state.stopped or state.epoch >= self.pace.epochs
                if over or self.checkpoints.due(epoch_over=True):
                    self.save()
                if not over:
                    self.pause()
        return found or self.measure(state.epoch - 1)

    def save(self) -> None:
        """Saves. Raises NumbersError, before anything is written, or CheckpointError."""
        state = self.state
        tensors = state.net.state_dict() | state.strategy.named_arch_parameters()
        self.watch.check(state.epoch + 1, tensors)
        self.checkpoints.save(state.state_dict())

    def pause(self) -> None:
        """If the run was asked to stop, saves a checkpoint and raises Interrupted."""
        if distributed.any_process(self.stop()):
            self.save()
            raise Interrupted("search: stopped and saved; run the same command to continue")

    def end_epoch(self, pareto: Pareto, began: float) -> Found:
        """Prunes, measures and writes; then moves the state to the next epoch."""
        state, epoch = self.state, self.state.epoch
        self.pace.steps_end()
        metrics = state.averages.read()
        progress = self.pace.progress(epoch + 1, 0)
        try:
            done = state.strategy.epoch_end(state.net, state.roles, progress)
        except ValueError as error:
            raise ConfigError(located("strategy", str(error))) from error
        found = self.measure(epoch)
        found.architecture.save(self.folder / "architectures" / f"epoch_{epoch:03d}.json")
        metrics |= found.metrics | {"seconds": round(time.perf_counter() - began, 3)}
        self.record.log("search", epoch, metrics)
        pictures(self.record, self.folder, state.strategy, found.architecture, epoch)
        self.pace.epoch_end(epoch + 1)
        epochs = self.pace.number
        last = done or epoch + 1 == epochs
        for kept in state.strategy.keep(found.architecture, last=last):
            accuracy = discretised_accuracy(state.net, kept, state.roles)
            pareto.add(kept, epoch=epoch, accuracy=accuracy, meta=self.meta)
        _tell(epoch, epochs, metrics, found)
        if epoch == judged_at(epochs, len(state.roles.train)):
            _warn_of_guessing(metrics, state.net.space.classes)
        if not last and state.strategy.alphas_move(epoch, self.pace.epochs):
            self.warn_of_collapse(epoch, found.architecture)  # the last is reported at the end
        state.next_epoch(stopped=done)
        return found

    def warn_of_collapse(self, epoch: int, found: Architecture) -> None:
        """Warns once if the architecture after an epoch is degenerate."""
        warning = None if self.warned else degenerate(self.state.strategy.space, found)
        if warning:
            self.warned = True
            log.warning("search epoch %d/%d: %s", epoch + 1, self.pace.number, warning)

    def measure(self, epoch: int) -> Found:
        state = self.state
        about = {**self.meta, "epoch": epoch}
        return measure(state.net, state.strategy, state.roles, about, curvature=self.curvature)


def _steps(state: SearchState, watch: Watch, progress: Progress) -> Iterator[None]:
    """Runs the rest of an epoch; yields after every step, the last one included."""
    net, strategy, roles, epoch = state.net, state.strategy, state.roles, state.epoch
    pace = state.pace
    net.train()
    strategy.epoch_start(epoch, pace.epochs)
    move_alphas = strategy.alphas_move(epoch, pace.epochs)
    val = _forever(roles.val) if move_alphas and roles.val is not None else None
    steps = pace.steps_of(epoch)
    if state.step == steps:
        return  # the checkpoint was saved after the epoch's last step
    short = steps < len(roles.train)  # a full epoch exhausts the loader, which then moves on
    for train in progress.batches(
        itertools.islice(roles.train, steps - state.step if short else None)
    ):
        metrics = strategy.step(
            net,
            train,
            next(val) if val is not None else None,
            progress=pace.progress(epoch, state.step),
            move_alphas=move_alphas,
        )
        state.step += 1
        state.averages.add(metrics)
        watch.see(epoch + 1, state.step, measured_numbers(metrics, strategy))
        if state.step % 10 == 0:
            means = state.averages.read()
            progress.note(
                epoch=str(epoch + 1), loss=means["train_loss"], accuracy=means["train_accuracy"]
            )
        if state.step < steps:
            yield
    watch.read()
    yield


def measured_numbers(metrics: dict[str, Tensor], strategy: Strategy) -> dict[str, Tensor]:
    """The numbers of a step to check for NaN, causes before effects; 0-dim."""
    arch = strategy.arch_parameters()
    gradients = [p.grad for p in arch if p.grad is not None]
    alphas = {"gradient of the alphas": largest(gradients), "alphas": largest(arch)}
    val = {"val_loss": metrics["val_loss"]} if "val_loss" in metrics else metrics
    return val | alphas | metrics


def _tell(epoch: int, epochs: int, metrics: dict[str, float], found: Found) -> None:
    log.info(
        "search epoch %d/%d: train loss %.3f, train accuracy %.3f; "
        "on held-out images supernet %.3f, discretised %.3f",
        epoch + 1, epochs, metrics["train_loss"], metrics["train_accuracy"],
        found.supernet_accuracy, found.discretised_accuracy,
    )  # fmt: skip


def _warn_of_guessing(metrics: Mapping[str, float], classes: int) -> None:
    loss, accuracy = metrics["train_loss"], metrics["train_accuracy"]
    warning = not_learning(loss, accuracy, classes, "strategy.weight_optimizer.lr")
    if warning:
        log.warning("search: %s", warning)


def _forever(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader
