"""A training in progress: epochs, steps and the state dict for checkpoints."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from archsmith.data.loader import Loader
from archsmith.result.recipe import Recipe
from archsmith.train.checkpoint import fitting
from archsmith.train.evaluate import restore_statistics
from archsmith.train.finite import Watch
from archsmith.train.random_state import random_state, set_random_state
from archsmith.train.record import Averages, Progress
from archsmith.train.runtime import PRECISIONS
from supernets.network import Network


class Training:
    """A network in training by a recipe, with all state that a checkpoint holds."""

    def __init__(self, net: Network, loader: Loader, recipe: Recipe):
        self.net, self.loader, self.recipe = net, loader, recipe
        self.finished, self.steps = 0, 0  # epochs, and steps of the current one
        self.averages = Averages()
        self.micro_batches, self.halved = recipe.micro_batches, False
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
        """The final network in eval mode; a moving average gets re-estimated statistics."""
        if self.average is None:
            return self.net.eval()
        restore_statistics(self.average.net, self.loader)
        return self.average.net.eval()

    def epoch(self, watch: Watch, progress: Progress) -> Iterator[None]:
        """Runs the rest of the current epoch; yields after every step, the last one included.

        Raises NumbersError.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.finished)
        self.net.train()
        self.net.set_drop_path(self.recipe.drop_path_at(self.finished))
        steps = len(self.loader)
        if self.steps == steps:
            return  # the checkpoint was saved after the epoch's last step
        for x, y in progress.batches(self.loader):
            loss, metrics = self.step(x, y)
            self.steps += 1
            self.averages.add(metrics)
            watch.see(self.finished + 1, self.steps, {"loss": loss})
            if self.steps % 10 == 0:
                means = self.averages.read()
                progress.note(
                    epoch=str(self.finished + 1),
                    loss=means["train_loss"],
                    accuracy=means["train_accuracy"],
                )
            if self.steps < steps:
                yield
        watch.read()
        yield

    def next_epoch(self) -> dict[str, float]:
        """Counts the epoch as finished; returns its metrics."""
        metrics = self.averages.read() | {"lr": self.optimizer.param_groups[0]["lr"]}
        self.finished, self.steps, self.averages = self.finished + 1, 0, Averages()
        return metrics

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One update; returns its loss, and the metrics of the main classifier to log; 0-dim.

        Gradients of micro-batches are summed, weighted by their share of the images.
        """
        self.optimizer.zero_grad()
        parts = max(1, min(self.micro_batches, len(x) // 2))
        losses, mains, right = [], [], []
        for x_part, y_part in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
            loss, main, logits = self._losses(x_part, y_part)
            share = len(x_part) / len(x)
            (loss * share if parts > 1 else loss).backward()
            losses.append(loss.detach() * share)
            mains.append(main.detach() * share)
            right.append((logits.detach().argmax(1) == y_part).float())
        if self.recipe.clip is not None:
            clip_grad_norm_(self.net.parameters(), self.recipe.clip, foreach=True)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        metrics = {
            "train_loss": torch.stack(mains).sum(),
            "train_accuracy": torch.cat(right).mean(),
        }
        return torch.stack(losses).sum(), metrics

    def _losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The total loss, the main classifier's loss, and its logits (B, classes)."""
        dtype = PRECISIONS[self.recipe.precision]
        with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            output = self.net(x)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        main = loss = self._cross_entropy(logits, y)
        for other in auxiliary:
            loss = loss + self.recipe.auxiliary_weight * self._cross_entropy(other, y)
        return loss, main, logits

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), y, label_smoothing=self.recipe.label_smoothing)

    def halve(self) -> int:
        """Doubles the number of micro-batches and returns it."""
        self.halved = True
        self.micro_batches *= 2
        return self.micro_batches

    def state_dict(self) -> dict[str, Any]:
        """All state that changes, valid between any two steps."""
        return {
            "epoch": self.finished,
            "step": self.steps,
            "averages": self.averages.state_dict(),
            "micro_batches": self.micro_batches,
            "net": self.net.state_dict(),
            "average": self.average.net.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Raises CheckpointError for a state that does not fit."""
        with fitting("retrain"):
            self.net.load_state_dict(state["net"])
            if self.average is not None:
                self.average.net.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.loader.load_state_dict(state["loader"])
            device = next(self.net.parameters()).device
            self.averages.load_state_dict(state["averages"], device)
            self.finished, self.steps = int(state["epoch"]), int(state["step"])
            if not self.halved:
                self.micro_batches = int(state["micro_batches"])
            set_random_state(state["random"])


class MovingAverage:
    """A copy of a network whose weights follow: a <- decay a + (1 - decay) w."""

    def __init__(self, net: Network, decay: float):
        self.net = copy.deepcopy(net)
        self._old, self._new = list(self.net.parameters()), list(net.parameters())
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Updates the average with the current weights."""
        self._average(self._old, self._new, None)
