"""Trains a given architecture's network from scratch on all training images."""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from archsmith import interrupt
from archsmith.data.loader import Loader
from archsmith.data.roles import Data
from archsmith.errors import ConfigError, Interrupted, configuring
from archsmith.parallel import distributed
from archsmith.parallel.data_parallel import across_processes
from archsmith.result.recipe import Recipe
from archsmith.result.training import Training
from archsmith.train import garbage
from archsmith.train.checkpoint import Checkpoints
from archsmith.train.finite import Watch, judged_at, not_learning
from archsmith.train.memory import sparing
from archsmith.train.memory_probe import PROBED_STEPS, check_memory, images_for, step_memory
from archsmith.train.record import Progress, Record
from archsmith.train.runtime import seed_everything
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.forms import use_form
from supernets.network import Network, final_network

log = logging.getLogger(__name__)


def retrain(
    space: Space,
    architecture: Architecture,
    data: Data,
    recipe: Recipe,
    *,
    device: torch.device,
    seed: int,
    form: str,
    **how: Any,
) -> Network:
    """Builds the architecture's network and trains it by `train`; `space` has the recipe's size.

    It computes in `form`, one of `supernets.forms`, and stays in it.

    Raises: as `train`; ConfigError for a form that is not available here.
    """
    seed_everything(seed)
    net = final_network(space, architecture, auxiliary=recipe.auxiliary_weight > 0).to(device)
    with configuring():
        use_form(net, form, device)
    return train(net, data, recipe, device=device, seed=seed, **how)


def train(
    net: Any,
    data: Data,
    recipe: Recipe,
    *,
    folder: Path,
    device: torch.device,
    seed: int,
    record: Record,
    checkpoints: Checkpoints,
    stop: Callable[[], bool] = interrupt.requested,
) -> Any:
    """Trains (or resumes training) a network to the last epoch; returns it in eval mode.

    The phase is that of the checkpoints. `stop` is called after every step. The test images are not
    read.

    Raises:
        ConfigError: the recipe's augmentation does not fit the images.
        NumbersError: a loss or a weight is no longer finite.
        OutOfMemory: it occurred again with twice as many micro-batches, or is certain to occur.
        CheckpointError: a checkpoint cannot be written, or an existing one cannot be used.
        Interrupted: `stop` returned True; all progress is saved.
    """
    across_processes(net)
    training = Training(net, _loader(data.to(device), recipe, seed), recipe)
    if recipe.epochs * len(training.loader) >= PROBED_STEPS and distributed.size() == 1:
        _probe(training, device)
    task = _Retraining(training, folder, record, checkpoints, stop)
    with garbage.settled():
        return sparing("retrain", task.run, training.halve, device)


def _probe(training: Training, device: torch.device) -> None:
    """Warns if a step exceeds free memory. Raises OutOfMemory if even the smallest batch does."""
    recipe, loader = training.recipe, training.loader

    def prepared(count: int) -> Callable[[], object]:
        copied = Training(copy.deepcopy(training.net).train(), loader, recipe)
        copied.net.set_drop_path(recipe.drop_path)
        x, y = images_for(copied.net, count)
        return lambda: copied.step(x, y)

    check_memory(
        "retrain",
        step_memory(prepared, recipe.micro_batches),
        min(loader.batch_size, len(loader.index)),
        recipe.micro_batches,
        device,
        otherwise="fewer retrain.channels or layers",
    )


class _Retraining:
    """A retraining in progress: writes its metrics and saves its checkpoints."""

    def __init__(
        self,
        training: Training,
        folder: Path,
        record: Record,
        checkpoints: Checkpoints,
        stop: Callable[[], bool],
    ):
        self.training, self.record = training, record
        self.checkpoints, self.stop, self.phase = checkpoints, stop, checkpoints.phase
        remedy = _remedy(training.recipe)
        self.watch = Watch(self.phase, remedy, folder, {"training": training.loader})

    def run(self) -> Network:
        """Trains from the last checkpoint to the end."""
        training, epochs = self.training, self.training.recipe.epochs
        saved = self.checkpoints.load()
        if saved is not None:
            training.load_state_dict(saved)
            self.record.resume(self.phase, training.finished)
            log.info("%s: continued in epoch %d of %d", self.phase, training.finished + 1, epochs)
        else:
            self.record.resume(self.phase, 0)
            self.save()  # fails now if checkpoints cannot be written
        steps = len(training.loader)
        done = training.finished * steps + training.steps
        with Progress(self.phase, epochs * steps, done) as progress:
            while training.finished < epochs:
                epoch, began = training.finished, time.perf_counter()
                for _ in training.epoch(self.watch, progress):
                    self.pause()
                    if self.checkpoints.due():
                        self.save()
                metrics = training.next_epoch()
                metrics["seconds"] = round(time.perf_counter() - began, 3)
                self.record.log(self.phase, epoch, metrics)
                device = next(training.net.parameters()).device
                self.record.cost(self.phase, epoch, progress.step_seconds, device)
                _tell(self.phase, epoch, epochs, metrics)
                if epoch == judged_at(epochs, steps):
                    _warn_of_guessing(self.phase, metrics, training.net.space.classes)
                if training.finished == epochs or self.checkpoints.due(epoch_over=True):
                    self.save()
                if training.finished < epochs:
                    self.pause()
        return training.result()

    def save(self) -> None:
        """Saves. Raises NumbersError, before anything is written, or CheckpointError."""
        self.watch.check(self.training.finished + 1, self.training.net.state_dict())
        self.checkpoints.save(self.training.state_dict())

    def pause(self) -> None:
        """If the run was asked to stop, saves a checkpoint and raises Interrupted."""
        if distributed.any_process(self.stop()):
            self.save()
            raise Interrupted(f"{self.phase}: stopped and saved; run the same command to continue")


def _tell(phase: str, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
    log.info(
        "%s epoch %d/%d: train loss %.3f, train accuracy %.3f",
        phase, epoch + 1, epochs, metrics["train_loss"], metrics["train_accuracy"],
    )  # fmt: skip


def _warn_of_guessing(phase: str, metrics: Mapping[str, float], classes: int) -> None:
    loss, accuracy = metrics["train_loss"], metrics["train_accuracy"]
    warning = not_learning(loss, accuracy, classes, "retrain.lr")
    if warning:
        log.warning("%s: %s", phase, warning)


def _remedy(recipe: Recipe) -> str:
    return f"lower retrain.lr ({recipe.lr}), or set retrain.clip or retrain.precision=float32"


def _loader(data: Data, recipe: Recipe, seed: int) -> Loader:
    try:
        return data.training(recipe.batch_size, seed, augment=recipe.augment)
    except ValueError as error:
        raise ConfigError(f"{error}; retrain.crop, flip and cutout go before the data's") from error
