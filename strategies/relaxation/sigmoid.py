"""Sigmoid gates: candidates do not compete. GOLD-NAS, Bi et al. 2020, arXiv:2007.03331."""

from collections.abc import Hashable

import torch
from torch import Tensor

from strategies.contracts import Relaxation


class Sigmoid(Relaxation):
    """Independent gates: w_o = sigmoid(a_o). A loss term and pruning remove weak candidates."""

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """(R, O) logits -> (R, O) gates, no index; a pruned candidate gets exactly 0."""
        return torch.where(alive, alphas.sigmoid(), 0.0), None

    def constants(self) -> Hashable:
        return ()
