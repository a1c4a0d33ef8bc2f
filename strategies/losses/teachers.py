"""The past supernets that teach, stored by steps or by epochs."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from strategies.losses.snapshot import (
    Snapshot,
    Weights,
    copy_mixture,
    copy_weights,
    lent,
    mixture_into,
    snapshot_into,
)
from supernets.mixture import Mixture


class Teachers:
    """The supernets of `lag`, 2 `lag`, ..., `count` `lag` periods ago.

    A period is a step or an epoch (`unit`). The supernet is copied before the first weight step of
    a period and becomes a teacher only after the period: a teacher of lag zero would equal the
    student, and the loss would be zero.

    Memory: `count` * `lag` + 1 copies of the weights on the device, 7.7 MB each for the DARTS
    supernet on CIFAR-10; `count` more if the teachers stay `in_place`, where a captured pass reads
    them.
    """

    in_place = False

    def __init__(self, count: int, lag: int, unit: str):
        self.count, self.lag, self.unit = count, lag, unit
        self.past: deque[Snapshot] = deque(maxlen=count * lag)  # oldest first
        self.present: Snapshot | None = None  # the copy of the unfinished period
        self.structure = ""  # the options that run in the teachers
        self._weights: Weights | None = None
        self._seen: Mixture | None = None  # the copy of the last pass's mixture
        self._chosen: list[Snapshot] = []
        self._teaching: list[Snapshot] = []  # the chosen ones, youngest first, or their copies
        self._kept: list[Snapshot] | None = None

    @property
    def complete(self) -> bool:
        """Whether all teachers exist."""
        return len(self.past) == self.count * self.lag

    def before_step(self, net: nn.Module) -> None:
        """Copies the weights at the start of a period, and chooses the step's teachers."""
        if self.complete:
            self._choose([self.past[-self.lag * (j + 1)] for j in range(self.count)])
        if self.present is None:
            self._weights = copy_weights(net)

    def _choose(self, chosen: list[Snapshot]) -> None:
        if any(a is not b for a, b in zip_longest(chosen, self._chosen)):
            self._chosen = self._teaching = chosen
            if self.in_place:
                kept: Sequence[Snapshot | None] = self._kept or [None] * self.count
                self._kept = [snapshot_into(*pair) for pair in zip(kept, chosen, strict=True)]
                self._teaching = self._kept
            groups = [one.mixture.groups.values() for one in chosen]
            self.structure = str([[part.active for part in parts] for parts in groups])

    def see(self, mixture: Mixture) -> None:
        """Copies the mixture of a pass; a step's last one, that of the weight step, is kept. A
        captured pass copies into the same tensors."""
        self._seen = mixture_into(self._seen, mixture)

    def after_step(self) -> None:
        if self._weights is not None:
            assert self._seen is not None, "the update took no loss from the strategy"
            self.present = Snapshot(self._weights, copy_mixture(self._seen))
            self._weights = None
        if self.unit == "step":
            self._end_period()

    def epoch_end(self, progress: float) -> None:
        """Raises ValueError after the first epoch if the search is too short for the teachers."""
        if self.unit == "epoch":
            oldest, epochs = self.count * self.lag, math.ceil(1 / progress - 1e-9)
            if not self.past and oldest >= epochs:
                raise ValueError(
                    f"teachers are up to {oldest} epochs old, "
                    f"found a search of {epochs}, so they would never teach; search "
                    "longer, or lower teachers or lag"
                )
            self._end_period()

    def _end_period(self) -> None:
        if self.present is not None:
            self.past.append(self.present)
            self.present = None

    def logits(self, net: nn.Module, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> logits (count, B, classes) without gradient, youngest teacher first.

        The modules of `net` are used and left unchanged, including buffers and modes.
        """
        with lent(net):
            return torch.stack([one.logits(net, x) for one in self._teaching])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, between two steps."""
        present = None if self.present is None else self.present.state_dict()
        return {"past": [one.state_dict() for one in self.past], "present": present}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.past.clear()
        self._chosen = []
        self.past.extend(Snapshot.parse(one, device) for one in state["past"])
        present = state["present"]
        self.present = None if present is None else Snapshot.parse(present, device)
