"""Keeps the multiply-accumulates of the architecture within a band around a target. TAS.

Source: Dong & Yang 2019, arXiv:1905.09717, section 3.2, eq. 8.
"""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.settings import NotNegative, OpenShare, Share
from strategies.contracts import LossTerm
from supernets.costs import candidate_macs, expected_macs

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network


class MacsBand(LossTerm):
    """weight * log E if F > (1 + t) R, -weight * log E if F < (1 - t) R, else 0; on val images.

    F are the multiply-accumulates of the architecture with the most probable option in each row, E
    their mean over architectures drawn by the noise-free gates, and R the share `target` of those
    with the costliest option in each row. Only log E has a gradient. In a stack of cells an option
    counts in every layer of its choice, fixed parts do not count, and every row keeps an option.

    The band is the paper's; its public code has none above R, and t is a share of the unpruned
    network there.

    Args:
        weight: lambda_cost. target: R, tolerance: t.

    Raises:
        ValueError: a setting out of its range.
    """

    roles = ("val",)
    averages = True

    def __init__(self, *, weight: NotNegative, target: OpenShare, tolerance: Share):
        self.weight, self.target, self.tolerance = weight, target, tolerance

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.net, self.strategy = net, strategy
        tables, device = candidate_macs(net), next(net.parameters()).device
        self.tables = {n: t.to(device, torch.float) for n, t in tables.items()}
        most = float(self.expected(largest(self.tables)))
        self.goal = most * self.target

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        gates = self.gates()
        now = self.expected(largest(gates)).detach()
        above = (now > (1 + self.tolerance) * self.goal).float()
        below = (now < (1 - self.tolerance) * self.goal).float()
        cost = self.expected(gates).clamp_min(1.0)
        return self.weight * (above - below) * cost.log()

    def gates(self) -> dict[str, Tensor]:
        """Choice -> the noise-free gates (R, O)."""
        strategy = self.strategy
        return {
            name: strategy.relaxation.expected(strategy.shifted(name), alive)[0]
            for name, alive in strategy.alive.items()
        }

    def expected(self, gates: Mapping[str, Tensor]) -> Tensor:
        """E, 0-dim. After `setup` all that it reads is on the device."""
        return expected_macs(self.net, gates, self.tables)

    @torch.no_grad()
    def costs_of(self, found: Architecture) -> dict[str, float]:
        """E, F and R at the end of the search."""
        gates = self.gates()
        return {
            "expected_macs": float(self.expected(gates)),
            "most_probable_macs": float(self.expected(largest(gates))),
            "target_macs": self.goal,
        }

    def constants(self) -> Hashable:
        return ()


def largest(tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One-hot tables (R, O) of the largest entry of each row."""
    zeros = {n: torch.zeros(t.shape, device=t.device) for n, t in tables.items()}
    return {n: zeros[n].scatter(1, t.argmax(1, keepdim=True), 1.0) for n, t in tables.items()}
