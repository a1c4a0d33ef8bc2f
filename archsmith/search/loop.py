"""The gradient search: alpha and weight steps, an architecture file after each epoch."""

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from archsmith.data.loader import Loader
from archsmith.data.roles import Roles
from archsmith.errors import ConfigError
from archsmith.parallel.averaged import without_graphs
from archsmith.search.diagnosis import degenerate
from archsmith.search.measure import Found, discretised_accuracy, measure, measured_again
from archsmith.search.pareto import Pareto
from archsmith.search.pictures import pictures
from archsmith.search.settings import SearchSettings
from archsmith.search.signal import Signal
from archsmith.search.time_budget import Pace, clock_of
from archsmith.train.finite import largest
from archsmith.train.memory_probe import images_for
from archsmith.train.record import Record
from archsmith.train.training import Training
from search_spaces.architecture import Architecture
from search_spaces.distance import distance
from search_spaces.settings import located
from strategies.gradients import Batch
from strategies.strategy import Strategy
from supernets.network import Network

log = logging.getLogger(__name__)


class Search(Training):
    """A search in progress; its result is `Found` of the last epoch.

    Writes `architectures/epoch_NNN.json` and pictures into the record's folder. `net` and
    `strategy` are set up on their device.

    Args:
        meta: goes into every architecture file.
        epochs: replaces the number in `settings`; may be fractional.

    Raises:
        ConfigError: the alphas would never move; later, an ingredient rejects the epoch's end.
    """

    group, rate = "search", "strategy.weight_optimizer.lr"
    remedy = (
        "lower strategy.weight_optimizer.lr, or set strategy.clip; if it is the alphas', lower "
        "strategy.alpha_optimizer.lr"
    )

    def __init__(
        self,
        net: Network,
        strategy: Strategy,
        roles: Roles,
        settings: SearchSettings,
        *,
        record: Record,
        meta: dict[str, Any],
        epochs: float | None = None,
    ):
        super().__init__(net, {"train": roles.train, "val": roles.val})
        self.strategy, self.roles, self.settings = strategy, roles, settings
        self.record, self.meta = record, meta
        clock = clock_of(self.device)
        self.pace = Pace(epochs or settings.epochs, len(roles.train), settings.seconds, clock)
        number = self.pace.number
        if not strategy.alphas_move(number - 1, self.pace.epochs):
            raise ConfigError(
                f"strategy.warmup: {strategy.warmup} of search.epochs={number} leaves no epoch in "
                "which alphas move; lower strategy.warmup, or raise search.epochs or search.seconds"
            )
        strategy.for_batches(settings.batch_size)
        self.micro_batches = settings.micro_batches
        self.found: Found | None = None  # after the last epoch of this process
        self.pareto: Pareto | None = None
        self.signal = Signal()  # of the present or last epoch's alpha steps
        self.stops = self.warned = False  # whether an ingredient ends the search, and of collapse

    @property
    def epochs(self) -> float:  # type: ignore[override]
        return self.pace.epochs

    @property
    def steps(self) -> int:
        return self.pace.steps_of(self.epoch)

    @property
    def micro_batches(self) -> int:
        return self.strategy.micro_batches

    @micro_batches.setter
    def micro_batches(self, parts: int) -> None:
        self.strategy.micro_batches = parts

    @property
    def savings(self) -> str:  # type: ignore[override]
        more = "" if self.net.checkpoint_cells else "runtime.checkpoint_cells=true, or "
        return f"{more}fewer space.channels, layers or candidates"

    def start_epoch(self) -> Iterable[Batch]:
        self.net.train()
        if self.step == 0:
            self.signal = Signal()
        self.strategy.epoch_start(self.epoch, self.epochs)
        self.move_alphas = self.strategy.alphas_move(self.epoch, self.epochs)
        self.val = _forever(self.roles.val) if self.move_alphas else itertools.repeat(None)
        short = self.steps < len(self.loader)  # a full epoch exhausts the loader, which moves on
        return itertools.islice(self.loader, self.steps - self.step if short else None)

    def train_step(self, batch: Batch) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        metrics = self.strategy.step(
            self.net,
            batch,
            next(self.val),
            progress=self.pace.progress(self.epoch, self.step),
            move_alphas=self.move_alphas,
        )
        if self.settings.signal and self.move_alphas:
            self.signal.add(self.strategy.arch_parameters())
        return metrics, measured_numbers(metrics, self.strategy)

    def prepared(self, images: int) -> Callable[[], object]:
        net, strategy = copy.deepcopy((self.net, self.strategy))
        net.train()
        train, val = images_for(net, images), images_for(net, images)
        given = None if self.roles.val is None else val
        return lambda: strategy.step(net, train, given, progress=1.0, move_alphas=True)

    def end_epoch(self) -> dict[str, float]:
        """Prunes, measures, and writes the epoch's architecture and pictures."""
        self.pace.steps_end()
        progress = self.pace.progress(self.epoch + 1, 0)
        try:
            self.stops = self.strategy.epoch_end(self.net, self.roles, progress)
        except ValueError as error:
            raise ConfigError(located("strategy", str(error))) from error
        self.found = self._measured(self.epoch)
        architecture = self.found.architecture
        architecture.save(self._file(self.epoch))
        pictures(self.record, self.record.folder, self.strategy, architecture, self.epoch)
        self.pace.epoch_end(self.epoch + 1)
        self._keep(architecture)
        return self.found.metrics

    def _keep(self, found: Architecture) -> None:
        """Adds what the strategy keeps to the series; a resumed one loses what came later."""
        if self.pareto is None:
            self.pareto = Pareto(self.record.folder, self.strategy.space, self.epoch)
        for kept in self.strategy.keep(found, last=self._last):
            accuracy = discretised_accuracy(self.net, kept, self.roles)
            self.pareto.add(kept, epoch=self.epoch, accuracy=accuracy, meta=self.meta)

    def summary(self, metrics: Mapping[str, float]) -> str:
        return (
            f"; on held-out images supernet {metrics['supernet_accuracy']:.3f}, discretised "
            f"{metrics['discretised_accuracy']:.3f}"
        )

    def next_epoch(self) -> None:
        """Also warns once of a degenerate architecture; the last one is reported at the end."""
        assert self.found is not None
        moved = self.strategy.alphas_move(self.epoch, self.epochs)
        if moved and not self._last and not self.warned:
            warning = degenerate(self.strategy.space, self.found.architecture)
            if warning:
                self.warned = True
                log.warning("search epoch %d/%d: %s", self.epoch + 1, self.pace.number, warning)
        self.stopped = self.stops
        super().next_epoch()

    @property
    def may_return(self) -> bool:
        return self.strategy.may_return

    def returns_to(self) -> int | None:
        return self.strategy.returns_to()

    def return_to(self, state: Mapping[str, Any]) -> None:
        """Loads everything but the time that is spent, drops the files of later epochs, and lets
        the ingredients change what they went back for."""
        self.load_state_dict({**state, "pace": self.pace.state_dict()})
        self.found = None
        for folder in ("architectures", "gates"):
            for file in (self.record.folder / folder).glob("epoch_*.json"):
                if int(file.stem.removeprefix("epoch_")) >= self.epoch:
                    file.unlink()
        self.strategy.returned()

    @property
    def _last(self) -> bool:
        return self.stops or self.epoch + 1 == self.pace.number

    def _measured(self, epoch: int) -> Found:
        """`distance` is that of the architecture from the first epoch's; `alpha_signal` is left out
        where alphas do not move."""
        about = {**self.meta, "epoch": epoch}
        curvature = self.settings.curvature
        found = measure(self.net, self.strategy, self.roles, about, curvature=curvature)
        first = Architecture.load(self._file(0)) if epoch else found.architecture
        found.metrics["distance"] = distance(first, found.architecture, self.strategy.space)
        if self.settings.signal and not math.isnan(ratio := self.signal.ratio()):
            found.metrics["alpha_signal"] = ratio
        return found

    def _file(self, epoch: int) -> Path:
        return self.record.folder / "architectures" / f"epoch_{epoch:03d}.json"

    def result(self) -> Found:
        """The last epoch's architecture, or that of the epoch that the strategy names: its
        discretised accuracy is then measured in the last supernet."""
        found, epoch = self.found or self._measured(self.epoch - 1), self.strategy.result()
        if epoch is None or epoch == self.epoch - 1:
            return found
        log.info("search: the result is the architecture of epoch %d", epoch + 1)
        earlier = Architecture.load(self._file(epoch))
        return measured_again(self.net, self.roles, found, earlier)

    def release(self) -> bool:
        """Makes passes eager from now on; returns whether CUDA graphs were in use."""
        self.strategy.gradients, used = without_graphs(self.strategy.gradients)
        return used

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | self.strategy.named_arch_parameters()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "strategy": self.strategy.state_dict(),
            "loaders": {role: one.state_dict() for role, one in self.loaders.items()},
            "pace": self.pace.state_dict(),
            "signal": self.signal.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pareto = None
        self.strategy.load_state_dict(state["strategy"])
        for role, loader in self.loaders.items():
            loader.load_state_dict(state["loaders"][role])
        if "pace" in state:  # older checkpoints lack it: epochs come from the settings
            self.pace.load_state_dict(state["pace"])
        if "signal" in state:  # likewise
            self.signal.load_state_dict(state["signal"], self.device)
        super().load_state_dict(state)


def measured_numbers(metrics: dict[str, Tensor], strategy: Strategy) -> dict[str, Tensor]:
    """The numbers of a step to check for NaN, causes before effects; 0-dim."""
    arch = strategy.arch_parameters()
    gradients = [p.grad for p in arch if p.grad is not None]
    alphas = {"gradient of the alphas": largest(gradients), "alphas": largest(arch)}
    val = {"val_loss": metrics["val_loss"]} if "val_loss" in metrics else metrics
    return val | alphas | metrics


def _forever(loader: Loader | None) -> Iterator[Batch | None]:
    while True:
        yield from [None] if loader is None else loader
