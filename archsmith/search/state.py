"""The complete state of a search, valid between any two steps."""

from collections.abc import Mapping
from typing import Any

from archsmith.data.roles import Roles
from archsmith.search.time_budget import Pace
from archsmith.train.checkpoint import fitting
from archsmith.train.random_state import random_state, set_random_state
from archsmith.train.record import Averages
from strategies.strategy import Strategy
from supernets.network import Network


class SearchState:
    """The progress of a search: `epoch` (from 0), `step`s done in it, its averages so far.

    The rest is in the supernet, the strategy, the loaders and the random generators.
    """

    def __init__(self, net: Network, strategy: Strategy, roles: Roles, pace: Pace):
        self.net, self.strategy, self.roles, self.pace = net, strategy, roles, pace
        self.epoch, self.step, self.stopped = 0, 0, False
        self.averages = Averages()
        self.halved = False

    def next_epoch(self, *, stopped: bool) -> None:
        """Moves to the next epoch; `stopped` means that a stopping rule ends the search here."""
        self.epoch, self.step, self.stopped = self.epoch + 1, 0, stopped
        self.averages = Averages()

    def halve(self) -> int:
        """Doubles the number of micro-batches and returns it."""
        self.halved = True
        self.strategy.micro_batches *= 2
        return self.strategy.micro_batches

    def state_dict(self) -> dict[str, Any]:
        loaders = {"train": self.roles.train, "val": self.roles.val}
        return {
            "epoch": self.epoch,
            "step": self.step,
            "stopped": self.stopped,
            "averages": self.averages.state_dict(),
            "micro_batches": self.strategy.micro_batches,
            "net": self.net.state_dict(),
            "strategy": self.strategy.state_dict(),
            "loaders": {n: one.state_dict() for n, one in loaders.items() if one is not None},
            "pace": self.pace.state_dict(),
            "random": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`. Raises CheckpointError for a state that does not fit."""
        with fitting("search"):
            self._load(state)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.strategy.load_state_dict(state["strategy"])
        for name, loader in (("train", self.roles.train), ("val", self.roles.val)):
            if loader is not None:
                loader.load_state_dict(state["loaders"][name])
        device = next(self.net.parameters()).device
        self.averages.load_state_dict(state["averages"], device)
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.stopped = bool(state["stopped"])
        if "pace" in state:  # older checkpoints lack it: epochs come from the settings
            self.pace.load_state_dict(state["pace"])
        if not self.halved:
            self.strategy.micro_batches = int(state["micro_batches"])
        set_random_state(state["random"])
