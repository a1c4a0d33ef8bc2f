"""Edge normalisation: softmax per node. Xu et al. 2020, arXiv:1907.05737, section 3.3."""

from collections.abc import Hashable

import torch
from torch import Tensor

from search_spaces.space import Cell
from strategies.contracts import EdgeNormalisation


class EdgeSoftmax(EdgeNormalisation):
    """Factors per edge that sum to one over the edges into each node."""

    def __init__(self) -> None:
        super().__init__()
        self._into: dict[tuple[Cell, torch.device], Tensor] = {}

    def forward(self, beta: Tensor, cell: Cell, alive: Tensor) -> Tensor:
        """beta (E,), alive edges (E,) -> factors (E,); a dead edge gets exactly 0."""
        place = cell, beta.device
        if place not in self._into:  # cached: a copy from the host would synchronise in every pass
            into = torch.tensor([[edge.target == i for edge in cell.edges] for i in cell.targets])
            self._into[place] = into.to(beta.device)
        into = self._into[place] & alive  # (nodes, E)
        dead = ~into.any(1, keepdim=True)
        logits = beta.expand_as(into).masked_fill(~(into | dead), -torch.inf)
        return torch.where(into, logits.softmax(-1), 0.0).sum(0)

    def constants(self) -> Hashable:
        return ()
