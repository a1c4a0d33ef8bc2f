"""Edge normalisation: softmax per node. Xu et al. 2020, arXiv:1907.05737, section 3.3."""

import torch
from torch import Tensor, nn

from search_spaces.space import Cell


class EdgeSoftmax(nn.Module):
    """Factors per edge that sum to one over the edges into each node."""

    def forward(self, beta: Tensor, cell: Cell, alive: Tensor) -> Tensor:
        """beta (E,), alive edges (E,) -> factors (E,); a dead edge gets exactly 0."""
        into = torch.tensor([[edge.target == i for edge in cell.edges] for i in cell.targets])
        into = into.to(beta.device) & alive  # (nodes, E)
        dead = ~into.any(1, keepdim=True)
        logits = beta.expand_as(into).masked_fill(~(into | dead), -torch.inf)
        return torch.where(into, logits.softmax(-1), 0.0).sum(0)
