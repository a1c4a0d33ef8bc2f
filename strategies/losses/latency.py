"""The expected latency of the gates as a loss.

Sources: Stamoulis et al. 2019, arXiv:1904.02877, section 3 (log of the run time); Cai et al. 2019,
arXiv:1812.00332, section 3.3 (the expectation over gates).
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import NotNegative
from strategies.contracts import LossTerm
from strategies.shares import weighed
from supernets.final_costs import final_costs
from supernets.latency_table import latency_cost
from supernets.network import check_costs

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

    T are the latencies of single options, so R is exact where one gate of each row is 1. (The
    formula of Single-Path NAS, section 3, extrapolates the option 3x3 with expansion 3 from the
    other three.) Gates are multiplied by the factors of their rows.

    Args:
        weight: lambda.
        table: a file of task=measure_latency, of this space, from this device or another; R is in
            ms. None: multiply-accumulates in place of latencies, in millions.

    Raises:
        ValueError: the file is no such table, or lacks a place of the space; or costs of its
            options do not add up.
    """

    def __init__(self, *, weight: NotNegative, table: str | None):
        self.weight, self.table = weight, table
        self.kind = "macs" if table is None else "latency_ms"

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        check_costs(strategy.space)
        self.strategy, device = strategy, next(net.parameters()).device
        if self.table is None:
            self.cost = final_costs(strategy.space)[self.kind]
        else:
            try:
                self.cost = latency_cost(strategy.space, Path(self.table))
            except ValueError as error:
                raise ValueError(f"table: {error}") from error
        unit = UNITS[self.kind]
        self.fixed = self.cost.fixed / unit
        self.tables = {n: (t / unit).float().to(device) for n, t in self.cost.tables.items()}
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
        """R of the architecture, exactly: in ms, or in multiply-accumulates."""
        return {self.kind: self.cost.of(found, self.strategy.space)}

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
