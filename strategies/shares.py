"""A candidate's share of its node's gates. GOLD-NAS, Bi et al. 2020, arXiv:2007.03331."""

import torch
from torch import Tensor

from search_spaces.space import Cell


def real_candidates(cell: Cell) -> Tensor:
    """(E, O) bool: whether there is a candidate other than `none`."""
    return torch.tensor(
        [
            [o < len(edge.candidates) and edge.candidates[o] != "none" for o in range(cell.width)]
            for edge in cell.edges
        ]
    )


def same_target(cell: Cell) -> Tensor:
    """(E, E): 1 if two edges lead into the same node, else 0."""
    targets = torch.tensor([edge.target for edge in cell.edges])
    return (targets[:, None] == targets).float()


def node_sums(values: Tensor, same: Tensor) -> Tensor:
    """(E, 1): for each edge the sum of `values` (E, O) over all edges into its node."""
    return (same.to(values.dtype) @ values.sum(1))[:, None]


def shares(gates: Tensor, same: Tensor) -> Tensor:
    """w_o / S (E, O) for gates (E, O), with S their sum over the node; 0 if S is 0."""
    return gates / node_sums(gates, same).clamp_min(torch.finfo(gates.dtype).tiny)
