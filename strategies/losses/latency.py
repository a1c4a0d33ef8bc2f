"""The expected latency of the gates as a loss.

Sources: Stamoulis et al. 2019, arXiv:1904.02877, section 3 (log of the run time); Cai et al. 2019,
arXiv:1812.00332, section 3.3 (the expectation over gates).
"""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import NotNegative
from strategies.contracts import LossTerm
from strategies.shares import weighed
from supernets.device_cost import device_cost

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network

UNITS = {"latency_ms": 1.0, "macs": 1e6}
SMALLEST = torch.finfo(torch.float32).tiny


class Latency(LossTerm):
    """weight * log R, with R = R_fixed + the sum over rows and options of gate * T; off while
    alphas do not move.

    T are the latencies of single options, so R is exact where one gate of each row is 1; with a
    table of whole architectures T is an additive model of it, and what was found is looked up. (The
    formula of Single-Path NAS, section 3, extrapolates the option 3x3 with expansion 3 from the
    other three.) Gates are multiplied by the factors of their rows.

    Args:
        weight: lambda.
        table: a file of task=measure_latency, of this space, from this device or another, or one of
            whole NAS-Bench-201 architectures; R is in ms. None: multiply-accumulates in place of
            latencies, in millions.
        device: the column of a table of whole architectures.

    Raises:
        ValueError: the file is no such table, or lacks a place or an architecture of the space; an
            unknown device; or costs of the space's options do not add up.
    """

    averages = True

    def __init__(self, *, weight: NotNegative, table: str | None, device: str | None):
        self.weight, self.table, self.device = weight, table, device

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.strategy, device = strategy, next(net.parameters()).device
        self.cost = device_cost(strategy.space, self.table, self.device)
        options, unit = self.cost.options, UNITS[self.cost.kind]
        self.fixed = options.fixed / unit
        self.tables = {n: (t / unit).float().to(device) for n, t in options.tables.items()}
        self.strength = torch.full((), self.weight, device=device)

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.strength.fill_(self.weight * self.strategy.alphas_move(epoch, epochs))

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        return self.strength * self.expected(mixture).clamp_min(SMALLEST).log()

    def expected(self, mixture: "Mixture") -> Tensor:
        """R, 0-dim, in ms or in millions of multiply-accumulates."""
        rows = [
            (weighed(group.gates, group.factors) * self.tables[name]).sum()
            for name, group in mixture.groups.items()
        ]
        return torch.stack(rows).sum() + self.fixed

    def costs_of(self, found: Architecture) -> dict[str, float]:
        """The cost of the architecture, exactly, in ms or in multiply-accumulates; and R of it,
        where that is only a model."""
        costs = {self.cost.kind: self.cost.exact(found)}
        if not self.cost.adds_up:
            costs["modelled_latency_ms"] = self.cost.options.of(found, self.strategy.space)
        return costs

    def constants(self) -> Hashable:
        return ()

    def state_dict(self) -> dict[str, Any]:
        """T and R_fixed, which a resumed search must share."""
        return {"fixed": self.fixed, "tables": {n: t.cpu() for n, t in self.tables.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for another table."""
        mine, saved = self.state_dict(), state["tables"]
        same = all(torch.equal(table, saved[name]) for name, table in mine["tables"].items())
        if not same or mine["fixed"] != state["fixed"]:
            raise ValueError(
                f"table: {self.table} has other latencies than the search began with; restore it"
            )
