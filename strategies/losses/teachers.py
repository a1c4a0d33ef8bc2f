"""Which past supernets teach: a memory of the last ones, by steps or by epochs."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from strategies.losses.snapshot import Snapshot, Weights, copy_mixture, copy_weights, lent
from supernets.mixture import Mixture


class Teachers:
    """The `count` supernets as they were `lag`, 2 `lag`, ..., `count` `lag` periods ago.

    A period is a step or an epoch (`unit`). The supernet at its start is copied before its first
    weight step, and joins the past only when the period is over: the present never teaches itself,
    for a teacher of lag zero says what the student says, and the loss would be zero.

    Memory: `count` * `lag` + 1 copies of the weights on their device, 7.7 MB each for the DARTS
    supernet on CIFAR-10.
    """

    def __init__(self, count: int, lag: int, unit: str):
        self.count, self.lag, self.unit = count, lag, unit
        self.past: deque[Snapshot] = deque(maxlen=count * lag)  # the oldest first
        self.present: Snapshot | None = None  # the start of a period that is not over
        self._weights: Weights | None = None
        self._mixture: Mixture | None = None

    @property
    def complete(self) -> bool:
        """Whether the oldest teacher's lag has passed."""
        return len(self.past) == self.count * self.lag

    def before_step(self, net: nn.Module) -> None:
        """Copies the weights that a period starts with."""
        if self.present is None:
            self._weights = copy_weights(net)

    def see(self, mixture: Mixture) -> None:
        """Copies the mixture of a pass; the last one of the step, that of the weights, stays."""
        if self._weights is not None:
            self._mixture = copy_mixture(mixture)

    def after_step(self) -> None:
        if self._weights is not None:
            assert self._mixture is not None, "the update took no loss from the strategy"
            self.present = Snapshot(self._weights, self._mixture)
            self._weights = self._mixture = None
        if self.unit == "step":
            self._end_period()

    def epoch_end(self, progress: float) -> None:
        """Raises ValueError, after the first epoch, where the search ends before they teach."""
        if self.unit == "epoch":
            oldest, epochs = self.count * self.lag, math.ceil(1 / progress - 1e-9)
            if not self.past and oldest >= epochs:
                raise ValueError(
                    f"teachers are up to {oldest} epochs old, "
                    f"found search.epochs={epochs}, so they would never teach; raise "
                    "search.epochs, or lower teachers or lag"
                )
            self._end_period()

    def _end_period(self) -> None:
        if self.present is not None:
            self.past.append(self.present)
            self.present = None

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """What they answer to x (B, C, H, W): (count, B, classes), the youngest first, no gradient.

        `net` lends its modules and stays as it is, buffers and modes included.
        """
        chosen = [self.past[-self.lag * (j + 1)] for j in range(self.count)]
        with lent(net):
            return torch.stack([one.logits(net, x) for one in chosen])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, between two steps."""
        present = None if self.present is None else self.present.state_dict()
        return {"past": [one.state_dict() for one in self.past], "present": present}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.past.clear()
        self.past.extend(Snapshot.parse(one, device) for one in state["past"])
        present = state["present"]
        self.present = None if present is None else Snapshot.parse(present, device)
