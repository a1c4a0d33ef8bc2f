"""Max-W: a softmax raised so that the strongest candidate of an edge is never scaled down.

Source: Hundt et al. 2019, sharpDARTS, arXiv:1903.09900, and its public code.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from strategies.contracts import Relaxation
from strategies.relaxation.masked import masked_softmax


class MaxW(Relaxation):
    """Gates 1 - max_j w_j + w_o per edge, w = softmax(alphas): 1 for the strongest candidate.

    The sum over the candidates of an edge is at least 1; the batch norm after each candidate
    absorbs the scale. The strongest one has the gate 1 on every edge, so the architecture is read
    from w, as in the public code.

    Args:
        detach: whether max_j w_j is a constant for the gradient. If not, the gate of the strongest
            candidate has no gradient.
    """

    def __init__(self, detach: bool):
        super().__init__()
        self.detach = detach

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """(R, O) logits -> (R, O) gates, no index; a pruned candidate gets exactly 0."""
        w = masked_softmax(alphas, alive)
        most = w.amax(1, keepdim=True)
        most = most.detach() if self.detach else most
        return torch.where(alive, 1 - most + w, 0.0), None

    def expected(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """w, which compares edges, too."""
        return masked_softmax(alphas, alive), None

    def constants(self) -> Hashable:
        return ()
