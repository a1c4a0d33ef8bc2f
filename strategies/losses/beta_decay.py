"""Beta decay: a decay of the softmax outputs instead of the alphas. Beta-DARTS.

Source: Ye et al. 2022, arXiv:2203.01665, section 3.2, and the public code.
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


class BetaDecay(LossTerm):
    """lambda * the sum over rows of log sum_o exp(alpha_o), on val images.

    Its gradient in a row's alphas is their softmax: the larger a candidate's share, the stronger
    the pull. lambda rises linearly, from 0 in the first epoch towards `weight` after the last.

    The paper takes the mean over the 28 edges of the DARTS space, up to lambda = 50. The sum with
    50 / 28 is the same there, and pulls no harder in a space with fewer edges.

    Args:
        weight: the final lambda, per row; 0 is plain DARTS.
    """

    roles = ("val",)
    averages = True

    def __init__(self, weight: NotNegative):
        self.weight = weight

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        self.strategy = strategy
        self.strength = torch.zeros((), device=next(net.parameters()).device)

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.strength.fill_(self.weight * epoch / epochs)

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        strategy = self.strategy
        rows = [sums(strategy.shifted(name), alive) for name, alive in strategy.alive.items()]
        return self.strength * torch.cat(rows).sum()

    def constants(self) -> Hashable:
        return ()


def sums(alphas: Tensor, alive: Tensor) -> Tensor:
    """log sum_o exp(alpha_o) over the alive candidates (R,); 0 for a row without any."""
    dead = ~alive.any(1)
    logits = alphas.masked_fill(~alive & ~dead[:, None], -torch.inf)
    return torch.where(dead, 0.0, logits.logsumexp(1))
