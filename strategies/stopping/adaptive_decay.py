"""Goes back to before the eigenvalue rose, and on from there with a larger weight decay.

Source: Zela et al. 2020, arXiv:1909.09656 (DARTS-ADA); numbers of the paper and of its scripts.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from search_spaces.settings import Positive, Range, checked
from strategies.stopping.eigenvalue import Eigenvalue

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network

log = logging.getLogger(__name__)


@checked
@dataclass(kw_only=True, eq=False, repr=False)
class AdaptiveDecay(Eigenvalue):
    """Raises the weight decay of the weights each time the eigenvalue rises, up to a largest one.

    The search returns to the epoch that `Eigenvalue` would take as its result, with everything as
    it was then, the eigenvalues included. With the largest decay it goes on to its last epoch and
    measures nothing; the result is the last epoch's architecture. Deviation from the public code:
    there the virtual step keeps the old decay, and evaluations of before and after the return are
    mixed.

    Args:
        every, window, lag, start, factor: when the eigenvalue has risen, see `Eigenvalue`.
        growth: the weight decay is multiplied by this at each return.
        largest: the largest weight decay.

    Raises:
        ValueError: a setting out of its range; an initial weight decay that is 0 or cannot grow.
    """

    growth: Annotated[float, Range(gt=1)]
    largest: Positive

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        super().setup(net, strategy)
        self.groups = strategy.weight_optimizer.param_groups
        self.decay: float = self.groups[0].get("weight_decay", 0.0)
        if self.decay <= 0 or not self.may_return:
            raise ValueError(
                f"largest: the weight decay of the weights is {self.decay:g}, expected above 0, at "
                f"most {self.largest / self.growth:g}; set weight_optimizer.weight_decay or this"
            )
        self.next_decay = self.decay  # is no state: it outlives the return to an earlier epoch

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> bool:
        if self.may_return:
            super().epoch_end(net, strategy, loaders, progress)
        return False

    @property
    def may_return(self) -> bool:  # type: ignore[override]
        return self.decay * self.growth <= self.largest * (1 + 1e-9)  # rounded, 3e-4 * 100 > 3e-2

    def returns_to(self) -> int | None:
        self.next_decay = self.decay if self.found is None else self.decay * self.growth
        return self.found

    def returned(self, strategy: "Strategy") -> None:
        log.info("search: weight decay raised to %g", self.next_decay)
        self._use(self.next_decay)

    def result(self) -> int | None:
        return None

    def _use(self, decay: float) -> None:
        self.decay = decay
        for group in self.groups:
            group["weight_decay"] = decay

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"decay": self.decay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._use(state["decay"])
