"""Stops when the loss becomes sharp in the alphas, and takes the architecture of before.

Source: Zela et al. 2020, arXiv:1909.09656 (DARTS-ES); rules and numbers of the public code, with
which the paper's tables were made.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from search_spaces.settings import OpenShare, Range, Share, checked
from strategies.contracts import Stopping
from strategies.curvature import alpha_eigenvalue

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy
    from supernets.network import Network

log = logging.getLogger(__name__)

LEAST_WINDOW, LEAST_LAG = 3, 2  # evaluations; with fewer, a single noisy one would decide


class Plan(NamedTuple):
    """When the eigenvalue is measured, and which measurements are compared.

    A mean is over the last `window` evaluations and belongs to the epoch of the middle one. It is
    compared with the mean of `lag` evaluations earlier.
    """

    every: int  # epochs from one evaluation to the next
    window: int  # evaluations
    lag: int  # evaluations
    start: int  # the earliest epoch (from 0) whose architecture may be the result
    factor: float

    def mean(self, values: Sequence[float]) -> float:
        """The mean of the last `window` values, or of all if there are fewer."""
        last = values[-self.window :]
        return sum(last) / len(last)

    def rose(self, values: Sequence[float], epochs: Sequence[int]) -> int | None:
        """The epoch before the rise, if the mean is now more than `factor` times the earlier one;
        else None.

        values, epochs: all evaluations so far, in order. An earlier mean that is not positive has
        no ratio, so nothing rises from it.
        """
        before = len(values) - 1 - self.window // 2 - self.lag
        if before < 0 or epochs[before] < self.start:
            return None
        earlier = self.mean(values[: -self.lag])
        return epochs[before] if self.mean(values) > self.factor * earlier > 0 else None


@checked
@dataclass(kw_only=True, eq=False, repr=False)
class Eigenvalue(Stopping):
    """Stops the search when the largest eigenvalue of the Hessian in the alphas has risen.

    The result is the architecture of the epoch before the rise, several evaluations earlier. The
    eigenvalue is measured on one batch, always the same one and not augmented: of val images, or of
    training images in a one-level search. After the last epoch it is not measured, because nothing
    depends on it.

    Args:
        every: from one evaluation to the next, as a share of the search, but at least an epoch.
        window: how long values are averaged, as a share of the search, but at least 3 evaluations.
        lag: from the earlier mean to the later one, as a share of the search, but at least 2
            evaluations.
        start: share of the search before which no architecture is taken.
        factor: the ratio of the means above which the search stops.

    Raises:
        ValueError: a share outside (0, 1) (`start`: [0, 1)), or a factor of less than 1.
    """

    every: OpenShare
    window: OpenShare
    lag: OpenShare
    start: Share
    factor: Annotated[float, Range(ge=1)]

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.values: list[float] = []
        self.measured: list[int] = []  # the epochs of `values`
        self.found: int | None = None  # the epoch before the rise

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.epoch, self.plan = epoch, self.planned(epochs)

    def planned(self, epochs: float) -> Plan:
        """The plan of a search of that many epochs."""
        every = max(1, round(self.every * epochs))
        window, lag = (round(share * epochs / every) for share in (self.window, self.lag))
        return Plan(
            every,
            max(LEAST_WINDOW, window),
            max(LEAST_LAG, lag),
            round(self.start * epochs),
            self.factor,
        )

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool:
        if progress >= 1 or self.epoch % self.plan.every:
            return False
        self.values.append(alpha_eigenvalue(net, strategy, fixed_batch(loaders)))
        self.measured.append(self.epoch)
        self.found = self.plan.rose(self.values, self.measured)
        log.info("search: largest eigenvalue in the alphas %.3g", self.values[-1])
        return self.found is not None

    def result(self) -> int | None:
        return self.found

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "measured": self.measured, "found": self.found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values, self.measured = list(state["values"]), list(state["measured"])
        self.found = state["found"]


def fixed_batch(loaders: Any) -> "Batch":
    """The first batch of the first epoch's order, not augmented; no loader moves on."""
    loader = loaders.train if loaders.val is None else loaders.val
    batch: Batch = next(iter(replace(loader, augment=None)))
    return batch
