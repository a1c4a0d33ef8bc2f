"""The contract of a training: what the epoch runner (`archsmith.train.epochs`) runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from archsmith.data.loader import Loader
from archsmith.train.random_state import random_state, set_random_state
from archsmith.train.record import Averages


class Training(ABC):
    """A training in progress: what a step and the end of an epoch are, and all state that a
    checkpoint holds, valid between any two steps.

    Args:
        loaders: role -> loader of the batches of a step; the first one's length is that of an
            epoch.
    """

    group: str  # of its settings `batch_size` and `micro_batches`
    rate: str  # the setting of its learning rate
    remedy: str  # settings to change when a number is not finite
    savings: str  # settings that save memory, besides the batch
    epochs: float  # the last one may be short
    micro_batches = 1  # parts in which a batch is computed

    def __init__(self, net: Any, loaders: Mapping[str, Loader | None]):
        self.net = net
        self.loaders = {role: one for role, one in loaders.items() if one is not None}
        self.loader = next(iter(self.loaders.values()))
        self.epoch, self.step, self.stopped = 0, 0, False  # finished epochs; steps of this one
        self.averages = Averages()
        self.halved = False

    # -- what differs between trainings
    # ----------------------------------------------------------------------------------

    @abstractmethod
    def start_epoch(self) -> Iterable[Any]:
        """Sets schedules and modes; returns the rest of the epoch's batches."""

    @abstractmethod
    def train_step(self, batch: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """One update; returns metrics to average, with `train_loss` and `train_accuracy`, and
        numbers that must be finite, causes before effects; all 0-dim."""

    @abstractmethod
    def prepared(self, images: int) -> Callable[[], object]:
        """A step on so many random images that works on copies of everything it changes."""

    @abstractmethod
    def result(self) -> Any:
        """What the training is for; called after the last epoch."""

    def end_epoch(self) -> dict[str, float]:
        """Called after the last step of an epoch; returns more metrics."""
        return {}

    def summary(self, metrics: Mapping[str, float]) -> str:
        """An addition to the epoch's log line."""
        return ""

    @property
    def may_return(self) -> bool:
        """Whether the training may return to the end of an earlier epoch."""
        return False

    def returns_to(self) -> int | None:
        """The epoch (from 0) to whose end the training returns; None to go on."""
        return None

    def return_to(self, state: Mapping[str, Any]) -> None:
        """Loads the state at the end of that epoch."""
        self.load_state_dict(state)

    def release(self) -> bool:
        """Frees memory that only serves speed; returns whether there was any."""
        return False

    # -- what they share
    # -------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps of the current epoch."""
        return len(self.loader)

    @property
    def over(self) -> bool:
        return self.stopped or self.epoch >= self.epochs

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.net.parameters()).device
        return device

    def next_epoch(self) -> None:
        """Counts the epoch as finished."""
        self.epoch, self.step, self.averages = self.epoch + 1, 0, Averages()

    def halve(self) -> int:
        """Doubles the number of micro-batches and returns it."""
        self.halved = True
        self.micro_batches *= 2
        return self.micro_batches

    def tensors(self) -> dict[str, Tensor]:
        """What must be finite when it is saved."""
        state: dict[str, Tensor] = self.net.state_dict()
        return state

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "stopped": self.stopped,
            "averages": self.averages.state_dict(),
            "micro_batches": self.micro_batches,
            "net": self.net.state_dict(),
            "random": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`. Raises an error of any kind for a state that does not
        fit."""
        self.net.load_state_dict(state["net"])
        self.averages.load_state_dict(state["averages"], self.device)
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.stopped = bool(state.get("stopped"))
        if not self.halved:
            self.micro_batches = int(state["micro_batches"])
        set_random_state(state["random"])
