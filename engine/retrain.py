"""The found network trained from scratch on all training images, however it was found."""

import copy
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from engine.augment import Loader
from engine.checkpoint import Checkpoints
from engine.data import Data
from engine.errors import ConfigError, Interrupted, NumbersError
from engine.evaluate import restore_statistics
from engine.recipe import PRECISIONS, Recipe
from engine.record import Averages, Progress, Record
from engine.runtime import seed_everything
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from supernets.network import Network, final_network

__all__ = ["Recipe", "retrain"]
log = logging.getLogger(__name__)

READ_EVERY = 10  # steps between two looks at the losses: each waits for the device


def retrain(
    space: Space,
    architecture: Architecture,
    data: Data,
    recipe: Recipe,
    *,
    folder: Path,
    device: torch.device,
    seed: int,
    record: Record,
    checkpoints: Checkpoints,
    stop: Callable[[], bool] = lambda: False,
) -> Network:
    """Trains (or goes on training) the network to the last epoch; returns it in eval mode.

    `space` has the recipe's size. `stop` is asked after every epoch. The test images are not read.

    Raises:
        ConfigError: the recipe's augmentation does not fit the images.
        NumbersError: a loss or a weight is no longer finite.
        Interrupted: `stop` said so; the epoch is saved.
    """
    seed_everything(seed)
    net = final_network(space, architecture, auxiliary=recipe.auxiliary_weight > 0).to(device)
    training = Training(net, _loader(data.to(device), recipe, seed), recipe)
    start = 0
    state = checkpoints.load()
    if state is not None:
        start = training.load_state_dict(state)
        record.resume("retrain", start)
        log.info("retrain: continued after epoch %d of %d", start, recipe.epochs)
    steps = len(training.loader)
    with Progress("retrain", recipe.epochs * steps, start * steps) as progress:
        for epoch in range(start, recipe.epochs):
            began = time.perf_counter()
            metrics = training.epoch(epoch, progress)
            metrics["seconds"] = round(time.perf_counter() - began, 3)
            record.log("retrain", epoch, metrics)
            log.info(
                "retrain epoch %d/%d: train loss %.3f, train accuracy %.3f",
                epoch + 1, recipe.epochs, metrics["train_loss"], metrics["train_accuracy"],
            )  # fmt: skip
            checkpoints.save(epoch + 1, training.state_dict(epoch + 1))
            if stop() and epoch + 1 < recipe.epochs:
                raise Interrupted("retrain: stopped and saved; run the same command to continue")
    return training.result()


def _loader(data: Data, recipe: Recipe, seed: int) -> Loader:
    try:
        return data.training(recipe.batch_size, seed, augment=recipe.augment)
    except ValueError as error:
        raise ConfigError(f"{error}; retrain.crop, flip and cutout go before the data's") from error


class Training:
    """A network on its way through a recipe: all that a checkpoint holds."""

    def __init__(self, net: Network, loader: Loader, recipe: Recipe):
        self.net, self.loader, self.recipe = net, loader, recipe
        self.average = MovingAverage(net, recipe.ema) if recipe.ema is not None else None
        self.optimizer = torch.optim.SGD(
            net.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            foreach=True,
        )

    def result(self) -> Network:
        """The final network in eval mode; a moving average with statistics of one more pass."""
        if self.average is None:
            return self.net.eval()
        restore_statistics(self.average.net, self.loader)
        return self.average.net.eval()

    def epoch(self, epoch: int, progress: Progress) -> dict[str, float]:
        """One pass over the images, epochs from 0. Raises NumbersError."""
        lr = self.recipe.lr_at(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.net.train()
        self.net.set_drop_path(self.recipe.drop_path_at(epoch))
        averages, losses, steps = Averages(), list[Tensor](), len(self.loader)
        for step, (x, y) in enumerate(progress.batches(self.loader), 1):
            loss, metrics = self.step(x, y)
            averages.add(metrics)
            losses.append(loss)
            if step % READ_EVERY == 0 or step == steps:
                self._check_losses(losses, epoch, step)
                losses.clear()
                means = averages.read()
                progress.note(
                    epoch=str(epoch + 1), loss=means["train_loss"], accuracy=means["train_accuracy"]
                )
        self._check_weights(epoch)
        return averages.read() | {"lr": lr}

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One update: the loss it descended, and what is logged of the main classifier; 0-dim."""
        dtype = PRECISIONS[self.recipe.precision]
        with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            output = self.net(x)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        main = loss = self._cross_entropy(logits, y)
        for other in auxiliary:
            loss = loss + self.recipe.auxiliary_weight * self._cross_entropy(other, y)
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip is not None:
            clip_grad_norm_(self.net.parameters(), self.recipe.clip, foreach=True)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        accuracy = (logits.detach().argmax(1) == y).float().mean()
        return loss.detach(), {"train_loss": main.detach(), "train_accuracy": accuracy}

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), y, label_smoothing=self.recipe.label_smoothing)

    def _check_losses(self, losses: list[Tensor], epoch: int, last: int) -> None:
        for step, loss in enumerate(torch.stack(losses).tolist(), last - len(losses) + 1):
            if not math.isfinite(loss):
                raise self._not_finite(f"epoch {epoch + 1}, step {step}: the loss is {loss}")

    def _check_weights(self, epoch: int) -> None:
        state = [(name, t) for name, t in self.net.state_dict().items() if t.is_floating_point()]
        finite = torch.stack([t.isfinite().all() for _, t in state]).tolist()
        if not all(finite):
            name = state[finite.index(False)][0]
            raise self._not_finite(f"epoch {epoch + 1}: '{name}' is no longer finite")

    def _not_finite(self, what: str) -> NumbersError:
        return NumbersError(
            f"retrain {what}; lower retrain.lr ({self.recipe.lr}), or set retrain.clip or "
            "retrain.precision=float32. The checkpoint of the epoch before is kept"
        )

    def state_dict(self, epoch: int) -> dict[str, Any]:
        """Everything that changes, after so many epochs."""
        return {
            "epoch": epoch,
            "net": self.net.state_dict(),
            "average": self.average.net.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> int:
        """The inverse of `state_dict`; returns the number of finished epochs."""
        self.net.load_state_dict(state["net"])
        if self.average is not None:
            self.average.net.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        return int(state["epoch"])


class MovingAverage:
    """A copy of a network whose weights follow: a <- decay a + (1 - decay) w."""

    def __init__(self, net: Network, decay: float):
        self.net = copy.deepcopy(net)
        self._old, self._new = list(self.net.parameters()), list(net.parameters())
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Takes in what the weights are now."""
        self._average(self._old, self._new, None)
