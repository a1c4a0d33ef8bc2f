"""The zero-one loss: gates are pushed from one half to 0 or 1. Fair DARTS.

Source: Chu et al. 2020, arXiv:1911.12126, section 3.3, and the public code.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces.settings import NotNegative
from strategies.contracts import LossTerm

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture
    from supernets.network import Network


class ZeroOne(LossTerm):
    """-weight * the sum over alive candidates of (gate - 1/2)^2, on val images.

    Gates are those of the relaxation, without the factors of rows. At a gate of exactly one half
    the gradient is 0: the cross-entropy decides on which side a candidate falls.

    The paper takes the mean over the 196 candidates of its space, with w_01 = 10. The sum with a
    weight of 10 / 196 is the same there, and pushes no harder in a space with fewer candidates.

    Args:
        weight: w_01 over the number of candidates.
    """

    roles = ("val",)
    averages = True

    def __init__(self, weight: NotNegative):
        self.weight = weight

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.strategy = strategy

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        alive = self.strategy.alive
        squares = [
            torch.where(alive[name], (group.gates - 0.5).square(), 0.0).sum()
            for name, group in mixture.groups.items()
        ]
        return -self.weight * torch.stack(squares).sum()

    def constants(self) -> Hashable:
        return ()
