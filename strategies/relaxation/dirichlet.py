"""Gates drawn from a Dirichlet distribution whose concentrations are learned. DrNAS.

Source: Chen et al. 2021, arXiv:2006.10355, section 2.2, and its public code.
"""

from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from strategies.contracts import Relaxation

LEAST = 0.01  # below, torch's sampler underflows: rows of equal gates, in float64, too


def concentrations(alphas: Tensor) -> Tensor:
    """c = ELU(alphas) + 1, at least 0.01: positive, and 1 (the uniform distribution) at 0."""
    return (F.elu(alphas) + 1).clamp_min(LEAST)


class Dirichlet(Relaxation):
    """theta ~ Dirichlet(c) per edge, c = ELU(alphas) + 1; the gradient goes through the sample.

    (R, O) -> (R, O), soft: every alive candidate runs. One draw per group and pass. After pruning,
    the remaining candidates follow the Dirichlet of their concentrations. There is no noise in
    `eval` mode.
    """

    samples = True  # two passes have different gates: see SecondOrder

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        if not self.training:
            return self.expected(alphas, alive)
        positive = torch.where(alive, concentrations(alphas), 1.0)
        theta = torch.distributions.Dirichlet(positive, validate_args=False).rsample()
        return _shares(theta, alive), None

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """The mean c / sum(c), from which the architecture is read."""
        return _shares(concentrations(alphas), alive), None

    def constants(self) -> Hashable:
        return ()


def _shares(amounts: Tensor, alive: Tensor) -> Tensor:
    """Each row's alive amounts divided by their sum; 0 elsewhere, and in a dead row."""
    amounts = torch.where(alive, amounts, 0.0)
    total = amounts.sum(1, keepdim=True)
    return amounts / torch.where(total > 0, total, 1.0)
