"""Trains a given architecture's network from scratch, by a recipe."""

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from archsmith.data.loader import Loader
from archsmith.data.roles import Data
from archsmith.errors import ConfigError, configuring
from archsmith.parallel.averaged import averaged, without_graphs
from archsmith.parallel.data_parallel import across_processes
from archsmith.result.distillation import distillation
from archsmith.result.recipe import Recipe
from archsmith.train.epochs import run
from archsmith.train.evaluate import restore_statistics
from archsmith.train.memory_probe import images_for
from archsmith.train.replay import Capture, Replay, cuda_capture
from archsmith.train.runtime import PRECISIONS, Computing, seed_everything
from archsmith.train.training import Training
from search_spaces.architecture import Architecture
from search_spaces.space import Space
from strategies.gradients import Gradients, Metrics, eagerly
from supernets import plain_layers
from supernets.forms import use_form
from supernets.network import Network, started

BETA = 0.99  # the second of AdamW


def retrain(
    space: Space,
    architecture: Architecture,
    loader: Loader,
    recipe: Recipe,
    *,
    seed: int,
    computing: Computing,
    teacher: nn.Module | None = None,
    **how: Any,
) -> Network:
    """Builds the architecture's network and trains it by `train`; `space` has the recipe's size. In
    a space with trained weights it starts from them.

    It stays in the form in which it computes.

    Raises: as `train`; ConfigError for a form that is not available here.
    """
    form, device, channels_last, graphs = computing
    seed_everything(seed)
    with configuring():
        net = started(space, architecture, auxiliary=recipe.auxiliary_weight > 0).to(device)
        use_form(net, form, device, channels_last=channels_last)
    return train(net, loader, recipe, teacher, graphs=graphs, **how)


def train(
    net: Any,
    loader: Loader,
    recipe: Recipe,
    teacher: nn.Module | None = None,
    *,
    graphs: bool = False,
    **how: Any,
) -> Any:
    """Trains (or resumes training) a network by `archsmith.train.epochs.run`, which takes `how`;
    returns it in eval mode.

    teacher: a trained network to learn from, by the recipe. graphs: whether passes are captured as
    CUDA graphs and replayed.
    """
    across_processes(net)
    training = Retraining(net, loader, recipe, teacher)
    if graphs:
        training.replay(cuda_capture)
    training.gradients = averaged(training.gradients)
    return run(training, **how)


def training_loader(data: Data, recipe: Recipe, seed: int) -> Loader:
    """All training images, augmented by the recipe. Raises ConfigError if that does not fit."""
    try:
        return data.training(recipe.batch_size, seed, augment=recipe.augment)
    except ValueError as error:
        raise ConfigError(f"{error}; retrain.crop, flip and cutout go before the data's") from error


def balanced_weights(loader: Loader) -> Tensor:
    """n / (k n_c) for each class c with n_c of the loader's n images, of k classes; (k,)."""
    counts = torch.bincount(loader.images.labels[loader.index])
    return len(loader.index) / (len(counts) * counts)


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe for a network: on CUDA one kernel updates many weights at once."""
    kind = "fused" if next(net.parameters()).device.type == "cuda" else "foreach"
    kernels: dict[str, Any] = {kind: True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            net.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            **kernels,
        )
    matrices = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups,
        lr=recipe.lr,
        betas=(recipe.momentum, BETA),
        weight_decay=recipe.weight_decay,
        **kernels,
    )


class Retraining(Training):
    """A network in training by a recipe; the result is the network in eval mode."""

    group, rate, savings = "retrain", "retrain.lr", "fewer retrain.channels or layers"

    def __init__(
        self, net: nn.Module, loader: Loader, recipe: Recipe, teacher: nn.Module | None = None
    ):
        super().__init__(net, {"training": loader})
        self.teacher = None if teacher is None else teacher.eval()
        self.recipe, self.epochs, self.micro_batches = recipe, recipe.epochs, recipe.micro_batches
        self.remedy = (
            f"lower retrain.lr ({recipe.lr}), or set retrain.clip or retrain.precision=float32"
        )
        balanced = recipe.class_weights == "balanced" and isinstance(loader, Loader)
        self.class_weights = balanced_weights(loader).to(self.device) if balanced else None
        self.average = MovingAverage(net, recipe.ema) if recipe.ema is not None else None
        self.weights = list(net.parameters())
        self.optimizer = optimizer(net, recipe)
        self.gradients: Gradients = eagerly  # of a pass

    def replay(self, capturing: Callable[[], Capture]) -> None:
        """Captures passes and replays them, from now on."""
        nets = [self.net, *([] if self.teacher is None else [self.teacher])]
        self._outside = [
            layer
            for net in nets
            for layer in net.modules()
            if not plain_layers.reads_tensors_alone(layer)
        ]
        precision = PRECISIONS[self.recipe.precision]
        self.gradients = Replay(self, self.net, capturing, precision)

    def constants(self) -> Hashable | None:
        """As `Strategy.constants`: the probability of drop-path, or whether there is one, if a
        pass reads it from a tensor; None for micro-batches and for layers that do not tell."""
        drop = self.recipe.drop_path_at(self.epoch)
        said = [plain_layers.constants(layer) for layer in self._outside]
        if self.micro_batches > 1 or any(one is None for one in said):
            return None
        return (drop if getattr(self.net, "drop_probability", None) is None else drop > 0, *said)

    def arch_parameters(self) -> list[Tensor]:
        """None: all gradients are those of weights."""
        return []

    def release(self) -> bool:
        """Makes passes eager from now on; returns whether CUDA graphs were in use."""
        self.gradients, used = without_graphs(self.gradients)
        return used

    def result(self) -> Network:
        """The final network in eval mode; a moving average gets re-estimated statistics."""
        net: Network = self.net
        if self.average is not None:
            net = self.average.net
            restore_statistics(net, self.loader)
        return net.eval()

    def start_epoch(self) -> Iterable[tuple[Tensor, Tensor]]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.epoch)
        self.net.train()
        self.net.set_drop_path(self.recipe.drop_path_at(self.epoch))
        return self.loader

    def end_epoch(self) -> dict[str, float]:
        return {"lr": self.optimizer.param_groups[0]["lr"]}

    def train_step(
        self, batch: tuple[Tensor, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """One update; returns the metrics of the main classifier, and the whole loss."""
        self.optimizer.zero_grad()
        metrics = self.gradients("training", self._pass, [batch], self.weights)
        if self.recipe.clip is not None:
            clip_grad_norm_(self.weights, self.recipe.clip, foreach=True)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return metrics, {"loss": metrics.pop("loss")}

    def _pass(self, batch: tuple[Tensor, Tensor]) -> Metrics:
        """Fills the gradients; returns the metrics of the main classifier, and the whole loss.

        Gradients of micro-batches are summed, weighted by their share of the images.
        """
        x, y = batch
        parts = max(1, min(self.micro_batches, len(x) // 2))
        losses, mains, right = [], [], []
        for x_part, y_part in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
            loss, main, logits = self._losses(x_part, y_part)
            share = len(x_part) / len(x)
            (loss * share if parts > 1 else loss).backward()
            losses.append(loss.detach() * share)
            mains.append(main.detach() * share)
            right.append((logits.detach().argmax(1) == y_part).float())
        return {
            "train_loss": torch.stack(mains).sum(),
            "train_accuracy": torch.cat(right).mean(),
            "loss": torch.stack(losses).sum(),
        }

    def _losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The total loss, the main classifier's loss, and its logits (B, classes)."""
        dtype = PRECISIONS[self.recipe.precision]
        with torch.autocast(x.device.type, dtype) if dtype else nullcontext():
            output = self.output(x)
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        main = loss = self._cross_entropy(logits, y)
        if self.teacher is not None:
            share = self.recipe.distillation
            match = distillation(logits, self._taught(x), self.recipe.temperature)
            loss = share * match + (1 - share) * main
        for other in auxiliary:
            loss = loss + self.recipe.auxiliary_weight * self._cross_entropy(other, y)
        return loss, main, logits

    @torch.no_grad()
    def _taught(self, x: Tensor) -> Tensor:
        """The teacher's logits (B, classes)."""
        assert self.teacher is not None
        logits: Tensor = self.teacher(x)
        return logits

    def output(self, x: Tensor) -> Any:
        """Logits (B, classes); with an auxiliary head also its logits."""
        return self.net(x)

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The mean over the images; with class weights, of the weighted losses (torch's own mean
        divides by the weights of a batch, whose parts could not be summed)."""
        smoothing = self.recipe.label_smoothing
        if self.class_weights is None:
            return F.cross_entropy(logits.float(), y, label_smoothing=smoothing)
        losses = F.cross_entropy(
            logits.float(), y, self.class_weights, reduction="sum", label_smoothing=smoothing
        )
        return losses / len(y)

    def prepared(self, images: int) -> Callable[[], object]:
        net = copy.deepcopy(self.net).train()
        copied = Retraining(net, self.loader, self.recipe, self.teacher)
        copied.net.set_drop_path(self.recipe.drop_path)
        batch = images_for(copied.net, images)
        return lambda: copied.train_step(batch)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "average": self.average.net.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.average is not None:
            self.average.net.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        super().load_state_dict(state)


class MovingAverage:
    """A copy of a network whose weights follow: a <- decay a + (1 - decay) w."""

    def __init__(self, net: nn.Module, decay: float):
        self.net: Any = copy.deepcopy(net)
        self._old, self._new = list(self.net.parameters()), list(net.parameters())
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Updates the average with the current weights."""
        self._average(self._old, self._new, None)
