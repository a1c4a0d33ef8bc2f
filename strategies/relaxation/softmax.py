"""Softmax over the candidates of an edge. Liu et al. 2019, arXiv:1806.09055, eq. 2."""

from collections.abc import Hashable

import torch
from torch import Tensor

from search_spaces.settings import Positive
from strategies.contracts import Relaxation
from strategies.relaxation.masked import masked_softmax


class Softmax(Relaxation):
    """Softmax over the candidates of an edge, its temperature annealed geometrically.

    Args:
        start, end: temperature at progress 0 and 1; `start == end == 1` is plain DARTS.

    Raises:
        ValueError: a temperature that is not positive.
    """

    def __init__(self, start: Positive, end: Positive):
        super().__init__()
        self.start, self.end = start, end
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(float(start)))

    def forward(self, alphas: Tensor, alive: Tensor) -> tuple[Tensor, None]:
        """(R, O) logits -> (R, O) gates, no index; a pruned candidate gets exactly 0."""
        return masked_softmax(alphas / self.temperature, alive), None

    def before_step(self, progress: float) -> None:
        self.temperature.fill_(self.start * (self.end / self.start) ** progress)

    def constants(self) -> Hashable:
        return ()
