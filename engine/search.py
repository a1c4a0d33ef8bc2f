"""The search loop, the only one: alpha and weight steps, an architecture file after each epoch."""

import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint import Checkpoints
from engine.data import Loader, Roles
from engine.diagnosis import diagnose
from engine.drawing import alpha_image, cell_image
from engine.errors import ConfigError, Interrupted, NumbersError
from engine.evaluate import evaluate, restore_statistics
from engine.pareto import Pareto
from engine.record import Averages, Progress, Record
from search_spaces.architecture import Architecture
from strategies.strategy import Batch, Strategy
from supernets.mixture import Mixture
from supernets.network import Network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchSettings:
    """How long and in which portions.

    Args:
        seconds: wall-clock time of the search; where it is given, `epochs` is what fits into it.
        alpha_lr_scale: multiplies the learning rate of alphas that Adam moves. Adam's step is its
            rate, whatever the gradient; the papers' are made for some 20,000 alpha steps, and in a
            search of a few hundred alphas would hardly move.

    Raises:
        ValueError: a number that is not positive, or not whole where it must be.
    """

    epochs: int
    batch_size: int
    alpha_lr_scale: float
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"search.{name}: expected a whole number of at least 1, found {value!r}"
                )
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(
                f"search.seconds: expected a positive number or null, found {self.seconds!r}"
            )
        if not isinstance(self.alpha_lr_scale, int | float) or self.alpha_lr_scale <= 0:
            raise ValueError(
                f"search.alpha_lr_scale: expected a positive number, found {self.alpha_lr_scale!r}"
            )


@dataclass(frozen=True)
class Found:
    """A search's result; accuracies on the `select` images, as fractions."""

    architecture: Architecture
    supernet_accuracy: float
    discretised_accuracy: float
    metrics: dict[str, float]  # these two and the rest of the diagnosis, of the last epoch


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
    stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Runs (or continues) the search and returns the architecture of the last epoch.

    Writes `architectures/epoch_NNN.json`, metrics and pictures into `folder`. `net` and `strategy`
    are set up on their device. `stop` is asked after every epoch.

    Raises:
        ConfigError: the alphas would never move.
        NumbersError: a loss or an alpha is no longer finite.
        Interrupted: `stop` said so; the epoch is saved.
    """
    epochs = settings.epochs
    if not strategy.alphas_move(epochs - 1, epochs):
        raise ConfigError(
            f"strategy.warmup: {strategy.warmup} of search.epochs={epochs} leaves no epoch in "
            "which alphas move; "
            "lower strategy.warmup or raise search.epochs"
        )
    if isinstance(strategy.alpha_optimizer, torch.optim.Adam):
        for group in strategy.alpha_optimizer.param_groups:
            group["lr"] *= settings.alpha_lr_scale
    start, stopped = 0, False
    found: Found | None = None
    state = checkpoints.load()
    if state is not None:
        start, stopped = _restore(state, net, strategy, roles)
        record.resume("search", start)
        log.info("search: continued after epoch %d of %d", start, epochs)
    pareto = Pareto(folder, strategy.space, start)
    with Progress("search", epochs * len(roles.train), start * len(roles.train)) as progress:
        for epoch in range(start, start if stopped else epochs):
            began = time.perf_counter()
            metrics = _epoch(net, strategy, roles, epoch, epochs, progress)
            done = strategy.epoch_end(net, roles, (epoch + 1) / epochs)
            found = _measure(net, strategy, roles, {**meta, "epoch": epoch})
            found.architecture.save(folder / "architectures" / f"epoch_{epoch:03d}.json")
            metrics |= found.metrics | {"seconds": round(time.perf_counter() - began, 3)}
            record.log("search", epoch, metrics)
            _pictures(record, strategy, found.architecture, epoch)
            for kept in strategy.keep(found.architecture, last=done or epoch + 1 == epochs):
                accuracy = discretised_accuracy(net, kept, roles)
                pareto.add(kept, epoch=epoch, accuracy=accuracy, meta=meta)
            log.info(
                "search epoch %d/%d: train loss %.3f, train accuracy %.3f; "
                "on held-out images supernet %.3f, discretised %.3f",
                epoch + 1, epochs, metrics["train_loss"], metrics["train_accuracy"],
                found.supernet_accuracy, found.discretised_accuracy,
            )  # fmt: skip
            checkpoints.save(epoch + 1, _state(epoch + 1, done, net, strategy, roles))
            if stop() and epoch + 1 < epochs:
                raise Interrupted("search: stopped and saved; run the same command to continue")
            if done:
                break
    return found or _measure(net, strategy, roles, {**meta, "epoch": start - 1})


def _measure(net: Network, strategy: Strategy, roles: Roles, meta: dict[str, Any]) -> Found:
    """The present architecture, and the diagnosis of it and of the supernet."""
    mixture = strategy.mixture(noise=False)
    # Running averages lag behind a net that learns fast; training never reads them.
    restore_statistics(net, roles.statistics, mixture)
    selected = evaluate(net, roles.select, mixture)
    architecture = strategy.architecture(**meta)
    discretised = discretised_accuracy(net, architecture, roles)
    metrics = {
        "supernet_accuracy": selected["accuracy"],
        "supernet_loss": selected["loss"],
        "discretised_accuracy": discretised,
        "discretisation_gap": selected["accuracy"] - discretised,
        **diagnose(strategy.space, strategy.gates(), strategy.alive, architecture),
        "lr": strategy.weight_optimizer.param_groups[0]["lr"],
    }
    return Found(architecture, selected["accuracy"], discretised, metrics)


def discretised_accuracy(net: Network, architecture: Architecture, roles: Roles) -> float:
    """Accuracy on `select` of the discrete network, weights inherited, statistics anew."""
    device = next(net.parameters()).device
    discrete = copy.deepcopy(net)
    mixture = Mixture.of(architecture, net.space, device)
    restore_statistics(discrete, roles.statistics, mixture)
    return evaluate(discrete, roles.select, mixture)["accuracy"]


def _epoch(
    net: Network, strategy: Strategy, roles: Roles, epoch: int, epochs: int, progress: Progress
) -> dict[str, float]:
    """One pass over the training images; returns the means of what the steps measured."""
    net.train()
    strategy.epoch_start(epoch, epochs)
    move_alphas = strategy.alphas_move(epoch, epochs)
    val = _forever(roles.val) if move_alphas and roles.val is not None else None
    averages = Averages()
    steps = len(roles.train)
    for i, train in enumerate(progress.batches(roles.train)):
        averages.add(
            strategy.step(
                net,
                train,
                next(val) if val is not None else None,
                progress=(epoch + i / steps) / epochs,
                move_alphas=move_alphas,
            )
        )
        if i % 10 == 9:
            means = averages.read()
            progress.note(
                epoch=str(epoch + 1), loss=means["train_loss"], accuracy=means["train_accuracy"]
            )
    means = averages.read()
    _check_finite(means, strategy, epoch)
    return means


def _check_finite(means: dict[str, float], strategy: Strategy, epoch: int) -> None:
    for name, value in means.items():
        if not torch.isfinite(torch.tensor(value)):
            raise NumbersError(
                f"search epoch {epoch}: {name} is {value}; lower strategy.weight_optimizer.lr, "
                "or set strategy.clip. The checkpoint of the epoch before is kept"
            )
    for name, parameter in strategy.named_arch_parameters().items():
        if not torch.isfinite(parameter).all():
            raise NumbersError(
                f"search epoch {epoch}: {name} is no longer finite; lower "
                "strategy.alpha_optimizer.lr. "
                "The checkpoint of the epoch before is kept"
            )


def _forever(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader


def _state(
    epoch: int, stopped: bool, net: Network, strategy: Strategy, roles: Roles
) -> dict[str, Any]:
    loaders = {"train": roles.train, "val": roles.val}
    return {
        "epoch": epoch,
        "stopped": stopped,
        "net": net.state_dict(),
        "strategy": strategy.state_dict(),
        "loaders": {name: one.state_dict() for name, one in loaders.items() if one is not None},
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore(
    state: dict[str, Any], net: Network, strategy: Strategy, roles: Roles
) -> tuple[int, bool]:
    """The epoch to go on with, and whether the search had stopped by itself."""
    net.load_state_dict(state["net"])
    strategy.load_state_dict(state["strategy"])
    for name, saved in state["loaders"].items():
        getattr(roles, name).load_state_dict(saved)
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return int(state["epoch"]), bool(state["stopped"])


def _pictures(record: Record, strategy: Strategy, found: Architecture, epoch: int) -> None:
    """Alphas as a heat map and the cell of this epoch, per group."""
    for (name, cell), gates in zip(
        strategy.space.groups.items(), strategy.gates().values(), strict=True
    ):
        names = [edge.name for edge in cell.edges]
        candidates = [edge.candidates for edge in cell.edges]
        record.image(f"gates/{name}", alpha_image(gates.numpy(), names, candidates), epoch)
        record.image(f"cell/{name}", cell_image(cell, found.choices[name], name), epoch)
