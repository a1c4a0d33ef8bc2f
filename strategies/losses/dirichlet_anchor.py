"""Keeps Dirichlet concentrations near their anchor, the uniform Dirichlet(1, ..., 1). DrNAS.

Source: Chen et al. 2021, arXiv:2006.10355, section 2.2: lambda d(c, 1) is added to the validation
loss.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from search_spaces.settings import NotNegative
from strategies.contracts import LossTerm
from strategies.relaxation.dirichlet import Dirichlet, concentrations

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture


class DirichletAnchor(LossTerm):
    """weight * sum over all edges of a distance between Dirichlet(c) and Dirichlet(1).

    It keeps the sample variance in range: unbounded concentrations would stop exploration, and very
    small ones would make it arbitrary.

    Args:
        weight: lambda.
        distance: `l2` is sum_o alphas_o^2 / 2, equal to the Adam weight decay of the public code
            (alphas of 0 are concentrations of 1); `kl` is KL(Dir(c) || Dir(1)).

    Raises:
        ValueError: an unknown distance, a negative weight, or a relaxation other than Dirichlet.
    """

    averages = True

    def __init__(self, weight: NotNegative, distance: Literal["l2", "kl"]):
        self.weight, self.distance = weight, DISTANCES[distance]

    def setup(self, net: nn.Module, strategy: "Strategy") -> None:
        if not isinstance(strategy.relaxation, Dirichlet):
            found = type(strategy.relaxation).__name__
            raise ValueError(
                "needs strategy/relaxation=dirichlet, found "
                f"{found}; set it, or leave this loss out"
            )
        self.strategy = strategy

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim."""
        strategy, distance = self.strategy, self.distance
        distances = [distance(strategy.shifted(n), on).sum() for n, on in strategy.alive.items()]
        return self.weight * torch.stack(distances).sum()

    def constants(self) -> Hashable:
        return ()


def l2(alphas: Tensor, alive: Tensor) -> Tensor:
    """Half the squared norm of each edge's alive logits, (R,)."""
    return torch.where(alive, alphas, 0.0).square().sum(1) / 2


def kl_to_uniform(alphas: Tensor, alive: Tensor) -> Tensor:
    """KL(Dir(c) || Dir(1)) over each edge's n alive candidates, (R,); 0 for n < 2.

    = ln Gamma(s) - sum_o ln Gamma(c_o) - ln Gamma(n) + sum_o (c_o - 1)(psi(c_o) - psi(s)), where
    s = sum_o c_o.
    """
    c = torch.where(alive, concentrations(alphas), 1.0)
    n = alive.sum(1)
    total = torch.where(alive, c, 0.0).sum(1) + (n == 0)
    pull = (c - 1) * (c.digamma() - total.digamma()[:, None])  # 0 where not alive
    fixed = n.clamp_min(1).to(c.dtype).lgamma()
    return total.lgamma() - c.lgamma().sum(1) - fixed + pull.sum(1)


DISTANCES = {"l2": l2, "kl": kl_to_uniform}
