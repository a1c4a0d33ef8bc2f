"""The cost of the gates, weighted by a pressure that grows until pruning keeps pace. GOLD-NAS.

Source: Bi et al. 2020, arXiv:2007.03331; formulas and numbers of the public code.
"""

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.settings import NotNegative, Positive
from strategies.contracts import LossTerm
from strategies.losses.pressure import Pressure
from strategies.shares import node_sums, real_options, same_target, shares, weighed
from supernets.costs import candidate_macs

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network

SMALLEST = torch.finfo(torch.float32).tiny
LEAST = 0.1  # relative to the cross-entropy of guessing: lower bound of CE in the term


def resource(gates: Tensor, alive: Tensor, prices: Tensor, same: Tensor) -> Tensor:
    """R = sum_o ln(1 + n w_o / S) price_o over alive candidates, 0-dim; arguments (R, O).

    S is the sum of the gates and n the number of alive candidates into a node (`same` (R, R) says
    which rows share one). R depends only on ratios of gates; descending it makes weak candidates
    weaker.
    """
    n = node_sums(alive.to(gates.dtype), same)
    return torch.where(alive, torch.log1p(n * shares(gates, same)) * prices, 0.0).sum()


class GateCost(LossTerm):
    """lambda * CE * R / |R|; a candidate costs r + mu * F on each of its layers.

    F is its multiply-accumulates. CE / |R| is treated as a constant, so the term equals lambda
    times the cross-entropy, and its gradient is that of lambda * CE * log R. CE is at least a tenth
    of that of guessing, so that pruning continues on a solved task; this bound makes the term no
    mean over images. Not in the paper, whose lambda R is independent of the loss: a value that
    suits one space and loss is 100 times too large elsewhere.

    Args:
        start, factor, period, pace, ceiling: settings of lambda, see `Pressure`.
        r, mu: price of a candidate, and of each `unit` of multiply-accumulates.
        unit: unit of F; None takes the mean over candidates, so that the space's size does not
            matter.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        *,
        start: float,
        factor: float,
        period: float,
        pace: float,
        ceiling: float | None,
        r: NotNegative,
        mu: NotNegative,
        unit: Positive | None,
    ):
        if r + mu == 0:
            raise ValueError(f"r, mu: expected at least 0, not both 0, found {(r, mu)}")
        self.pressure = Pressure(start, factor, period, pace, ceiling)
        self.r, self.mu, self.unit = r, mu, unit

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        device = next(net.parameters()).device
        choices, macs = strategy.space.choices, candidate_macs(net)
        self.strategy = strategy
        self.real = {name: real_options(choice).to(device) for name, choice in choices.items()}
        self.same = {name: same_target(choice).to(device) for name, choice in choices.items()}
        layers = {name: net.layers_of(name) for name in choices}
        self.prices = {  # (R, O)
            name: (layers[name] * self.r + self.mu * table / self._unit(macs, layers)).to(device)
            for name, table in macs.items()
        }
        self.pressure.setup(self._left(), device)

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        cost = self.cost(mixture)
        with torch.no_grad():
            least = LEAST * math.log(logits.size(1))
            loss = F.cross_entropy(logits, batch[1]).clamp_min(least)
            unit = loss / cost.clamp_min(SMALLEST)
        return self.pressure.strength * unit * cost

    def cost(self, mixture: "Mixture") -> Tensor:
        """R for these gates, 0-dim."""
        total = torch.zeros_like(self.pressure.strength)
        for name, (gates, factors, *_) in mixture.groups.items():
            alive = self.strategy.alive[name] & self.real[name]
            gates = torch.where(alive, weighed(gates, factors), 0.0)
            total = total + resource(gates, alive, self.prices[name], self.same[name])
        return total

    def constants(self) -> Hashable:
        return ()

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> None:
        self.pressure.epoch_end(self._left(), progress, rises=strategy.moving)

    def _unit(self, macs: Mapping[str, Tensor], layers: Mapping[str, int]) -> float:
        if self.unit is not None:
            return self.unit
        candidates = sum(layers[name] * int(real.sum()) for name, real in self.real.items())
        return max(1, sum(int(table.sum()) for table in macs.values())) / candidates

    def _left(self) -> int:
        """The number of alive candidates, without `none` and padding."""
        alive = self.strategy.alive
        return sum(int((alive[name] & real).sum()) for name, real in self.real.items())

    def state_dict(self) -> dict[str, Any]:
        return {"pressure": self.pressure.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pressure.load_state_dict(state["pressure"])
